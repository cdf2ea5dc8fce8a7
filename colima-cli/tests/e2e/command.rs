//! Programs run with a deadline: what hangs fails its case and not the whole run.

use std::{
    ffi::OsStr,
    fmt,
    io::{Read, Write},
    process::{Command, ExitStatus, Stdio},
    sync::mpsc::{Receiver, Sender, channel},
    thread,
    time::{Duration, Instant},
};

use rustix::process::Signal;

use super::process::Process;

/// For what takes seconds on a quiet host and has to pass on a busy one.
pub(crate) const PATIENCE: Duration = Duration::from_secs(180);

/// A program to run.
pub(crate) struct Run {
    command: Command,
    line: String,
    stdin: Option<Vec<u8>>,
    limit: Duration,
}

/// A program that runs.
pub(crate) struct Running {
    line: String,
    process: Process,
    events: Receiver<Event>,
    stdout: Vec<u8>,
    stderr: Vec<u8>,
    open_streams: usize,
    status: Option<ExitStatus>,
}

/// How a program ended.
pub(crate) struct Finished {
    line: String,
    pub(crate) status: ExitStatus,
    pub(crate) stdout: Vec<u8>,
    pub(crate) stderr: Vec<u8>,
}

enum Event {
    Stdout(Vec<u8>),
    Stderr(Vec<u8>),
    StreamClosed,
    Exited(ExitStatus),
}

impl Run {
    pub(crate) fn new(program: impl AsRef<OsStr>) -> Self {
        Self {
            line: program.as_ref().to_string_lossy().into_owned(),
            command: Command::new(program),
            stdin: None,
            limit: PATIENCE,
        }
    }

    pub(crate) fn args<S: AsRef<OsStr>>(mut self, args: impl IntoIterator<Item = S>) -> Self {
        for arg in args {
            self.line.push(' ');
            self.line.push_str(&arg.as_ref().to_string_lossy());
            self.command.arg(arg);
        }
        self
    }

    pub(crate) fn env(mut self, name: &str, value: impl AsRef<OsStr>) -> Self {
        self.command.env(name, value);
        self
    }

    pub(crate) fn directory(mut self, directory: impl AsRef<std::path::Path>) -> Self {
        self.command.current_dir(directory);
        self
    }

    pub(crate) fn without_all_env(mut self) -> Self {
        self.command.env_clear();
        self
    }

    pub(crate) fn without_env(mut self, name: &str) -> Self {
        self.command.env_remove(name);
        self
    }

    /// Standard input: these bytes and then its end. Without this call it is empty.
    pub(crate) fn stdin(mut self, bytes: impl Into<Vec<u8>>) -> Self {
        self.stdin = Some(bytes.into());
        self
    }

    pub(crate) fn limit(mut self, limit: Duration) -> Self {
        self.limit = limit;
        self
    }

    pub(crate) fn spawn(mut self) -> Running {
        self.command
            .stdin(if self.stdin.is_some() {
                Stdio::piped()
            } else {
                Stdio::null()
            })
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = self
            .command
            .spawn()
            .unwrap_or_else(|error| panic!("cannot run `{}`: {error}", self.line));
        let process = Process::open(child.id()).expect("a child that nobody has waited for");
        let (sender, events) = channel();
        if let (Some(mut pipe), Some(bytes)) = (child.stdin.take(), self.stdin) {
            // A program may end without having read everything.
            thread::spawn(move || drop(pipe.write_all(&bytes)));
        }
        pass_on(child.stdout.take().expect("piped"), &sender, Event::Stdout);
        pass_on(child.stderr.take().expect("piped"), &sender, Event::Stderr);
        thread::spawn(move || {
            let status = child.wait().expect("a child of ours");
            drop(sender.send(Event::Exited(status)));
        });
        Running {
            line: self.line,
            process,
            events,
            stdout: Vec::new(),
            stderr: Vec::new(),
            open_streams: 2,
            status: None,
        }
    }

    /// Runs it to its end, however it ends.
    pub(crate) fn finish(self) -> Finished {
        let limit = self.limit;
        self.spawn().finish(limit)
    }

    /// Runs it to its end, which has to be a success.
    pub(crate) fn ok(self) -> Finished {
        self.exits(0)
    }

