//! From a suspended machine to an instance, or to the boot that takes its place.
//!
//! ```text
//!   no state ────────────────────────────────────────────────────────> start
//!   state ──drop it (--cold), or it cannot be loaded: dropped────────> start
//!   state ──load──> run on ──the same settings───────────────────────> instance
//!                      └────others, or restart: shut down in order───> start
//! ```
//!
//! A start can be given up until the guest runs on. From there each step has a deadline, and the instance is brought
//! to its end: the state is used up by then. Killed there, the next daemon finds the machine and the mark that its
//! clock is behind.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use colima_core::boot::BootConfig;
use colima_net::{agent::Agent, mux::Mux};
use colima_vm::machine::{self, Boot, Loaded, Machine, OnDrop, Qemu, SavedState, accelerator};
use tokio::time::timeout;

use super::{
    Instance, InstanceRecord, InstanceSpec, Watcher, failure, link, mounts::HostMounts,
    ports::HostPorts, provision, relays::Relays, start::wait_for_agent, supervision::DiskErrors,
};
use crate::{
    command_error::{CommandError, ErrorKind},
    control::{Stage, WhenSuspended},
    state_dir::{ProfilePaths, write_private},
};

/// How long the memory may take to be read.
const LOAD_LIMIT: Duration = Duration::from_secs(600);

/// Until the agent of a guest that goes on answers.
const ANSWER_LIMIT: Duration = Duration::from_secs(60);

/// How long setting the clock may take.
const CLOCK_LIMIT: Duration = Duration::from_secs(10);

/// How an instance came to run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BroughtUp {
    /// It booted.
    Booted,
    /// It goes on from where it was suspended.
    Resumed,
}

impl Instance {
    /// Resumes the instance where it is suspended, and starts it where it is not or `suspended` says so.
    ///
    /// # Errors
    ///
    /// As [`Instance::start`]; `Interrupted` when `given_up` resolved in time. A state that is not used up stays.
    ///
    /// # Cancel safety
    ///
    /// Not cancel safe: that is what `given_up` is for.
    pub async fn bring_up(
        paths: &ProfilePaths,
        spec: InstanceSpec,
        boot: BootConfig,
        suspended: WhenSuspended,
        watch: Watcher<'_>,
        given_up: impl Future<Output = ()> + Send,
    ) -> Result<(Self, BroughtUp), CommandError> {
        tokio::pin!(given_up);
        let interrupted = || {
            let what = "the start was interrupted";
            Err(CommandError::new(ErrorKind::Interrupted, what))
        };
        let loaded = tokio::select! {
            loaded = load(paths, &spec, suspended, watch) => loaded?,
            () = &mut given_up => return interrupted(),
        };
        if let Some((record, loaded)) = loaded
            && let Some(awake) = run_on(paths, record, loaded, watch).await?
        {
            let differing = awake.record.differing(&spec);
            if differing.is_empty() && suspended == WhenSuspended::Resume {
                let instance = awake.open(paths, watch)?;
                if !boot.provision.is_empty() {
                    begin(watch, "running the scripts");
                    // The machine goes on whatever becomes of them.
                    if let Err(error) = provision::finish(&instance.agent, watch).await {
                        note(watch, error.to_string());
                    }
                }
                return Ok((instance, BroughtUp::Resumed));
            }
            let why = match differing.is_empty() {
                true => "it boots anew".to_owned(),
                false => format!("a boot applies the new {}", differing.join(", ")),
            };
            note(watch, format!("{why}: first it is shut down in order"));
            begin(watch, "stopping the machine");
            let _ = super::stopped(&awake.machine, super::in_order(&awake.agent)).await?;
        }
        tokio::select! {
            started = Self::start(paths, spec, boot, watch) => Ok((started?, BroughtUp::Booted)),
            () = &mut given_up => interrupted(),
        }
    }
}

/// A guest that went on and answers, with its host directories and without sockets on the host.
///
/// **Drop**: it goes on, and what it asks of host directories waits.
struct Awake {
    record: InstanceRecord,
    machine: Arc<Machine>,
    agent: Agent<Mux>,
    mounts: HostMounts,
}

impl Awake {
    fn open(self, paths: &ProfilePaths, watch: Watcher<'_>) -> Result<Instance, CommandError> {
        let Self {
            record,
            machine,
            agent,
            mounts,
        } = self;
        begin(watch, "opening the sockets");
        let ports = HostPorts::open(&record.spec.ports, &agent, record.ssh_port);
        let relays = Relays::open(paths, &record, &agent, &ports)?;
        Ok(Instance {
            paths: paths.clone(),
            mounts,
            record,
            machine,
            agent,
            relays,
            ports,
            disk_errors: DiskErrors::default(),
        })
    }
}

