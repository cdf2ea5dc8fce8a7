//! Host directories elsewhere.

pub mod client;
#[cfg(all(feature = "fuse", target_os = "linux"))]
pub mod fuse;
pub mod server;
pub mod sftp;

pub use client::{Client, File};
pub use server::{Access, Root, Server};