    /// Runs it to its end, which has to have this exit code.
    pub(crate) fn exits(self, code: i32) -> Finished {
        let finished = self.finish();
        assert_eq!(
            finished.status.code(),
            Some(code),
            "not exit code {code}:\n{finished}"
        );
        finished
    }
}

impl Running {
    pub(crate) fn process(&self) -> &Process {
        &self.process
    }

    /// Waits until standard output contains `text`.
    pub(crate) fn wait_for_stdout(&mut self, text: &str) {
        self.wait_for(text, |running| &running.stdout);
    }

    /// Waits until standard error contains `text`.
    pub(crate) fn wait_for_stderr(&mut self, text: &str) {
        self.wait_for(text, |running| &running.stderr);
    }

    fn wait_for(&mut self, text: &str, stream: fn(&Self) -> &Vec<u8>) {
        let deadline = Instant::now() + 2 * PATIENCE;
        while !contains(stream(self), text.as_bytes()) {
            let ended = self.status.is_some() && self.open_streams == 0;
            assert!(
                !ended && self.take_event(deadline),
                "`{}` did not print {text:?}\n{}",
                self.line,
                self.said()
            );
        }
    }

    /// Waits for its end; what is still running after `limit` is killed and fails the case.
    pub(crate) fn finish(mut self, limit: Duration) -> Finished {
        let deadline = Instant::now() + limit;
        while self.status.is_none() || self.open_streams > 0 {
            if !self.take_event(deadline) {
                let state = match self.status {
                    Some(status) => format!("has ended ({status}), but its output is held open"),
                    None => "still runs".to_owned(),
                };
                self.process.signal(Signal::KILL);
                panic!("`{}` {state} after {limit:?}\n{}", self.line, self.said());
            }
        }
        Finished {
            line: self.line,
            status: self.status.expect("the loop ends with it"),
            stdout: self.stdout,
            stderr: self.stderr,
        }
    }

    fn take_event(&mut self, deadline: Instant) -> bool {
        let left = deadline.saturating_duration_since(Instant::now());
        match self.events.recv_timeout(left) {
            Ok(Event::Stdout(bytes)) => self.stdout.extend(bytes),
            Ok(Event::Stderr(bytes)) => self.stderr.extend(bytes),
            Ok(Event::StreamClosed) => self.open_streams -= 1,
            Ok(Event::Exited(status)) => self.status = Some(status),
            Err(_) => return false,
        }
        true
    }

    fn said(&self) -> String {
        said(&self.stdout, &self.stderr)
    }
}

impl Finished {
    /// Standard output as text without the last newline.
    pub(crate) fn text(&self) -> &str {
        text(&self.stdout).trim_end_matches(['\n', '\r'])
    }

    /// Standard error as text.
    pub(crate) fn complaint(&self) -> &str {
        text(&self.stderr)
    }

    /// Standard output as JSON.
    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.stdout)
            .unwrap_or_else(|error| panic!("not JSON: {error}\n{self}"))
    }
}

impl fmt::Display for Finished {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (line, status) = (&self.line, self.status);
        write!(
            f,
            "`{line}`: {status}\n{}",
            said(&self.stdout, &self.stderr)
        )
    }
}

fn said(stdout: &[u8], stderr: &[u8]) -> String {
    let shown = |bytes: &[u8]| {
        let from = bytes.len().saturating_sub(4000);
        String::from_utf8_lossy(&bytes[from..]).into_owned()
    };
    format!("stdout: {}\nstderr: {}", shown(stdout), shown(stderr))
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).expect("programs of ours and docker's speak UTF-8")
}

fn contains(bytes: &[u8], needle: &[u8]) -> bool {
    bytes.windows(needle.len()).any(|window| window == needle)
}

fn pass_on(
    mut stream: impl Read + Send + 'static,
    events: &Sender<Event>,
    wrap: fn(Vec<u8>) -> Event,
) {
    let events = events.clone();
    thread::spawn(move || {
        let mut buffer = vec![0; 64 << 10];
        while let Ok(read @ 1..) = stream.read(&mut buffer) {
            drop(events.send(wrap(buffer[..read].to_vec())));
        }
        drop(events.send(Event::StreamClosed));
    });
}
