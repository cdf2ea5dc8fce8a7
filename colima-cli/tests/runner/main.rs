//! Tests of what people type and read: one test program, every other file here is a module of it.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod command_errors;
mod command_line;
mod compatibility;
mod configuration;
mod docker_contexts;
mod doctor;
mod help;
mod home;
mod hostile;
mod outputs;
mod smaller_verbs;
mod stages;
