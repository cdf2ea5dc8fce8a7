//! Ctrl-C during a start leaves nothing behind, at whatever step it comes.

use std::time::Duration;

use rustix::process::Signal;

use super::{
    process,
    world::{PROFILE, World},
};

/// How long an undo may take on a busy host; it has nothing to wait for but processes that end.
const UNDO: Duration = Duration::from_secs(120);

/// The steps that a start names.
const MOMENTS: [&str; 3] = [
    "preparing the disks",
    "starting the machine",
    "waiting for the container runtime",
];

pub(crate) fn leaves_nothing(world: &World) {
    world.machine_is_stopped();
    for moment in MOMENTS {
        let mut start = world.colima(["start"]).spawn();
        start.wait_for_stderr(moment);
        start.process().signal(Signal::INT);
        let interrupted = start.finish(UNDO);
        assert_eq!(
            interrupted.status.code(),
            Some(130),
            "at `{moment}`: {interrupted}"
        );
        for daemon in process::daemons(&world.home, PROFILE) {
            assert!(daemon.ends_within(UNDO), "at `{moment}`: a daemon stays");
        }
        assert_eq!(process::of_home(&world.home), [""; 0], "at `{moment}`");
        for socket in ["docker.sock", "ssh.sock", "daemon.sock"] {
            let socket = world.home.join(PROFILE).join(socket);
            assert!(
                !socket.exists(),
                "at `{moment}`: {} is left",
                socket.display()
            );
        }
        world.colima(["status"]).exits(3);
    }
}
