//! The command line of Colima, as a library with `Instance`.
pub mod args;
pub mod command_error;
pub mod docker_context;
pub mod environment;
pub mod exit_code;
pub mod output;
pub mod progress;
pub mod state_dir;
