//! Tests of what people type and read: one test program, every other file here is a module of it.

mod command_errors;
mod command_line;
mod docker_contexts;
mod help;
mod outputs;
mod stages;
