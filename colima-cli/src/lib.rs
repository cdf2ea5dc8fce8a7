//! The command line of Colima, as a library with `Instance`.
