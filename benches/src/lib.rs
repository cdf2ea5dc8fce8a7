//! Harness of the comparisons.
