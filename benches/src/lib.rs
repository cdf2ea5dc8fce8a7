//! Side-by-side comparisons: what is ours, what it replaces, and what is physically there to reach, in one
//! run on one host.
//!
//! A *row* ([`Row`](report::Row)) is one comparison. Its peers take turns (A B C A B C ...), so that a busy
//! moment of the host hits all of them; medians are compared, and all values are kept in
//! `results/ROW.json`. A bar is met or not, and both are printed.
//!
//! | module | row |
//! |---|---|
//! | [`cold_start`] | power on until docker answers |
//! | [`through_vm`] | connections and bytes into a guest |
//! | [`native`] | the multiplexer against ssh, without a guest |
//! | [`mounts_native`] | our mount against sshfs, without a guest |
//! | [`mounts_vm`] | the same in a guest |
//! | [`at_rest`] | what `status` and `list` cost, and how large the daemon is |
//!
//! `cargo run --release -p colima-benches --bin compare` says what it needs; `make bench` provides it.

pub mod at_rest;
pub mod cold_start;
pub mod files;
pub mod host;
pub mod mounts;
pub mod mounts_native;
pub mod mounts_vm;
pub mod native;
pub mod peer;
pub mod product;
pub mod report;
pub mod resume;
pub mod sample;
pub mod ssh_master;
pub mod through_vm;

/// What a guest prints on its console when docker's API has answered.
pub const READY: &str = "colima-bench: docker answers";

/// Anything can fail here, and all of it is told to a person.
pub type Result<T> = std::result::Result<T, Box<dyn std::error::Error + Send + Sync>>;

/// Runs what blocks away from the runtime.
///
/// # Errors
///
/// Those of `work`.
pub async fn blocking<T, F>(work: F) -> Result<T>
where
    T: Send + 'static,
    F: FnOnce() -> std::io::Result<T> + Send + 'static,
{
    Ok(tokio::task::spawn_blocking(work).await??)
}
