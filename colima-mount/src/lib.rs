//! Host directories elsewhere.
//!
//! Nothing is here yet: the crate holds its place in the workspace and in the crate graph until the
//! confined SFTP server and the FUSE client are written.