/// Lets the guest run on and connects to it. `None` when it does not answer: it is ended then.
async fn run_on(
    paths: &ProfilePaths,
    record: InstanceRecord,
    loaded: Loaded,
    watch: Watcher<'_>,
) -> Result<Option<Awake>, CommandError> {
    begin(watch, "resuming the guest");
    let late = ClockIsLate::begin(paths)?;
    let machine = loaded
        .run()
        .await
        .map_err(|error| failure::machine(&error))?;
    machine.set_on_drop(OnDrop::Detach);
    let machine = Arc::new(machine);
    // What the guest waits for since it runs again.
    let mounts = HostMounts::open(&machine, paths, &record.spec, &record.user);
    let carrier = record.spec.link.carrier;
    let mux = link::open(&machine, paths, &record.user.name, carrier, record.ssh_port)?;
    let agent = Agent::new(mux);
    if let Err(error) = wait_for_agent(&machine, &agent, ANSWER_LIMIT).await {
        let text = format!("what was suspended does not answer, and boots instead: {error}");
        note(watch, text);
        let killed = machine.kill().await;
        let _ = killed.map_err(|error| failure::machine(&error))?;
        late.end();
        return Ok(None);
    }
    match set_clock(&agent).await {
        Ok(()) => late.end(),
        Err(why) => note(watch, format!("warning: the guest's clock is late: {why}")),
    }
    Ok(Some(Awake {
        record,
        machine,
        agent,
        mounts,
    }))
}

/// The suspended machine, loaded and not running; `None` where there is none, or none that is wanted or of use.
async fn load(
    paths: &ProfilePaths,
    spec: &InstanceSpec,
    suspended: WhenSuspended,
    watch: Watcher<'_>,
) -> Result<Option<(InstanceRecord, Loaded)>, CommandError> {
    let directory = &paths.machine_dir;
    let discard = |why: &str| {
        let dropped = SavedState::discard(directory).map_err(|error| failure::machine(&error))?;
        if dropped {
            note(watch, format!("{why}; every file was written before"));
        }
        Ok(None)
    };
    let useless = |reason: &str| format!("the suspended machine is dropped: {reason}");
    if suspended == WhenSuspended::Drop {
        return discard("what was suspended is dropped");
    }
    let unloadable = |error| match error {
        machine::Error::Unloadable { .. } => discard(&useless(&error.to_string())),
        machine::Error::NotSaved { .. } => Ok(None),
        error => Err(failure::machine(&error)
            .hint("to boot without what was suspended: colima start --cold")),
    };
    let state = match SavedState::find(directory) {
        Ok(Some(state)) => state,
        Ok(None) => return Ok(None),
        Err(error) => return unloadable(error),
    };
    let Some(record) = InstanceRecord::find(&paths.record)? else {
        return discard(&useless("nothing is known of it"));
    };
    begin(watch, "loading what was suspended");
    let Boot::Kernel(kernel) = &state.spec().boot else {
        return discard(&useless("it is none of ours"));
    };
    let verdict = accelerator::choose(
        &spec.tools.qemu,
        spec.arch,
        &kernel.image,
        &paths.dir,
        &spec.tools.accelerator_memory,
        accelerator::DEFAULT_LIMIT,
    )
    .await
    .map_err(|error| failure::machine(&error))?;
    let qemu = Qemu::new(&spec.tools.qemu, verdict.accelerator);
    match Machine::load(&qemu, directory, LOAD_LIMIT).await {
        Ok(loaded) => Ok(Some((record, loaded))),
        Err(error) => unloadable(error),
    }
}

pub(super) async fn set_clock(agent: &Agent<Mux>) -> Result<(), String> {
    let now = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .map_err(|_| "the host's is before 1970".to_owned())?;
    match timeout(CLOCK_LIMIT, agent.set_clock(now)).await {
        Ok(set) => set.map_err(|error| error.to_string()),
        Err(_) => Err(format!("it is not set within {CLOCK_LIMIT:?}")),
    }
}

/// A file in the machine's directory while a guest runs on whose clock still says when it was suspended.
struct ClockIsLate<'a>(&'a ProfilePaths);

impl<'a> ClockIsLate<'a> {
    fn begin(paths: &'a ProfilePaths) -> Result<Self, CommandError> {
        let mark = Self::mark(paths);
        write_private(&mark, b"").map_err(|error| failure::file("write", &mark, &error))?;
        Ok(Self(paths))
    }

    fn mark(paths: &ProfilePaths) -> std::path::PathBuf {
        paths.machine_dir.join("clock-is-late")
    }

    fn end(self) {
        // Left, it costs whoever finds the machine one question.
        let _ = std::fs::remove_file(Self::mark(self.0));
    }
}

/// Sets the clock of a guest whose resume nobody finished.
pub(super) fn finish_for_another(paths: &ProfilePaths, agent: &Agent<Mux>) {
    if !ClockIsLate::mark(paths).exists() {
        return;
    }
    let (paths, agent) = (paths.clone(), agent.clone());
    tokio::spawn(async move {
        match set_clock(&agent).await {
            Ok(()) => ClockIsLate(&paths).end(),
            Err(why) => crate::log_line(&format!("the guest's clock is late: {why}")),
        }
    });
}

fn begin(watch: Watcher<'_>, name: &str) {
    watch(Stage::Begin {
        name: name.to_owned(),
    });
}

fn note(watch: Watcher<'_>, text: String) {
    watch(Stage::Note { text });
}
