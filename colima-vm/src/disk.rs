//! Disk images of a machine: create, grow, overlay, and refuse what is crafted.
