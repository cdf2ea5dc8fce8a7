//! Commands: an argument vector through a login shell, its output, its end.
//!
//! An ssh server knows no argument vectors. What it gets is one line for the user's login shell, which
//! starts `/bin/sh` with a script of ours and the words as its arguments: quoted once, evaluated never. The
//! script tells its process id and becomes the command. That id is the command's process group too,
//! because sshd gives what it starts without a terminal a session of its own (setsid() in do_exec_no_pty),
//! and it is what a command that was given up is killed by: the end of a channel ends no process, and
//! libssh2 cannot send the protocol's own signal on a channel that runs a command.

use std::{
    io,
    os::{fd::AsFd as _, unix::net::UnixStream},
    time::{Duration, Instant},
};

use colima_core::Output;
use rustix::event::PollFlags;
use tokio::sync::oneshot;

use super::{
    LARGEST_OUTPUT, SshError,
    libssh2::{self, Channel, Session},
    session::{After, FAREWELL},
    target::Target,
    wire::{Want, Wire, broken, moved, would_block},
};

/// The longest line for the login shell: it must fit one packet of libssh2 (MAX_SSH_PACKET_LEN, 40,000).
const LONGEST_LINE: usize = 32 * 1024;

/// Says `-` when there is no such program, its process id otherwise, each behind a byte that no login
/// script prints by accident.
const SCRIPT: &str = r#"command -v "$1" >/dev/null 2>&1 || { printf '\036-\n'; exit 127; }; printf '\036%s\n' "$$"; exec "$@""#;

/// ASCII's record separator.
const MARK: u8 = 0o36;

/// What goes before the mark at most: what login scripts print.
const MOST_CHATTER: usize = 64 * 1024;

/// A command that a session is asked to run.
pub(super) struct Run {
    pub(super) line: String,
    pub(super) program: String,
    pub(super) stdin: Vec<u8>,
    /// Its other end is closed when nobody wants the command any more.
    pub(super) wanted: UnixStream,
    pub(super) ended: oneshot::Sender<Result<Output, SshError>>,
}

/// The line for the login shell that runs a command.
pub(super) fn line(argv: &[String]) -> Result<String, SshError> {
    words(&format!("exec /bin/sh -c {} sh", quoted(SCRIPT)), argv)
}

/// The line for the login shell that becomes a command, and says nothing of its own.
pub(super) fn stream_line(argv: &[String]) -> Result<String, SshError> {
    words("exec", argv)
}

fn words(start: &str, argv: &[String]) -> Result<String, SshError> {
    let refuse = |reason| Err(SshError::Command { reason });
    if argv.is_empty() {
        return refuse("it has no words");
    }
    let mut line = start.to_owned();
    for word in argv {
        if word.contains('\0') {
            return refuse("a word has a zero byte");
        }
        line.push(' ');
        line.push_str(&quoted(word));
        if line.len() > LONGEST_LINE {
            return refuse("it is longer than 32 KiB");
        }
    }
    Ok(line)
}

/// One word for a POSIX shell: within single quotes nothing has a meaning but their end.
fn quoted(word: &str) -> String {
    format!("'{}'", word.replace('\'', r"'\''"))
}

/// Runs the command to its end, or until nobody wants it.
pub(super) fn perform(wire: &mut Wire, run: Run, open_timeout: Duration) -> After {
    let opened = wire.waiting(open_timeout, |session| {
        exec(session, &run.line, open_timeout)
    });
    let channel = match opened {
        Ok(channel) => channel,
        Err(error) => {
            let refused = matches!(error, SshError::Refused { .. });
            let _ = run.ended.send(Err(error));
            return if refused {
                After::Reusable
            } else {
                After::Spent
            };
        }
    };
    let mut running = Running {
        channel,
        stdin: run.stdin,
        sent: 0,
        told_end: false,
        stdout: Vec::new(),
        stderr: Vec::new(),
        identity: Identity::Unknown,
    };
    let (after, result) = match running.follow(wire, &run.wanted) {
        Ok(Stop::Ended) => {
            let result = running.conclude(run.program);
            (close(wire, running.channel), Some(result))
        }
        Ok(Stop::Unwanted) => (running.kill(wire), None),
        Err(error @ (SshError::Session { .. } | SshError::PeerSilent { .. })) => {
            wire.cut();
            (After::Spent, Some(Err(error)))
        }
        Err(error) => (running.kill(wire), Some(Err(error))),
    };
    if let Some(result) = result {
        // Nobody may be waiting any more.
        let _ = run.ended.send(result);
    }
    after
}

