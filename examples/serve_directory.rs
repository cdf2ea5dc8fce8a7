//! Serves a directory over standard input and output, for the stock client:
//!
//! ```sh
//! cargo build --release --example serve_directory
//! sftp -D "target/release/examples/serve_directory /some/directory"
//! sftp -D "target/release/examples/serve_directory --read-only /some/directory"
//! ```
//!
//! The client sees the directory as its root and cannot leave it, whatever links are in it.

use std::error::Error;

use colima_mount::{Access, Root, Server};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args_os().skip(1).peekable();
    let access = match arguments.next_if(|argument| argument == "--read-only") {
        Some(_) => Access::ReadOnly,
        None => Access::ReadWrite,
    };
    let directory = arguments
        .next()
        .ok_or("usage: serve_directory [--read-only] DIRECTORY")?;
    let stream = tokio::io::join(tokio::io::stdin(), tokio::io::stdout());
    Server::new(Root::open(directory)?, access)
        .serve(stream)
        .await?;
    // A thread may still wait for standard input, and nobody is left to write there.
    std::process::exit(0)
}
