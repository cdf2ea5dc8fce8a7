//! Runs the programs a build needs, each in a process group of its own.

use std::{
    collections::VecDeque,
    ffi::OsString,
    future::Future,
    io,
    os::unix::process::ExitStatusExt as _,
    path::PathBuf,
    pin::Pin,
    process::{ExitStatus, Stdio},
    time::Duration,
};

use rustix::process::{Pid, Signal, kill_process_group};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncRead, BufReader},
    process::Command,
    time::{Instant, sleep_until},
};

use super::super::Error;

/// Lines of a failed program that its error keeps.
const TAIL: usize = 20;

/// How long a program may clean up after itself before it is killed.
const GRACE: Duration = Duration::from_secs(10);

/// Where programs are searched unless the caller's environment has its own `PATH`.
const SEARCH_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// A program with its arguments: plain data.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Tool {
    pub(super) name: &'static str,
    /// Debian's package that brings it.
    pub(super) package: &'static str,
    pub(super) args: Vec<OsString>,
    pub(super) env: Vec<(&'static str, OsString)>,
    pub(super) directory: Option<PathBuf>,
}

impl Tool {
    pub(super) fn new(name: &'static str, package: &'static str) -> Self {
        Self {
            name,
            package,
            args: Vec::new(),
            env: Vec::new(),
            directory: None,
        }
    }

    pub(super) fn args<I, S>(mut self, args: I) -> Self
    where
        I: IntoIterator<Item = S>,
        S: Into<OsString>,
    {
        self.args.extend(args.into_iter().map(Into::into));
        self
    }

    pub(super) fn env(mut self, name: &'static str, value: impl Into<OsString>) -> Self {
        self.env.push((name, value.into()));
        self
    }

    pub(super) fn directory(mut self, path: impl Into<PathBuf>) -> Self {
        self.directory = Some(path.into());
        self
    }

    /// The command line as a person would read it.
    #[cfg(test)]
    pub(super) fn display(&self) -> String {
        let mut lines: Vec<String> = self
            .env
            .iter()
            .map(|(name, value)| format!("{name}={}", value.display()))
            .collect();
        lines.push(self.name.to_owned());
        lines.extend(self.args.iter().map(|arg| format!("  {}", arg.display())));
        lines.join("\n")
    }
}

/// The caller's wish to stop, asked again by every program that runs.
pub(super) struct Cancel<'a>(Pin<Box<dyn Future<Output = ()> + Send + 'a>>);

impl<'a> Cancel<'a> {
    pub(super) fn new(wish: impl Future<Output = ()> + Send + 'a) -> Self {
        Self(Box::pin(wish))
    }

    /// Runs `work` unless the wish comes first.
    pub(super) async fn unless<T>(
        &mut self,
        work: impl Future<Output = Result<T, Error>>,
    ) -> Result<T, Error> {
        tokio::select! {
            biased;
            () = &mut self.0 => Err(Error::Cancelled),
            result = work => result,
        }
    }
}

/// How a program ended, and what it printed.
#[derive(Debug)]
pub(super) struct Ended {
    pub(super) status: ExitStatus,
    pub(super) stdout: Vec<String>,
    pub(super) tail: Vec<String>,
}

/// Which stream a line came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stream {
    Stdout,
    Stderr,
}

/// Runs programs with the environment that the caller gave.
#[derive(Clone, Debug)]
pub(super) struct Toolbox {
    env: Vec<(OsString, OsString)>,
}

impl Toolbox {
    pub(super) fn new(env: &[(OsString, OsString)]) -> Self {
        Self { env: env.to_vec() }
    }

    /// Runs a program that has to succeed; its standard output by lines.
    pub(super) async fn run(
        &self,
        tool: &Tool,
        cancel: &mut Cancel<'_>,
    ) -> Result<Vec<String>, Error> {
        let ended = self.watch(tool, cancel, |_, _| {}).await?;
        ended.success(tool)
    }

