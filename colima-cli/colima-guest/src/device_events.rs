//! Finds devices, waiting for the kernel's events where they are late.

use std::{
    fs, io,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    net::{AddressFamily, RecvFlags, SocketFlags, SocketType, netlink},
};

use crate::GuestError;

/// The multicast group in which the kernel itself announces devices.
const KERNEL_EVENTS: u32 = 1;

/// Hears of devices from before the first look at them, so that none is missed.
#[derive(Debug)]
pub(crate) struct Watch {
    events: OwnedFd,
}

impl Watch {
    pub(crate) fn new() -> Result<Self, GuestError> {
        let open = || -> io::Result<OwnedFd> {
            let events = rustix::net::socket_with(
                AddressFamily::NETLINK,
                SocketType::DGRAM,
                SocketFlags::CLOEXEC | SocketFlags::NONBLOCK,
                Some(netlink::KOBJECT_UEVENT),
            )?;
            rustix::net::bind(&events, &netlink::SocketAddrNetlink::new(0, KERNEL_EVENTS))?;
            Ok(events)
        };
        open()
            .map(|events| Self { events })
            .map_err(|source| GuestError::Kernel {
                step: "listen for devices",
                source,
            })
    }

    /// The node of the disk with this serial number.
    pub(crate) fn disk(&mut self, serial: &str, deadline: Duration) -> Result<PathBuf, GuestError> {
        self.wait(&format!("disk {serial}"), deadline, || {
            let name = disk_with_serial(Path::new("/sys/block"), serial)?;
            Some(Path::new("/dev").join(name))
        })
    }

    /// The name of the first virtio network interface.
    pub(crate) fn network_interface(&mut self, deadline: Duration) -> Result<String, GuestError> {
        self.wait("virtio network interface", deadline, || {
            virtio_interface(Path::new("/sys/class/net"))
        })
    }

    /// Looks until `find` finds, again at each event.
    pub(crate) fn wait<T>(
        &mut self,
        device: &str,
        deadline: Duration,
        find: impl Fn() -> Option<T>,
    ) -> Result<T, GuestError> {
        let end = Instant::now() + deadline;
        loop {
            self.drain();
            if let Some(found) = find() {
                return Ok(found);
            }
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(GuestError::DeviceMissing {
                    device: device.to_owned(),
                    seconds: deadline.as_secs(),
                });
            }
            let timeout = Timespec::try_from(left).ok();
            let mut descriptors = [PollFd::new(&self.events, PollFlags::IN)];
            match poll(&mut descriptors, timeout.as_ref()) {
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(error) => {
                    return Err(GuestError::Kernel {
                        step: "wait for devices",
                        source: error.into(),
                    });
                }
            }
        }
    }

    /// Takes what has arrived. What the events say does not matter, and neither does an overrun: the
    /// look that follows sees everything.
    fn drain(&self) {
        let mut buffer = [0_u8; 4096];
        loop {
            match rustix::net::recv(&self.events, &mut buffer[..], RecvFlags::DONTWAIT) {
                Ok(_) | Err(rustix::io::Errno::NOBUFS | rustix::io::Errno::INTR) => {}
                Err(_) => return,
            }
        }
    }
}

/// Names below `directory`, sorted.
fn names(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    let mut names: Vec<String> = entries
        .filter_map(|entry| entry.file_name().into_string().ok())
        .collect();
    names.sort_unstable();
    names
}

fn disk_with_serial(block: &Path, serial: &str) -> Option<String> {
    names(block).into_iter().find(|name| {
        // Other drivers keep their serial number elsewhere, or have none.
        fs::read_to_string(block.join(name).join("serial"))
            .is_ok_and(|found| found.trim_end() == serial)
    })
}

fn virtio_interface(net: &Path) -> Option<String> {
    names(net).into_iter().find(|name| {
        fs::read_link(net.join(name).join("device/driver"))
            .is_ok_and(|driver| driver.ends_with("virtio_net"))
    })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn disks_by_serial_and_interfaces_by_driver() {
        let sys = tempfile::tempdir().unwrap();
        for (disk, serial) in [
            ("sda", None),
            ("vda", Some("colima-data")),
            ("vdb", Some("colima-root\n")),
        ] {
            let directory = sys.path().join("block").join(disk);
            fs::create_dir_all(&directory).unwrap();
            if let Some(serial) = serial {
                fs::write(directory.join("serial"), serial).unwrap();
            }
        }
        let block = sys.path().join("block");
        assert_eq!(
            disk_with_serial(&block, "colima-root").as_deref(),
            Some("vdb")
        );
        assert_eq!(
            disk_with_serial(&block, "colima-data").as_deref(),
            Some("vda")
        );
        assert_eq!(disk_with_serial(&block, "colima"), None);

        let net = sys.path().join("net");
        fs::create_dir_all(net.join("eth0/device")).unwrap();
        fs::create_dir_all(net.join("lo")).unwrap();
        assert_eq!(virtio_interface(&net), None);
        symlink(
            "../../bus/virtio/drivers/virtio_net",
            net.join("eth0/device/driver"),
        )
        .unwrap();
        assert_eq!(virtio_interface(&net).as_deref(), Some("eth0"));
    }
}
