//! Makes a disk image, grows it, and asks how large it is.

use qemu_img_wrapper::{Create, Image, Locking, QemuImg, Resize};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let path = std::env::current_dir()?.join("disk.qcow2");
    let disk = Image::qcow2(&path);
    let qemu_img = QemuImg::new();

    qemu_img.create(&Create::empty(disk, 1 << 20)).await?;
    qemu_img.resize(disk, 3 << 20, Resize::GrowOnly).await?;

    let info = qemu_img.info(disk, Locking::Respect).await?;
    println!("the disk has {} bytes", info.virtual_size);
    Ok(())
}
