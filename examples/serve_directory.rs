//! Serves a directory over standard input and output, for the stock client:
//!
//! ```sh
//! cargo build --release --example serve_directory
//! sftp -D "target/release/examples/serve_directory /some/directory"
//! sftp -D "target/release/examples/serve_directory --read-only /some/directory"
//! ```
//!
//! The client sees the directory as its root and cannot leave it, whatever links are in it. Nor could the
//! program: it gives up everything else before it reads the first byte.

use std::{error::Error, fs::File};

use colima_mount::{
    Access, Server,
    server::confine::{Confinement, FileWall},
};

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args_os().skip(1).peekable();
    let access = match arguments.next_if(|argument| argument == "--read-only") {
        Some(_) => Access::ReadOnly,
        None => Access::ReadWrite,
    };
    let directory = arguments
        .next()
        .ok_or("usage: serve_directory [--read-only] DIRECTORY")?;
    // While there is one thread: the runtime comes after it.
    let confined = Confinement::new(File::open(directory)?.into(), access).enter()?;
    if confined.walls.files == FileWall::Nothing {
        return Err("this host has neither namespaces nor Landlock for its users".into());
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    let stream = tokio::io::join(tokio::io::stdin(), tokio::io::stdout());
    runtime.block_on(Server::new(confined.root, access).serve(stream))?;
    // A thread may still wait for standard input, and nobody is left to write there.
    std::process::exit(0)
}
