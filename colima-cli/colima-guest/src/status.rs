//! What `init` leaves for the agent to tell the host.

use std::{path::Path, time::Duration};

use colima_core::boot::Runtime;
use serde::{Deserialize, Serialize};

/// Where the record lies in the booted system.
pub const STATUS_PATH: &str = "/run/colima/status.json";

/// The course of `init`: what it reached, and why the runtime must not start if it must not.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct InitStatus {
    /// Version of this record. Program and record come from the same boot, so no other is read.
    pub version: u32,
    /// The runtime that the host asked for.
    pub runtime: Runtime,
    /// Why the runtime was kept from starting, in one sentence.
    pub failure: Option<String>,
    /// Stages with their times, in order.
    pub stages: Vec<Stage>,
}

/// A point of the boot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stage {
    /// Its short name.
    pub name: String,
    /// Milliseconds since the kernel started.
    pub uptime_ms: u64,
}

impl Stage {
    /// A stage that is reached now.
    #[must_use]
    pub fn now(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            uptime_ms: u64::try_from(uptime().as_millis()).unwrap_or(u64::MAX),
        }
    }
}

impl InitStatus {
    /// The version this program writes and reads.
    pub const VERSION: u32 = 1;

    /// Reads the record; text says what is wrong where it cannot be read.
    ///
    /// # Errors
    ///
    /// A sentence for the host: an agent without a record cannot vouch for the data disk.
    pub fn read(path: &Path) -> Result<Self, String> {
        let text = std::fs::read(path)
            .map_err(|error| format!("init left no status at {}: {error}", path.display()))?;
        let status: Self = serde_json::from_slice(&text)
            .map_err(|error| format!("init's status cannot be read: {error}"))?;
        if status.version == Self::VERSION {
            Ok(status)
        } else {
            Err(format!(
                "init's status has the unknown version {}",
                status.version
            ))
        }
    }
}

/// Time since the kernel started, including time suspended.
#[must_use]
pub fn uptime() -> Duration {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    Duration::new(
        u64::try_from(now.tv_sec).unwrap_or_default(),
        u32::try_from(now.tv_nsec).unwrap_or_default(),
    )
}