    /// Runs a program to whatever end, showing each line as it is printed.
    ///
    /// When the caller's wish to stop comes, the whole process group gets `SIGTERM`, and `SIGKILL`
    /// when it is not gone after a grace. "Gone" is the end of its output, which every process of the
    /// group holds open. Dropping the future kills the group at once.
    pub(super) async fn watch(
        &self,
        tool: &Tool,
        cancel: &mut Cancel<'_>,
        mut each: impl FnMut(Stream, &str),
    ) -> Result<Ended, Error> {
        let mut command = Command::new(tool.name);
        command
            .args(&tool.args)
            .env_clear()
            .env("PATH", SEARCH_PATH)
            .envs(self.env.iter().map(|(name, value)| (name, value)))
            .env("LC_ALL", "C.UTF-8")
            .envs(tool.env.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0);
        if let Some(directory) = &tool.directory {
            command.current_dir(directory);
        }
        let mut child = command.spawn().map_err(|source| match source.kind() {
            io::ErrorKind::NotFound => Error::ToolMissing {
                tool: tool.name,
                package: tool.package,
            },
            _ => Error::File {
                action: "run",
                path: tool.name.into(),
                source,
            },
        })?;
        let mut group = Group::of(child.id());
        let (Some(stdout), Some(stderr)) = (child.stdout.take(), child.stderr.take()) else {
            unreachable!("both streams were asked for");
        };
        let (mut stdout, mut stderr) = (Lines::new(stdout), Lines::new(stderr));
        let (mut printed, mut tail) = (Vec::new(), VecDeque::new());
        let mut stop: Option<Stop> = None;
        while !(stdout.ended && stderr.ended) {
            let deadline = stop
                .as_ref()
                .map_or_else(Instant::now, |stop| stop.deadline);
            tokio::select! {
                line = stdout.next(), if !stdout.ended => if let Some(line) = line {
                    each(Stream::Stdout, &line);
                    printed.push(line);
                },
                line = stderr.next(), if !stderr.ended => if let Some(line) = line {
                    each(Stream::Stderr, &line);
                    if tail.len() == TAIL {
                        tail.pop_front();
                    }
                    tail.push_back(line);
                },
                () = &mut cancel.0, if stop.is_none() => {
                    group.signal(Signal::TERM);
                    stop = Some(Stop::new(Signal::TERM));
                }
                () = sleep_until(deadline), if stop.is_some() => {
                    if stop.is_some_and(|stop| stop.last == Signal::KILL) {
                        break;
                    }
                    group.signal(Signal::KILL);
                    stop = Some(Stop::new(Signal::KILL));
                }
            }
        }
        let status = child.wait().await.map_err(|source| Error::File {
            action: "wait for",
            path: tool.name.into(),
            source,
        })?;
        group.done();
        if stop.is_some() {
            return Err(Error::Cancelled);
        }
        Ok(Ended {
            status,
            stdout: printed,
            tail: tail.into(),
        })
    }
}

/// The last signal sent to a group that has to end, and until when it may take.
#[derive(Clone, Copy)]
struct Stop {
    last: Signal,
    deadline: Instant,
}

impl Stop {
    fn new(last: Signal) -> Self {
        Self {
            last,
            deadline: Instant::now() + GRACE,
        }
    }
}

impl Ended {
    /// The lines of standard output, or the error that tells how the program failed.
    pub(super) fn success(self, tool: &Tool) -> Result<Vec<String>, Error> {
        if self.status.success() {
            return Ok(self.stdout);
        }
        let status = match (self.status.code(), self.status.signal()) {
            (Some(code), _) => format!("exit status {code}"),
            (None, Some(signal)) => format!("signal {signal}"),
            (None, None) => self.status.to_string(),
        };
        Err(Error::Tool {
            tool: tool.name,
            status,
            tail: self.tail,
        })
    }
}

/// A process group that dies with this value unless it is `done`.
struct Group(Option<Pid>);

impl Group {
    fn of(id: Option<u32>) -> Self {
        Self(id.and_then(|id| Pid::from_raw(i32::try_from(id).ok()?)))
    }

    fn signal(&self, signal: Signal) {
        if let Some(pid) = self.0 {
            // An error means that nobody is left to get the signal.
            let _ = kill_process_group(pid, signal);
        }
    }

    const fn done(&mut self) {
        self.0 = None;
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        self.signal(Signal::KILL);
    }
}

/// Lines of a stream whose bytes need not be text.
struct Lines<R> {
    reader: BufReader<R>,
    line: Vec<u8>,
    ended: bool,
}

impl<R: AsyncRead + Unpin> Lines<R> {
    fn new(stream: R) -> Self {
        Self {
            reader: BufReader::new(stream),
            line: Vec::new(),
            ended: false,
        }
    }

    /// The next line, or `None` at the end. Cancel safe: what was read stays in `self`.
    async fn next(&mut self) -> Option<String> {
        match self.reader.read_until(b'\n', &mut self.line).await {
            Ok(n) if n > 0 || !self.line.is_empty() => {
                let line = String::from_utf8_lossy(&self.line).trim_end().to_owned();
                self.line.clear();
                Some(line)
            }
            _ => {
                self.ended = true;
                None
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future;

    use super::*;

    fn shell(script: &str) -> Tool {
        Tool::new("sh", "dash").args(["-c", script])
    }

    #[tokio::test]
    async fn output_status_and_environment() {
        let toolbox = Toolbox::new(&[("WHO".into(), "caller".into())]);
        let never = &mut Cancel::new(future::pending());
        let tool =
            shell("echo $WHO $WHAT; exec >&-; echo last words >&2; exit 3").env("WHAT", "tool");
        let ended = toolbox.watch(&tool, never, |_, _| {}).await.unwrap();
        assert_eq!(ended.stdout, ["caller tool"]);
        let error = ended.success(&tool).unwrap_err();
        assert_eq!(error.to_string(), "sh failed (exit status 3)\n  last words");
    }

    #[tokio::test]
    async fn cancelling_ends_the_whole_group() {
        let toolbox = Toolbox::new(&[]);
        let (send, wish) = tokio::sync::oneshot::channel::<()>();
        let cancel = &mut Cancel::new(async {
            let _ = wish.await;
        });
        // The inner process outlives its parent unless the group is signalled; its end is the end of
        // the output.
        let tool = shell("sleep 1000 & echo started; wait");
        let mut send = Some(send);
        let ended = toolbox
            .watch(&tool, cancel, |_, line| {
                assert_eq!(line, "started");
                drop(send.take());
            })
            .await;
        assert!(matches!(ended, Err(Error::Cancelled)));
    }
}
