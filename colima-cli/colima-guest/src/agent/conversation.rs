//! The agent's own protocol: one request, its replies, the end.

use std::{
    io,
    time::{Duration, SystemTime},
};

use colima_core::{
    Bytes,
    agent::{LONGEST_LINE, PROTOCOL_VERSION, Reply, Request, Space},
    boot::DATA_MOUNT,
};
use colima_net::Hangup;
use rustix::{
    fs::statvfs,
    system::RebootCommand,
    time::{ClockId, Timespec, clock_settime},
};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    process::Command,
    task::JoinSet,
    time::timeout,
};

use super::{Agent, command, log, mounts, readiness::Outcome};

/// A host that opens a conversation has its request ready.
const REQUEST_DEADLINE: Duration = Duration::from_secs(30);

/// Holds one conversation. Whatever the host sends or fails to send ends only this stream.
pub(super) async fn hold<S: Hangup>(stream: S, agent: &Agent) {
    let mut talk = BufReader::new(stream);
    let result = match timeout(REQUEST_DEADLINE, read_request(&mut talk)).await {
        Err(_) => say(&mut talk, &failed("no request came")).await,
        Ok(Err(Unreadable::Stream)) => return,
        Ok(Err(Unreadable::Request(what))) => say(&mut talk, &failed(&what)).await,
        Ok(Ok(request)) => answer(&mut talk, request, agent).await,
    };
    // The host knows best why its stream broke.
    if result.is_ok() {
        let _ = talk.get_mut().shutdown().await;
    }
}

/// Questions of one conversation about ports that are not answered yet.
const MOST_DRAINS: usize = 1024;

enum Unreadable {
    Stream,
    Request(String),
}

async fn read_request<S: Hangup>(talk: &mut BufReader<S>) -> Result<Request, Unreadable> {
    let mut line = Vec::new();
    let limit = LONGEST_LINE as u64;
    let read = talk.take(limit).read_until(b'\n', &mut line).await;
    match read {
        Err(_) | Ok(0) => Err(Unreadable::Stream),
        Ok(_) if line.last() != Some(&b'\n') => Err(Unreadable::Request(
            "the request does not end, or is too long".to_owned(),
        )),
        Ok(_) => serde_json::from_slice(&line)
            .map_err(|error| Unreadable::Request(format!("the request is not known: {error}"))),
    }
}

fn failed(reason: &str) -> Reply {
    Reply::Failed {
        reason: reason.to_owned(),
        detail: Vec::new(),
    }
}

async fn say<S: Hangup>(talk: &mut BufReader<S>, reply: &Reply) -> io::Result<()> {
    let mut line = serde_json::to_vec(reply)?;
    line.push(b'\n');
    talk.get_mut().write_all(&line).await?;
    talk.get_mut().flush().await
}

async fn answer<S: Hangup>(
    talk: &mut BufReader<S>,
    request: Request,
    agent: &Agent,
) -> io::Result<()> {
    match request {
        Request::Hello => say(talk, &hello()).await,
        Request::WaitReady => tell_readiness(talk, agent).await,
        Request::Run { argv, stdin_len } => run(talk, agent, &argv, stdin_len).await,
        Request::Sync => {
            let _ = tokio::task::spawn_blocking(rustix::fs::sync).await;
            say(talk, &Reply::Done).await
        }
        Request::SetClock { unix_nanos } => match set_clock(unix_nanos) {
            Ok(()) => say(talk, &Reply::Done).await,
            Err(error) => say(talk, &failed(&format!("the clock cannot be set: {error}"))).await,
        },
        Request::Vitals => say(talk, &vitals()).await,
        Request::PowerOff => {
            log("powering off at the host's request");
            say(talk, &Reply::Done).await?;
            talk.get_mut().shutdown().await?;
            power_off().await;
            Ok(())
        }
        Request::WatchPorts => tell_ports(talk, agent).await,
        Request::Mount { mount } => say(talk, &done(mounts::mount(mount).await)).await,
        Request::Unmount { port } => say(talk, &done(mounts::unmount(port).await)).await,
        Request::Mounts => {
            let states = mounts::states().await;
            let reply = states.map_or_else(|why| failed(&why), |mounts| Reply::Mounts { mounts });
            say(talk, &reply).await
        }
        other => {
            say(
                talk,
                &failed(&format!("this agent does not know {other:?}")),
            )
            .await
        }
    }
}

fn done(result: Result<(), String>) -> Reply {
    result.map_or_else(|why| failed(&why), |()| Reply::Done)
}

fn hello() -> Reply {
    let boot_id = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    Reply::Hello {
        protocol: PROTOCOL_VERSION,
        agent: env!("CARGO_PKG_VERSION").to_owned(),
        boot_id: boot_id.trim_end().to_owned(),
    }
}

