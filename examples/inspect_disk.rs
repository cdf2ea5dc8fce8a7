//! Tells what a disk image is and whether it is safe to boot. Nothing is written, and no QEMU program
//! sees an image that was refused. Type:
//!
//! ```text
//! cargo run -p colima-examples --example inspect_disk -- FILE
//! ```
//!
//! The exit status is 0 for an image that is safe to boot, 1 for one that is not, 2 for a wrong command
//! line.

#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a program, and that is its work"
)]

use std::{error::Error as _, path::Path, process::ExitCode};

use colima_core::Bytes;
use colima_vm::disk::{
    self, Error,
    qcow2::{Condition, Header, Overlay},
};
use qemu_img_wrapper::{Image, Locking, QemuImg};

/// More than any machine here is given.
const LARGEST: Bytes = Bytes::gib(64 << 10);

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let mut arguments = std::env::args_os().skip(1);
    let (Some(file), None) = (arguments.next(), arguments.next()) else {
        eprintln!("usage: inspect_disk FILE");
        return ExitCode::from(2);
    };
    let path = Path::new(&file);
    match disk::inspect(path).await {
        Ok(header) => report(path, &header).await,
        Err(error) => {
            print_chain("not safe to boot", &error);
            ExitCode::FAILURE
        }
    }
}

async fn report(path: &Path, header: &Header) -> ExitCode {
    println!("format     qcow2, version {}", header.version);
    println!(
        "size       {} in clusters of {}",
        header.virtual_size, header.cluster_size
    );
    println!("snapshots  {}", header.snapshots);
    let condition = match header.condition {
        Condition::Clean => "clean",
        Condition::Dirty => "not closed in order; QEMU repairs that when it opens the image",
        Condition::Corrupt => "damaged; repair a copy with qemu-img check -f qcow2 -r all",
    };
    println!("condition  {condition}");

    let objections = header.objections(LARGEST, Overlay::Refuse);
    for objection in &objections {
        println!("refused    {objection}");
    }
    if !objections.is_empty() || header.condition == Condition::Corrupt {
        println!("not safe to boot");
        return ExitCode::FAILURE;
    }
    // Only now may QEMU's own tool open it; a running machine's disk is looked at all the same.
    match QemuImg::new()
        .info(Image::qcow2(path), Locking::ForceShare)
        .await
    {
        Ok(info) => println!("on disk    {}", Bytes::new(info.actual_size)),
        Err(error) => print_chain("on disk    unknown", &error.into()),
    }
    println!("safe to boot");
    ExitCode::SUCCESS
}

fn print_chain(verdict: &str, error: &Error) {
    print!("{verdict}: {error}");
    let mut source = error.source();
    while let Some(cause) = source {
        print!(": {cause}");
        source = cause.source();
    }
    println!();
}
