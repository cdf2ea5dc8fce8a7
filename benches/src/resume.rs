//! Stop and start of the product beside the raw floor, which is the same QEMU over copies of the same state and
//! disks, and beside our own cold start.
//!
//! Ours ends with docker's answer through the host's socket, the floor's with QMP's word that the guest runs. The
//! floor saves with QMP's own migration into a file and `fsync`.

use std::{
    ffi::OsString,
    fs,
    io::{Seek as _, SeekFrom},
    os::unix::ffi::OsStringExt as _,
    path::{Path, PathBuf},
    process::Stdio,
    time::{Duration, Instant},
};

use colima_vm::machine::qmp::{
    Client, Command as Qmp, Event, MigrationCapability, MigrationStatus,
};
use tokio::{net::UnixListener, process::Command, sync::broadcast, time::timeout};

use crate::{
    Result, blocking,
    host::Host,
    product::{Product, Setup, output},
    report::{Bar, Measure, Row},
    sample::Unit,
};

/// Longest time of anything below.
const PATIENCE: Duration = Duration::from_secs(600);

/// Where QEMU's part of a saved state begins.
const HEADER: u64 = 64 * 1024;

/// Starts an instance, measures, and deletes it.
///
/// # Errors
///
/// When the instance does not start, or the floor does not.
pub async fn run(setup: &Setup) -> Result<Row> {
    let product = setup.product()?;
    let host = Host::here();
    product.start().await?;
    let accelerator = product.accelerator()?;
    let measured = measure(setup, &product).await;
    let deleted = product.delete().await;
    let (resume, save) = measured?;
    deleted?;
    let above = resume.median(0) - resume.median(1);
    let bars = vec![
        Bar::at_most("resume: at most 1.5 s over the floor", 1.5, above),
        Bar::at_least(
            "resume: at least 8 times as fast as the cold start",
            8.0,
            resume.median(2) / resume.median(0),
        ),
        Bar::at_most(
            "save: at most 2 s over the floor",
            2.0,
            save.median(0) - save.median(1),
        ),
    ];
    Ok(Row {
        name: "resume".to_owned(),
        about: "`colima start` of a suspended instance until `docker ps` has answered through the host's socket; \
                the same QEMU over copies of the same state and disks until QMP says that the guest runs; \
                `colima start` of an instance that was powered off. `colima stop`; the same migration by QMP \
                alone, with fsync."
            .to_owned(),
        command: format!("compare --rounds {} resume", setup.rounds),
        host: host.with_guest(accelerator),
        measures: vec![resume, save],
        bars,
    })
}

async fn measure(setup: &Setup, product: &Product) -> Result<(Measure, Measure)> {
    let peers = ["ours", "raw QEMU", "cold start"];
    let mut resume = Measure::new("start until it answers", Unit::Seconds, peers);
    let mut save = Measure::new("stop", Unit::Seconds, ["ours", "raw QEMU"]);
    for _ in 0..setup.rounds {
        let arguments = qemu_arguments(product)?;
        let stopped = timed(product, ["stop"]).await?;
        // Copies: what the floor's guest writes is not ours.
        let floor = Floor::prepare(product, &setup.work.join("resume"), arguments)?;
        let (raw, saved) = floor.measure().await?;
        let resumed = until_docker_answers(product).await?;
        product.run(["stop", "--shutdown"]).await?;
        let cold = until_docker_answers(product).await?;
        for (sample, value) in resume.samples.iter_mut().zip([resumed, raw, cold]) {
            sample.values.push(value.as_secs_f64());
        }
        for (sample, value) in save.samples.iter_mut().zip([stopped, saved]) {
            sample.values.push(value.as_secs_f64());
        }
        (setup.progress)(&format!(
            "resume {resumed:.1?}, raw {raw:.1?}, cold {cold:.1?}; save {stopped:.1?}, raw {saved:.1?}"
        ));
    }
    Ok((resume, save))
}

async fn timed<const N: usize>(product: &Product, arguments: [&str; N]) -> Result<Duration> {
    let begin = Instant::now();
    product.run(arguments).await?;
    Ok(begin.elapsed())
}

async fn until_docker_answers(product: &Product) -> Result<Duration> {
    let begin = Instant::now();
    product.run(["start", "--mount", "none"]).await?;
    let socket = format!("unix://{}", product.docker_socket().display());
    let mut docker = Command::new("docker");
    product.isolate(docker.args(["--host", &socket, "ps"]));
    output(&mut docker).await?;
    Ok(begin.elapsed())
}

