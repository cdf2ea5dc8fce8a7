//! The programs are in `examples/examples`; this library is empty.
