//! Where a comparison ran.

use std::{fmt, fs, process::Command, time::UNIX_EPOCH};

use serde::{Deserialize, Serialize};

/// A host at the time of a comparison.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Host {
    /// Model of its processors.
    pub cpu: String,
    /// Number of processors.
    pub cpus: usize,
    /// Release of its kernel.
    pub kernel: String,
    /// Version of QEMU, where one was used.
    pub qemu: Option<String>,
    /// What the guest's processors ran on, where there was a guest.
    pub accelerator: Option<String>,
    /// Load average of the last minute when the comparison began.
    pub load: f64,
    /// When the comparison began, seconds since the Unix epoch.
    pub recorded: u64,
}

impl Host {
    /// Looks at this host.
    #[must_use]
    pub fn here() -> Self {
        let read = |path| fs::read_to_string(path).unwrap_or_default();
        let cpu_info = read("/proc/cpuinfo");
        let model = cpu_info
            .lines()
            .find_map(|line| line.strip_prefix("model name")?.split_once(": "));
        let load = read("/proc/loadavg");
        Self {
            cpu: model.map_or("unknown", |(_, model)| model).to_owned(),
            cpus: std::thread::available_parallelism().map_or(1, std::num::NonZero::get),
            kernel: read("/proc/sys/kernel/osrelease").trim().to_owned(),
            qemu: None,
            accelerator: None,
            load: load
                .split_whitespace()
                .next()
                .and_then(|word| word.parse().ok())
                .unwrap_or(f64::NAN),
            recorded: UNIX_EPOCH.elapsed().unwrap_or_default().as_secs(),
        }
    }

    /// The same with a guest on it.
    #[must_use]
    pub fn with_guest(mut self, accelerator: impl Into<String>) -> Self {
        let output = Command::new("qemu-system-x86_64").arg("--version").output();
        // "QEMU emulator version 10.0.2 (Debian ...)"
        self.qemu = output.ok().and_then(|output| {
            let text = String::from_utf8_lossy(&output.stdout).into_owned();
            text.split_whitespace().nth(3).map(str::to_owned)
        });
        self.accelerator = Some(accelerator.into());
        self
    }
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} x {}, Linux {}", self.cpus, self.cpu, self.kernel)?;
        if let Some(accelerator) = &self.accelerator {
            let qemu = self.qemu.as_deref().unwrap_or("of unknown version");
            write!(f, ", QEMU {qemu} with **{accelerator}**")?;
        }
        write!(f, ", load {:.1} before", self.load)
    }
}
