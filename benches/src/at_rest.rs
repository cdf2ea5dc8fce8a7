//! What it costs to ask, and to do nothing: `status` and `list` beside the cheapest program there is and
//! beside docker's own question, and the memory of the daemon.

use std::{fs, path::Path, process::Stdio, time::Instant};

use tokio::process::Command;

use crate::{
    Result, blocking,
    host::Host,
    peer,
    product::{Product, Setup},
    report::{Bar, Measure, Row},
    sample::Unit,
};

const PEERS: [&str; 4] = [
    "/bin/true",
    "docker version",
    "colima status",
    "colima list",
];
const TURNS: u32 = 30;
const CONNECTIONS: u32 = 100;

/// Starts an instance, measures, and deletes it.
///
/// # Errors
///
/// When the instance does not start, or a command fails.
pub async fn run(setup: &Setup) -> Result<Row> {
    let product = setup.product()?;
    let host = Host::here();
    product.start().await?;
    let accelerator = product.accelerator()?;
    let measured = measure(&product).await;
    let deleted = product.delete().await;
    let (commands, memory) = measured?;
    deleted?;
    let bars = vec![Bar::at_most(
        "the daemon's resident memory is under 20 MB",
        20.0,
        memory.median(0),
    )];
    Ok(Row {
        name: "at-rest".to_owned(),
        about:
            "With one running instance: whole commands from start to exit, and the daemon's VmRSS \
                after 100 connections."
                .to_owned(),
        command: "compare at-rest".to_owned(),
        host: host.with_guest(accelerator),
        measures: vec![commands, memory],
        bars,
    })
}

async fn measure(product: &Product) -> Result<(Measure, Measure)> {
    let mut commands = Measure::new("a command", Unit::Milliseconds, PEERS);
    let docker_host = format!("unix://{}", product.docker_socket().display());
    for _ in 0..TURNS {
        let colima = |verb| {
            let mut command = Command::new(product.program());
            command.arg(verb);
            command
        };
        let mut docker = Command::new("docker");
        docker.args(["--host", &docker_host, "version"]);
        let turn = [
            Command::new("/bin/true"),
            docker,
            colima("status"),
            colima("list"),
        ];
        for (sample, mut command) in commands.samples.iter_mut().zip(turn) {
            product.isolate(&mut command);
            sample.values.push(time(&mut command).await?);
        }
    }
    let socket = product.docker_socket();
    for _ in 0..CONNECTIONS {
        let socket = socket.clone();
        blocking(move || peer::ping(&socket)).await?;
    }
    let mut memory = Measure::new("resident memory", Unit::Megabytes, ["the daemon"]);
    let resident = resident_bytes(daemon(product)?)?;
    memory.samples[0]
        .values
        .push(Unit::Megabytes.of(std::time::Duration::ZERO, resident));
    Ok((commands, memory))
}

async fn time(command: &mut Command) -> Result<f64> {
    command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    let begin = Instant::now();
    let status = command.status().await?;
    let elapsed = begin.elapsed();
    if !status.success() {
        return Err(format!("{:?}: {status}", command.as_std().get_program()).into());
    }
    Ok(Unit::Milliseconds.of(elapsed, 0))
}

/// The process that runs our `colima` as the daemon of our home.
fn daemon(product: &Product) -> Result<u32> {
    let home = format!("COLIMA_HOME={}", product.home().display());
    for entry in fs::read_dir("/proc")? {
        let directory = entry?.path();
        let name = directory.file_name().and_then(|name| name.to_str());
        let Some(pid) = name.and_then(|name| name.parse().ok()) else {
            continue;
        };
        // A process may end while it is looked at, or be somebody else's.
        let words = |file| fs::read(directory.join(file)).unwrap_or_default();
        let has = |text: &[u8], word: &str| {
            text.split(|byte| *byte == 0)
                .any(|part| part == word.as_bytes())
        };
        let ours = fs::read_link(directory.join("exe")).is_ok_and(|exe| exe == product.program());
        if ours && has(&words("cmdline"), "daemon") && has(&words("environ"), &home) {
            return Ok(pid);
        }
    }
    Err("the daemon was not found".into())
}

/// `VmRSS` of proc_pid_status(5).
fn resident_bytes(pid: u32) -> Result<u64> {
    let status = fs::read_to_string(Path::new("/proc").join(pid.to_string()).join("status"))?;
    parse_resident(&status).ok_or_else(|| "the daemon has no VmRSS".into())
}

fn parse_resident(status: &str) -> Option<u64> {
    let value = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kib: u64 = value.trim().strip_suffix(" kB")?.parse().ok()?;
    Some(kib * 1024)
}

#[cfg(test)]
mod tests {
    #[test]
    fn resident_memory() {
        let status = "Name:\tcolima\nVmHWM:\t   9000 kB\nVmRSS:\t    8192 kB\n";
        assert_eq!(super::parse_resident(status), Some(8 << 20));
        assert_eq!(super::parse_resident("Name:\tkthreadd\n"), None);
    }
}
