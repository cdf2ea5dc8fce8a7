//! Runs one command for the host.

use std::{io, os::unix::process::ExitStatusExt as _, pin::pin, process::Stdio};

use colima_core::Output;
use rustix::process::{Pid, Signal, kill_process_group};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _},
    process::{Child, ChildStdin, Command},
};

/// Commands that run at the same time; more wait.
pub(super) const MOST_AT_ONCE: usize = 64;

/// Bytes of output per stream that are kept for the host; a command that prints more is killed.
const LARGEST_OUTPUT: usize = 64 << 20;

/// Why there is no output.
#[derive(Debug)]
pub(super) enum Unfinished {
    /// The host's stream broke.
    Stream(io::Error),
    /// The command could not be run, in one sentence.
    Command(String),
}

/// A process group that is killed unless it is let go.
struct Group(Option<Pid>);

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(group) = self.0 {
            // It may have ended by itself.
            let _ = kill_process_group(group, Signal::KILL);
        }
    }
}

/// Runs `argv` as root with `stdin_len` bytes from `input`, to its end.
///
/// Processes that it leaves in the background go on, as in a shell, and keep nobody waiting.
///
/// # Cancel safety
///
/// Dropping the future kills the command and everything in its process group.
pub(super) async fn run<R>(
    argv: &[String],
    input: &mut R,
    stdin_len: u64,
) -> Result<Output, Unfinished>
where
    R: AsyncRead + Unpin,
{
    let Some((program, args)) = argv.split_first() else {
        return Err(Unfinished::Command("the command is empty".to_owned()));
    };
    let cannot = |error: io::Error| Unfinished::Command(format!("cannot run {program}: {error}"));
    let mut child = Command::new(program)
        .args(args)
        .env(
            "PATH",
            "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        )
        .env("HOME", "/root")
        .env_remove("NOTIFY_SOCKET")
        .current_dir("/")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .kill_on_drop(true)
        .spawn()
        .map_err(cannot)?;
    let mut group = Group(child.id().and_then(|id| Pid::from_raw(id.cast_signed())));
    let output = collect(&mut child, input, stdin_len).await;
    match output {
        Ok(Some(output)) => {
            group.0 = None;
            Ok(output)
        }
        Ok(None) => Err(Unfinished::Command(format!(
            "{program} printed more than {} MiB and was killed",
            LARGEST_OUTPUT >> 20
        ))),
        Err(error) => Err(error),
    }
}

/// Feeds and drains the child until it exits; `None` when it prints too much.
async fn collect<R>(
    child: &mut Child,
    input: &mut R,
    stdin_len: u64,
) -> Result<Option<Output>, Unfinished>
where
    R: AsyncRead + Unpin,
{
    let (mut stdout, mut stderr) = (child.stdout.take(), child.stderr.take());
    let stdin = child.stdin.take();
    let mut output = Output::default();
    let (mut out, mut err) = (vec![0; 32 << 10], vec![0; 32 << 10]);
    let mut left = stdin_len;
    let status = {
        // Beside the reads, because a filter stops reading while nobody takes what it prints.
        let mut feeding = pin!(feed(input, stdin, &mut left));
        let mut fed = false;
        loop {
            tokio::select! {
                status = child.wait() => break status,
                read = read_from(&mut stdout, &mut out), if stdout.is_some() => {
                    if !keep(&mut output.stdout, &mut stdout, &out, &read) { return Ok(None) }
                }
                read = read_from(&mut stderr, &mut err), if stderr.is_some() => {
                    if !keep(&mut output.stderr, &mut stderr, &err, &read) { return Ok(None) }
                }
                result = &mut feeding, if !fed => {
                    result.map_err(Unfinished::Stream)?;
                    fed = true;
                }
            }
        }
    };
    // The host has announced the rest and is sending it.
    feed(input, None, &mut left)
        .await
        .map_err(Unfinished::Stream)?;
    let status =
        status.map_err(|error| Unfinished::Command(format!("the command was lost: {error}")))?;
    // What it printed is in the pipes. Waiting for their end would wait for its background processes.
    let whole = drain(&mut output.stdout, stdout.map(|pipe| pipe.into_owned_fd()))
        && drain(&mut output.stderr, stderr.map(|pipe| pipe.into_owned_fd()));
    output.exit_code = status
        .code()
        .or_else(|| status.signal().map(|signal| 128 + signal))
        .unwrap_or(-1);
    Ok(whole.then_some(output))
}

/// Copies `left` bytes of `input` into a command, or nowhere once it does not want them.
async fn feed<R>(input: &mut R, mut stdin: Option<ChildStdin>, left: &mut u64) -> io::Result<()>
where
    R: AsyncRead + Unpin,
{
    let mut buffer = vec![0; 32 << 10];
    while *left > 0 {
        let most = usize::try_from(*left).map_or(buffer.len(), |left| left.min(buffer.len()));
        let count = input.read(&mut buffer[..most]).await?;
        if count == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        *left -= count as u64;
        if let Some(pipe) = &mut stdin
            && pipe.write_all(&buffer[..count]).await.is_err()
        {
            stdin = None;
        }
    }
    Ok(())
}

async fn read_from<R>(pipe: &mut Option<R>, buffer: &mut [u8]) -> io::Result<usize>
where
    R: AsyncRead + Unpin,
{
    match pipe {
        Some(pipe) => pipe.read(buffer).await,
        None => std::future::pending().await,
    }
}

/// Keeps what was read; `false` when it is too much.
fn keep<R>(
    kept: &mut Vec<u8>,
    pipe: &mut Option<R>,
    buffer: &[u8],
    read: &io::Result<usize>,
) -> bool {
    match read {
        Ok(0) | Err(_) => *pipe = None,
        Ok(count) => kept.extend_from_slice(&buffer[..*count]),
    }
    kept.len() <= LARGEST_OUTPUT
}

/// Takes what a pipe holds without waiting; `false` when it is too much.
fn drain(kept: &mut Vec<u8>, pipe: Option<io::Result<std::os::fd::OwnedFd>>) -> bool {
    let Some(Ok(pipe)) = pipe else { return true };
    if rustix::io::ioctl_fionbio(&pipe, true).is_err() {
        return true;
    }
    let mut buffer = vec![0; 32 << 10];
    loop {
        match rustix::io::read(&pipe, &mut buffer[..]) {
            Err(rustix::io::Errno::INTR) => {}
            Ok(0) | Err(_) => return true,
            Ok(count) => kept.extend_from_slice(&buffer[..count]),
        }
        if kept.len() > LARGEST_OUTPUT {
            return false;
        }
    }
}