fn exec(session: &Session, line: &str, timeout: Duration) -> Result<Channel, SshError> {
    let failed = |error: libssh2::Error| Target::Command(String::new()).failed(&error, timeout);
    let mut channel = session.channel_session().map_err(failed)?;
    channel.exec(line).map_err(failed)?;
    Ok(channel)
}

fn close(wire: &mut Wire, channel: Channel) -> After {
    match wire.close(channel, Instant::now() + FAREWELL) {
        Ok(()) => After::Reusable,
        Err(_) => After::Spent,
    }
}

/// Why a command is followed no longer.
enum Stop {
    Ended,
    Unwanted,
}

/// What the script has told.
enum Identity {
    Unknown,
    NoProgram,
    /// A decimal number.
    Process(String),
}

struct Running {
    channel: Channel,
    stdin: Vec<u8>,
    sent: usize,
    told_end: bool,
    stdout: Vec<u8>,
    stderr: Vec<u8>,
    identity: Identity,
}

impl Running {
    fn follow(&mut self, wire: &mut Wire, wanted: &UnixStream) -> Result<Stop, SshError> {
        let mut space = vec![0; 64 * 1024];
        // As for streams: a second look where libssh2 holds bytes that a later call took in.
        let mut looked = false;
        let mut unwanted = None;
        loop {
            let mut any = self.feed(wire)?;
            wire.ping()?;
            any |= self.drain(wire, &mut space)?;
            any |= self.feed(wire)?;
            if self.channel.eof() && wire.has_room() {
                match self.channel.wait_close() {
                    Ok(()) => return Ok(Stop::Ended),
                    Err(error) if would_block(&error) => {}
                    Err(error) => return Err(broken(&error)),
                }
            } else if !any && !looked && self.channel.read_window().available > 0 {
                looked = true;
                continue;
            }
            if any {
                looked = false;
                continue;
            }
            // A command whose process is not known yet cannot be killed; it tells in a moment.
            let deadline = unwanted.map(|since| since + FAREWELL);
            if deadline.is_some_and(|deadline| {
                !matches!(self.identity, Identity::Unknown) || deadline <= Instant::now()
            }) {
                return Ok(Stop::Unwanted);
            }
            // Nothing is ever sent there; only its end can be seen.
            let other = (wanted.as_fd(), PollFlags::empty());
            let watched = unwanted.is_none().then_some(other);
            if !wire.wait(Want::Bytes, watched, deadline)?.other.is_empty() {
                unwanted = Some(Instant::now());
            }
            looked = false;
        }
    }

    /// Gives the command its standard input, and then its end.
    fn feed(&mut self, wire: &mut Wire) -> Result<bool, SshError> {
        // A command that ended without reading is not fed: its channel may be gone.
        if self.told_end || self.channel.eof() || !wire.has_room() {
            return Ok(false);
        }
        if self.sent < self.stdin.len() {
            let wrote = moved(io::Write::write(
                &mut self.channel,
                &self.stdin[self.sent..],
            ))?;
            self.sent += wrote.unwrap_or(0);
            return Ok(wrote.is_some_and(|n| n > 0));
        }
        match self.channel.send_eof() {
            Ok(()) => {
                self.told_end = true;
                Ok(true)
            }
            Err(error) if would_block(&error) => Ok(false),
            Err(error) => Err(broken(&error)),
        }
    }

    /// Takes what the command printed.
    fn drain(&mut self, wire: &mut Wire, space: &mut [u8]) -> Result<bool, SshError> {
        let mut any = false;
        for stream in [STDOUT, STDERR] {
            if !wire.has_room() {
                break;
            }
            let read = moved(io::Read::read(&mut self.channel.stream(stream), space))?;
            let bytes = &space[..read.unwrap_or(0)];
            any |= !bytes.is_empty();
            let printed = match stream {
                STDOUT => &mut self.stdout,
                _ => &mut self.stderr,
            };
            printed.extend(bytes);
            if printed.len() > LARGEST_OUTPUT {
                let limit = LARGEST_OUTPUT;
                return Err(SshError::TooMuchOutput { limit });
            }
        }
        if matches!(self.identity, Identity::Unknown) {
            self.identify()?;
        }
        Ok(any)
    }

