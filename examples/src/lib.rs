//! The programs lie beside this directory, one file each; the library is empty but for the example in the
//! README of the workspace, which is compiled with its documentation tests.

#[cfg(doctest)]
#[doc = include_str!("../../README.md")]
mod readme {}