async fn tell_readiness<S: Hangup>(talk: &mut BufReader<S>, agent: &Agent) -> io::Result<()> {
    let mut progress = agent.readiness.follow();
    let mut told = 0;
    let gone = talk.get_ref().hung_up();
    tokio::pin!(gone);
    loop {
        let (new, outcome) = {
            let progress = progress.borrow_and_update();
            (progress.stages[told..].to_vec(), progress.outcome.clone())
        };
        told += new.len();
        for stage in new {
            say(
                talk,
                &Reply::Stage {
                    name: stage.name,
                    uptime_ms: stage.uptime_ms,
                },
            )
            .await?;
        }
        match outcome {
            Some(Outcome::Ready { versions }) => {
                return say(talk, &Reply::Ready { versions }).await;
            }
            Some(Outcome::Failed { reason, detail }) => {
                return say(talk, &Reply::Failed { reason, detail }).await;
            }
            None => {}
        }
        tokio::select! {
            changed = progress.changed() => if changed.is_err() {
                return say(talk, &failed("the agent stopped waiting")).await;
            },
            () = &mut gone => return Err(io::ErrorKind::ConnectionAborted.into()),
        }
    }
}

/// Goes on until the host ends the stream.
async fn tell_ports<S: Hangup>(talk: &mut BufReader<S>, agent: &Agent) -> io::Result<()> {
    let mut ports = match agent.ports.follow().await {
        Ok(ports) => ports,
        Err(error) => {
            let reason = format!("ports cannot be watched: {error}");
            return say(talk, &failed(&reason)).await;
        }
    };
    say(talk, &ports.all()).await?;
    let mut drained = JoinSet::new();
    let mut line = Vec::new();
    loop {
        let mut answer = None;
        let mut limited = talk.take(LONGEST_LINE as u64);
        tokio::select! {
            changed = ports.changed() => changed?,
            Some(done) = drained.join_next() => answer = done.ok(),
            // Kept in `line` when something else comes first.
            read = limited.read_until(b'\n', &mut line) => {
                read?;
                if line.last() != Some(&b'\n') {
                    return Ok(());
                }
                match serde_json::from_slice(&line) {
                    Ok(Request::DrainPorts { token, container }) if drained.len() < MOST_DRAINS => {
                        let looked = ports.drain(container);
                        drained.spawn(async move { (token, looked.await) });
                    }
                    other => {
                        let reason = format!("{other:?} has no place here");
                        return say(talk, &failed(&reason)).await;
                    }
                }
                line.clear();
            }
        }
        for news in ports.news() {
            say(talk, &news).await?;
        }
        if let Some((token, container)) = answer {
            say(talk, &Reply::PortsDrained { token, container }).await?;
        }
    }
}

async fn run<S: Hangup>(
    talk: &mut BufReader<S>,
    agent: &Agent,
    argv: &[String],
    stdin_len: u64,
) -> io::Result<()> {
    let Ok(_turn) = agent.commands.acquire().await else {
        return say(talk, &failed("the agent is ending")).await;
    };
    let gone = talk.get_ref().hung_up();
    let done = tokio::select! {
        done = command::run(argv, talk, stdin_len) => done,
        // Dropping the command kills it.
        () = gone => return Err(io::ErrorKind::ConnectionAborted.into()),
    };
    match done {
        Err(command::Unfinished::Stream(error)) => Err(error),
        Err(command::Unfinished::Command(reason)) => say(talk, &failed(&reason)).await,
        Ok(output) => {
            let exited = Reply::Exited {
                exit_code: output.exit_code,
                stdout_len: output.stdout.len() as u64,
                stderr_len: output.stderr.len() as u64,
            };
            say(talk, &exited).await?;
            talk.get_mut().write_all(&output.stdout).await?;
            talk.get_mut().write_all(&output.stderr).await
        }
    }
}

fn vitals() -> Reply {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    let data_disk = statvfs(DATA_MOUNT).ok().map(|disk| Space {
        size: Bytes::new(disk.f_blocks.saturating_mul(disk.f_frsize)),
        available: Bytes::new(disk.f_bavail.saturating_mul(disk.f_frsize)),
    });
    Reply::Vitals {
        unix_nanos: u64::try_from(now.unwrap_or_default().as_nanos()).unwrap_or(u64::MAX),
        data_disk,
    }
}

fn set_clock(unix_nanos: u64) -> io::Result<()> {
    let wanted = Duration::from_nanos(unix_nanos);
    let tv_sec = i64::try_from(wanted.as_secs())
        .map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
    let time = Timespec {
        tv_sec,
        tv_nsec: i64::from(wanted.subsec_nanos()),
    };
    Ok(clock_settime(ClockId::Realtime, time)?)
}

/// Asks systemd; where that fails, flushes and does it.
async fn power_off() {
    let asked = Command::new("systemctl")
        .args(["poweroff", "--no-block"])
        .status()
        .await;
    if asked.is_ok_and(|status| status.success()) {
        return;
    }
    log("systemctl failed: powering off without it");
    let _ = tokio::task::spawn_blocking(|| {
        rustix::fs::sync();
        rustix::system::reboot(RebootCommand::PowerOff)
    })
    .await;
}
