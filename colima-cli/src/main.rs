//! The program `colima`.

fn main() {}
