//! Mounts what a program serves on its standard input and output, until interrupted:
//!
//! ```sh
//! cargo build --release --example serve_directory --example mount_directory
//! cd target/release/examples
//! ./mount_directory /mnt ./serve_directory /some/directory
//! ./mount_directory /mnt ssh somewhere ./serve_directory /some/directory
//! ```
//!
//! Needs `/dev/fuse`, and root.

use std::{error::Error, process::Stdio};

use colima_mount::{Client, fuse};
use tokio::process::Command;

#[tokio::main]
#[expect(clippy::print_stdout, reason = "a program says what it does")]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args_os().skip(1);
    let usage = "usage: mount_directory MOUNTPOINT PROGRAM [ARGUMENT...]";
    let place = arguments.next().ok_or(usage)?;
    let mut server = Command::new(arguments.next().ok_or(usage)?)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()?;
    let (Some(input), Some(output)) = (server.stdin.take(), server.stdout.take()) else {
        return Err("the server has no standard streams".into());
    };
    let client = Client::connect(tokio::io::join(output, input)).await?;
    let mut mount = fuse::mount(client, &place).await?;
    println!("mounted on {}", mount.path().display());
    loop {
        tokio::select! {
            () = mount.disconnected() => return Err("the server is gone".into()),
            interrupted = tokio::signal::ctrl_c() => interrupted?,
        }
        match mount.close().await {
            Ok(()) => return Ok(()),
            // Somebody uses it: the next interrupt tries again.
            Err(busy) => {
                println!("{busy}: {}", busy.source);
                mount = busy.guard;
            }
        }
    }
}
