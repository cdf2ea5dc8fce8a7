//! A typed, asynchronous wrapper around the `qemu-img` program.
