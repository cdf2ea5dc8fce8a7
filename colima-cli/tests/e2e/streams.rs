//! Many connections at once, and what is left of them.

use std::{
    io::{Read, Write},
    os::unix::net::UnixStream,
    time::Duration,
};

use super::world::{PROFILE, World, eventually};

/// All are open before the first is used.
pub(crate) fn fifty_connections_at_once(world: &World) {
    world.machine_runs();
    let socket = world.docker_socket(PROFILE);
    let mut connections: Vec<UnixStream> = (0..50)
        .map(|_| UnixStream::connect(&socket).expect("the relay takes connections"))
        .collect();
    for connection in &mut connections {
        let limit = Some(Duration::from_secs(120));
        connection.set_read_timeout(limit).expect("not zero");
        connection
            .write_all(b"GET /_ping HTTP/1.1\r\nHost: docker\r\nConnection: close\r\n\r\n")
            .expect("the relay reads");
    }
    for (number, connection) in connections.iter_mut().enumerate() {
        let mut answer = String::new();
        connection
            .read_to_string(&mut answer)
            .expect("an answer and its end");
        let right = answer.starts_with("HTTP/1.1 200 OK\r\n") && answer.ends_with("OK");
        assert!(right, "connection {number}: {answer:?}");
    }
}

/// What the daemon holds while nobody uses it.
pub(crate) struct Baseline {
    pid: u32,
    descriptors: usize,
    tasks: usize,
}

impl Baseline {
    pub(crate) fn take(world: &World) -> Self {
        world.machine_runs();
        let daemon = world.daemon(PROFILE);
        Self {
            pid: daemon.pid,
            descriptors: daemon.descriptors(),
            tasks: daemon.tasks(),
        }
    }

    /// Every client is gone by now; the daemon learns of the guest's side a moment later.
    pub(crate) fn holds_again(&self, world: &World) {
        let daemon = world.daemon(PROFILE);
        assert_eq!(daemon.pid, self.pid, "another daemon than before");
        let limit = Duration::from_secs(60);
        eventually("descriptors back to where they were", limit, || {
            daemon.descriptors() <= self.descriptors
        });
        eventually("threads back to where they were", limit, || {
            daemon.tasks() <= self.tasks
        });
    }
}
