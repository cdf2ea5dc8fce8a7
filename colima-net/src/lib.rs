//! Byte streams between a host and a guest: socket relay and multiplexer.
