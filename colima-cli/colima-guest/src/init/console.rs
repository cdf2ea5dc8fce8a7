//! Lines on the guest's console, which the host keeps.

use std::{fs::File, io::Write};

use crate::status::uptime;

/// Where progress goes. Writing never fails the boot.
#[derive(Debug)]
pub(super) struct Console {
    device: Option<File>,
}

impl Console {
    pub(super) fn new() -> Self {
        let mut console = Self { device: None };
        console.open();
        console
    }

    /// Opens the device once it exists: before devtmpfs is mounted it need not.
    pub(super) fn open(&mut self) {
        if self.device.is_none() {
            self.device = File::options().write(true).open("/dev/console").ok();
        }
    }

    pub(super) fn say(&mut self, text: &str) {
        self.line("", text);
    }

    pub(super) fn fatal(&mut self, text: &str) {
        self.line("FATAL: ", text);
    }

    fn line(&mut self, prefix: &str, text: &str) {
        let line = format!(
            "colima-init: {:.3} {prefix}{text}\r\n",
            uptime().as_secs_f64()
        );
        if let Some(device) = &mut self.device {
            let _ = device.write_all(line.as_bytes());
        }
    }
}
