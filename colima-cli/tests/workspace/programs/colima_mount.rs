//! The crate has nothing to call yet: what can be shown is that its package builds and links.

use colima_mount as _;

fn main() {
    println!("linked");
}
