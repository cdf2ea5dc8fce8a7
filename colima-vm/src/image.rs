//! Image bundles: build, lock, store, verify.
