//! Asks what there is of a profile, the same way for every verb and in bounded time.

use std::time::Duration;

use tokio::time::timeout;

use super::{
    Reply, Request,
    client::{ClientError, Conversation, DaemonFiles},
};
use crate::instance::Probe;

/// All questions to a daemon that lives. Its own probes take less ([`crate::instance::Instance::probe`]).
const LIMIT: Duration = Duration::from_millis(1700);

impl DaemonFiles {
    /// What the daemon says of its instance; `None` where neither runs. A machine that lost its daemon gets another
    /// one first, which takes its time; a daemon that lives answers within two seconds or not at all.
    ///
    /// # Errors
    ///
    /// [`ClientError::Silent`] when the daemon does not answer; else see [`ClientError`].
    pub async fn probe(
        &self,
        machine_runs: impl Fn() -> bool,
    ) -> Result<Option<Probe>, ClientError> {
        match self.probe_once(&machine_runs).await {
            // It was just leaving, as it does when its machine died, with our question unread. Now it has left.
            Err(ClientError::HungUp { .. }) => self.probe_once(&machine_runs).await,
            probed => probed,
        }
    }

    async fn probe_once(
        &self,
        machine_runs: &impl Fn() -> bool,
    ) -> Result<Option<Probe>, ClientError> {
        let living = async {
            // One of another version is sent away first, and the machine with it found by ours.
            if !self.greets().await? {
                return Ok(None);
            }
            match self.ask_living(&Request::Status).await? {
                Some(mut talk) => probe_in(&mut talk).await.map(Some),
                None => Ok(None),
            }
        };
        match timeout(LIMIT, living).await {
            Ok(Ok(None)) => {}
            Ok(probed) => return probed,
            Err(_) => return Err(self.silent().await),
        }
        if !machine_runs() {
            return Ok(None);
        }
        let mut talk = self.ask(&Request::Status).await?;
        match timeout(LIMIT, probe_in(&mut talk)).await {
            Ok(probed) => probed.map(Some),
            Err(_) => Err(self.silent().await),
        }
    }
}

async fn probe_in(talk: &mut Conversation) -> Result<Probe, ClientError> {
    match talk.next().await? {
        Reply::Status(probe) => Ok(*probe),
        other => Err(ClientError::Conversation {
            source: std::io::Error::other(format!("an answer to another question: {other:?}")),
        }),
    }
}

#[cfg(test)]
mod tests {
    use std::{
        io::{BufRead as _, BufReader, Write as _},
        os::unix::net::{UnixListener, UnixStream},
        path::Path,
        thread,
    };

    use super::*;
    use crate::control::VERSION;

    fn files(directory: &Path) -> DaemonFiles {
        DaemonFiles {
            socket: directory.join("socket"),
            spawn_lock: directory.join("lock"),
            log: directory.join("log"),
            home: directory.to_owned(),
            // Whoever starts a daemon here fails.
            program: directory.join("no-such-program"),
            arguments: Vec::new(),
        }
    }

    /// What is asked of `stream`, if anything.
    fn asked(stream: &UnixStream) -> String {
        let mut line = String::new();
        let _ = BufReader::new(stream).read_line(&mut line);
        line
    }

    fn greet(stream: &mut UnixStream) {
        assert!(asked(stream).contains("hello"));
        let hello = format!("{{\"reply\":\"hello\",\"version\":{VERSION},\"pid\":1}}\n");
        stream.write_all(hello.as_bytes()).unwrap();
    }

    #[tokio::test]
    async fn a_daemon_that_was_just_leaving_is_asked_once_more() {
        let directory = tempfile::tempdir().unwrap();
        let files = files(directory.path());
        let listener = UnixListener::bind(&files.socket).unwrap();
        let socket = files.socket.clone();
        let leaving = thread::spawn(move || {
            let (mut first, _) = listener.accept().unwrap();
            greet(&mut first);
            let (second, _) = listener.accept().unwrap();
            assert!(asked(&second).contains("status"));
            drop(listener);
            std::fs::remove_file(socket).unwrap();
            // Only now does the client see the end.
            drop(second);
        });
        let probed = files.probe(|| false).await;
        leaving.join().unwrap();
        assert!(matches!(probed, Ok(None)), "{probed:?}");
    }

    #[tokio::test]
    async fn one_that_always_hangs_up_is_an_error() {
        let directory = tempfile::tempdir().unwrap();
        let files = files(directory.path());
        let listener = UnixListener::bind(&files.socket).unwrap();
        let hanging_up = thread::spawn(move || {
            for _ in 0..2 {
                let (mut first, _) = listener.accept().unwrap();
                greet(&mut first);
                let (second, _) = listener.accept().unwrap();
                assert!(asked(&second).contains("status"));
            }
        });
        let probed = files.probe(|| false).await;
        hanging_up.join().unwrap();
        assert!(
            matches!(probed, Err(ClientError::HungUp { .. })),
            "{probed:?}"
        );
    }

    #[tokio::test]
    async fn one_that_is_silent_is_not_waited_for() {
        let directory = tempfile::tempdir().unwrap();
        let files = files(directory.path());
        // The system takes the connection, nobody answers: a daemon that is stopped by a signal.
        let _listener = UnixListener::bind(&files.socket).unwrap();
        let probed = files.probe(|| true).await;
        let ours = i32::try_from(std::process::id()).unwrap();
        assert!(
            matches!(probed, Err(ClientError::Silent { process: Some(pid), .. }) if pid == ours),
            "{probed:?}"
        );
    }
}