/// The command line of the instance's QEMU.
fn qemu_arguments(product: &Product) -> Result<Vec<String>> {
    let record = fs::read(machine(product).join("machine.json"))?;
    let record: serde_json::Value = serde_json::from_slice(&record)?;
    let pid = &record["process"]["pid"];
    let words = fs::read(format!("/proc/{pid}/cmdline"))?;
    words
        .split(|byte| *byte == 0)
        .filter(|word| !word.is_empty())
        .map(|word| {
            Ok(OsString::from_vec(word.to_vec())
                .into_string()
                .map_err(|_| "a word of QEMU's is no text")?)
        })
        .collect()
}

fn machine(product: &Product) -> PathBuf {
    product.home().join("default/machine")
}

/// QEMU without us: the same devices, its own sockets, over copies.
struct Floor {
    arguments: Vec<String>,
    control: UnixListener,
    state: PathBuf,
}

impl Floor {
    fn prepare(product: &Product, work: &Path, arguments: Vec<String>) -> Result<Self> {
        let _ = fs::remove_dir_all(work);
        fs::create_dir_all(work)?;
        let home = product.home();
        let mut words = arguments;
        for (name, original) in [
            ("root.qcow2", home.join("default/root.qcow2")),
            ("data.qcow2", home.join("_disks/colima/data.qcow2")),
        ] {
            let copy = work.join(name);
            fs::copy(&original, &copy)?;
            let (original, copy) = (original.to_string_lossy(), copy.to_string_lossy());
            for word in &mut words {
                *word = word.replace(&*original, &copy);
            }
        }
        let state = work.join("state");
        fs::copy(machine(product).join("state.saved"), &state)?;
        let control = UnixListener::bind(work.join("qmp.sock"))?;
        let mut floor = vec![];
        for word in words {
            // Nobody hands sockets over.
            match word.split_once(",fd=") {
                _ if word == "-incoming" || word == "defer" => {}
                Some((socket @ "socket,id=qmp", _)) => {
                    let path = work.join("qmp.sock");
                    floor.push(format!("{socket},path={}", path.display()));
                }
                Some((socket, _)) => {
                    let id = socket.trim_start_matches("socket,id=");
                    let path = work.join(format!("{id}.sock"));
                    floor.push(format!(
                        "{socket},path={},server=on,wait=off",
                        path.display()
                    ));
                }
                None => floor.push(word),
            }
        }
        floor.extend(["-incoming", "defer"].map(str::to_owned));
        Ok(Self {
            arguments: floor,
            control,
            state,
        })
    }

    /// How long it takes until the guest runs, and from a running guest to a file that is on the disk.
    async fn measure(&self) -> Result<(Duration, Duration)> {
        let begin = Instant::now();
        let _qemu = Command::new(&self.arguments[0])
            .args(&self.arguments[1..])
            .env_clear()
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .kill_on_drop(true)
            .spawn()?;
        let (control, _) = timeout(PATIENCE, self.control.accept()).await??;
        let (qmp, _) = Client::negotiate(control, PATIENCE).await?;
        let mut events = qmp.events();
        let capabilities = &[MigrationCapability::Events];
        let events_on = Qmp::MigrateSetCapabilities { capabilities };
        let (name, done) = (
            "state",
            Event::Migration {
                status: MigrationStatus::Completed,
            },
        );
        qmp.execute(&events_on, PATIENCE).await?;
        let mut state = fs::File::open(&self.state)?;
        state.seek(SeekFrom::Start(HEADER))?;
        qmp.execute_with(&Qmp::GetFd { name }, state.into(), PATIENCE)
            .await?;
        qmp.execute(&Qmp::MigrateIncoming { fd: name }, PATIENCE)
            .await?;
        until(&mut events, &done).await?;
        qmp.execute(&Qmp::Cont, PATIENCE).await?;
        until(&mut events, &Event::Resume).await?;
        let running = begin.elapsed();

        let begin = Instant::now();
        let file = fs::File::create(&self.state)?;
        qmp.execute(&Qmp::Stop, PATIENCE).await?;
        let max_bandwidth = 1 << 40;
        qmp.execute(&Qmp::MigrateSetParameters { max_bandwidth }, PATIENCE)
            .await?;
        qmp.execute_with(&Qmp::GetFd { name }, file.try_clone()?.into(), PATIENCE)
            .await?;
        qmp.execute(&Qmp::Migrate { fd: name }, PATIENCE).await?;
        until(&mut events, &done).await?;
        blocking(move || file.sync_all()).await?;
        Ok((running, begin.elapsed()))
    }
}

async fn until(events: &mut broadcast::Receiver<Event>, awaited: &Event) -> Result<()> {
    let seen = async {
        while events.recv().await? != *awaited {}
        Result::Ok(())
    };
    timeout(PATIENCE, seen).await?
}
