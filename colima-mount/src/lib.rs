//! Host directories elsewhere.

pub mod client;
pub mod server;
pub mod sftp;

pub use client::{Client, File};
pub use server::{Access, Root, Server};
