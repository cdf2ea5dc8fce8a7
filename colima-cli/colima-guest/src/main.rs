//! The one program that runs in a Colima guest.

fn main() {}