    fn identify(&mut self) -> Result<(), SshError> {
        let Some(mark) = self.stdout.iter().position(|&byte| byte == MARK) else {
            return match self.stdout.len() {
                0..=MOST_CHATTER => Ok(()),
                _ => Err(self.not_started()),
            };
        };
        let behind = &self.stdout[mark + 1..];
        let Some(length) = behind.iter().position(|&byte| byte == b'\n') else {
            return match behind.len() {
                0..=20 => Ok(()),
                _ => Err(self.not_started()),
            };
        };
        let identity = match &behind[..length] {
            b"-" => Identity::NoProgram,
            id if !id.is_empty() && id.iter().all(u8::is_ascii_digit) => {
                Identity::Process(String::from_utf8_lossy(id).into_owned())
            }
            _ => return Err(self.not_started()),
        };
        self.identity = identity;
        self.stdout.drain(..mark + length + 2);
        Ok(())
    }

    fn not_started(&self) -> SshError {
        let bytes = [&self.stdout[..], &self.stderr[..]].concat();
        let said = String::from_utf8_lossy(&bytes);
        SshError::NotStarted {
            said: said.trim().chars().take(200).collect(),
        }
    }

    fn conclude(&mut self, program: String) -> Result<Output, SshError> {
        match self.identity {
            Identity::Unknown => return Err(self.not_started()),
            Identity::NoProgram => return Err(SshError::NoSuchProgram { program }),
            Identity::Process(_) => {}
        }
        let signal = self.channel.exit_signal().map_err(|error| broken(&error))?;
        let exit_code = match signal.exit_signal {
            Some(name) => 128 + signal_number(&name),
            None => self.channel.exit_status().map_err(|error| broken(&error))?,
        };
        Ok(Output {
            exit_code,
            stdout: std::mem::take(&mut self.stdout),
            stderr: std::mem::take(&mut self.stderr),
        })
    }

    /// Ends a command that still runs, with all that it started in its process group.
    ///
    /// sshd does not confirm the close of a channel before the command has ended, so the one that ends
    /// it needs a second channel, the only one there ever is. On the first nothing happens meanwhile.
    fn kill(self, wire: &mut Wire) -> After {
        if let Identity::Process(id) = self.identity {
            let killed = wire.waiting(FAREWELL, |session| {
                let mut channel = exec(session, &format!("kill -s KILL -- -{id}"), FAREWELL)?;
                channel.wait_eof().map_err(|error| broken(&error))?;
                Ok(channel)
            });
            let Ok(channel) = killed else {
                wire.cut();
                return After::Spent;
            };
            if close(wire, channel) == After::Spent {
                return After::Spent;
            }
        }
        close(wire, self.channel)
    }
}

/// libssh2's names of the streams (SSH_EXTENDED_DATA_STDERR is 1).
const STDOUT: i32 = 0;
const STDERR: i32 = 1;

/// Linux's numbers of the names of RFC 4254, 6.10; 0 for what has no name there.
fn signal_number(name: &str) -> i32 {
    match name {
        "HUP" => 1,
        "INT" => 2,
        "QUIT" => 3,
        "ILL" => 4,
        "ABRT" => 6,
        "FPE" => 8,
        "KILL" => 9,
        "USR1" => 10,
        "SEGV" => 11,
        "USR2" => 12,
        "PIPE" => 13,
        "ALRM" => 14,
        "TERM" => 15,
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_stay_words() {
        let hostile = [
            "printf",
            "%s\\n",
            "a b",
            "it's",
            "$(id)",
            "`id`",
            "\"",
            "",
            "-x",
            "new\nline",
            "\\",
            "*",
        ];
        let argv: Vec<String> = hostile.iter().map(ToString::to_string).collect();
        let line = line(&argv).unwrap();
        let output = std::process::Command::new("/bin/sh")
            .args(["-c", &line])
            .output()
            .unwrap();
        let stdout = String::from_utf8(output.stdout).unwrap();
        let (identity, printed) = stdout.split_once('\n').unwrap();
        assert!(identity.starts_with(char::from(MARK)), "{identity:?}");
        let expected: String = hostile[2..]
            .iter()
            .map(|word| format!("{word}\n"))
            .collect();
        assert_eq!(printed, expected);
    }

    #[test]
    fn what_is_no_command() {
        let words = |words: &[&str]| words.iter().map(ToString::to_string).collect::<Vec<_>>();
        assert!(line(&[]).is_err());
        assert!(line(&words(&["a\0b"])).is_err());
        assert!(line(&words(&["true", &"x".repeat(LONGEST_LINE)])).is_err());
        assert!(line(&words(&["true", &"x".repeat(30_000)])).is_ok());
    }
}
