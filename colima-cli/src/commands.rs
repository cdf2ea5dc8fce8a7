//! One file per verb, and what they share: which profile is meant and how to talk about it.

use std::{io::IsTerminal as _, time::Instant};

use clap::{Parser as _, error::ErrorKind as Kind};
use colima_core::ProfileName;

use crate::{
    args::{Cli, ProgressArg, Verb},
    command_error::{CommandError, ErrorKind},
    control::{
        Reply, Stage,
        client::{ClientError, Conversation, DaemonFiles},
    },
    environment::Environment,
    exit_code::ExitCode,
    instance::{Probe, is_stopped},
    progress::{Progress, Screen, Style},
    state_dir::{ProfilePaths, StateDir, StateDirError},
};

mod completion;
mod config;
mod configuration;
mod daemon;
mod delete;
mod docker;
mod doctor;
mod editor;
mod env;
mod events;
mod image;
mod list;
mod logs;
mod man;
mod mount;
mod mount_worker;
mod nerdctl;
mod not_yet;
mod port;
mod proxy;
mod prune;
mod restart;
mod ssh;
mod ssh_config;
mod start;
mod status;
mod stop;
mod template;
mod update;
mod usage;
mod version;

/// Runs the program: `arguments` as typed, the program's name first.
///
/// Prints and returns; nothing in here ends the process but `ssh`, which becomes the ssh client.
pub fn run(
    arguments: impl IntoIterator<Item = std::ffi::OsString>,
    environment: &Environment,
) -> ExitCode {
    let arguments: Vec<std::ffi::OsString> = arguments.into_iter().collect();
    let cli = match Cli::try_parse_from(&arguments) {
        Ok(cli) => cli,
        // Help and version come this way, too. A closed pipe is nobody's error.
        Err(error)
            if !error.use_stderr()
                || error.kind() == Kind::DisplayHelpOnMissingArgumentOrSubcommand =>
        {
            let _ = error.print();
            return if error.use_stderr() {
                ExitCode::Usage
            } else {
                ExitCode::Ok
            };
        }
        Err(error) => {
            say(&usage::error(&error, &arguments).to_string());
            return ExitCode::Usage;
        }
    };
    match dispatch(&cli, environment) {
        Ok(code) => code,
        Err(error) if error.kind == ErrorKind::ReaderLeft => error.exit_code(),
        Err(error) => {
            let profile = cli.profile(environment).unwrap_or_default();
            say(&error.for_profile(&profile).to_string());
            error.exit_code()
        }
    }
}

fn dispatch(cli: &Cli, environment: &Environment) -> Result<ExitCode, CommandError> {
    // These need no profile and no home.
    match &cli.verb {
        Verb::Completion(args) => return completion::run(args),
        Verb::Proxy(args) => return proxy::run(args),
        Verb::Man(args) => return man::run(args),
        Verb::MountWorker(_) => return mount_worker::run(),
        Verb::Kubernetes(_) => return Err(not_yet::kubernetes()),
        Verb::Model(_) => return Err(not_yet::model()),
        _ => {}
    }
    let context = Context::new(cli, environment)?;
    match &cli.verb {
        Verb::Start(args) => context.block_on(start::run(&context, args)),
        Verb::Stop(args) => context.block_on(stop::run(&context, args)),
        Verb::Restart(args) => context.block_on(restart::run(&context, args)),
        Verb::Delete(args) => context.block_on(delete::run(&context, args)),
        Verb::Status(args) => context.block_on(status::run(&context, args)),
        Verb::List(args) => context.block_on(list::run(&context, args, cli.names_profile())),
        Verb::Ssh(args) => context.block_on(ssh::run(&context, args)),
        Verb::Port(args) => context.block_on(port::run(&context, &args.verb)),
        Verb::Mount(args) => context.block_on(mount::run(&context, &args.verb)),
        Verb::Config(args) => config::run(&context, &args.verb),
        Verb::Template(args) => template::run(&context, args),
        Verb::Env(args) => env::run(&context, args),
        Verb::Events(_) => context.block_on(events::run(&context)),
        Verb::Nerdctl(args) => context.block_on(nerdctl::run(&context, args)),
        Verb::Update(args) => context.block_on(update::run(&context, args)),
        Verb::Prune(args) => context.block_on(prune::run(&context, args)),
        Verb::Doctor(args) => context.block_on(doctor::run(&context, args)),
        Verb::SshConfig(_) => ssh_config::run(&context),
        Verb::Version(_) => context.block_on(version::run(&context)),
        Verb::Logs(args) => logs::run(&context, args),
        Verb::Image(args) => context.block_on(image::run(&context, args)),
        Verb::Daemon(args) => daemon::run(&context, args.verb),
        Verb::Completion(_)
        | Verb::Proxy(_)
        | Verb::Man(_)
        | Verb::MountWorker(_)
        | Verb::Kubernetes(_)
        | Verb::Model(_) => Ok(ExitCode::Ok),
    }
}

/// What a verb works with.
#[derive(Debug)]
struct Context<'a> {
    environment: &'a Environment,
    profile: ProfileName,
    state: StateDir,
    paths: ProfilePaths,
    progress: ProgressArg,
}

impl<'a> Context<'a> {
    fn new(cli: &Cli, environment: &'a Environment) -> Result<Self, CommandError> {
        let profile = cli.profile(environment).map_err(|error| {
            CommandError::new(ErrorKind::Usage, error.to_string())
                .hint("choose another name: colima start --profile work")
        })?;
        let state = StateDir::new(environment.state_root()?);
        let paths = state.profile(&profile);
        Ok(Self {
            environment,
            profile,
            state,
            paths,
            progress: cli.global.progress,
        })
    }

    fn block_on<T>(
        &self,
        work: impl Future<Output = Result<T, CommandError>>,
    ) -> Result<T, CommandError> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build();
        runtime
            .map_err(|error| {
                CommandError::new(ErrorKind::Failure, "cannot start the runtime").caused_by(&error)
            })?
            .block_on(work)
    }

    /// The profile's daemon.
    fn daemon(&self) -> Result<DaemonFiles, CommandError> {
        let program = std::env::current_exe().map_err(|error| {
            CommandError::new(ErrorKind::Failure, "cannot find this program").caused_by(&error)
        })?;
        let arguments = ["daemon", "run", "--profile", self.profile.as_str()];
        Ok(DaemonFiles {
            socket: self.paths.control_socket.clone(),
            spawn_lock: self.paths.command_lock.clone(),
            log: self.paths.daemon_log.clone(),
            home: self.state.root().to_owned(),
            program,
            arguments: arguments.map(ToOwned::to_owned).into(),
        })
    }

    /// What there is of the profile. An answer that does not come is an error.
    async fn probe(&self) -> Result<Probe, CommandError> {
        self.state.check_version().map_err(state_error)?;
        let machine_runs = || {
            let runs = colima_vm::machine::Machine::is_running(&self.paths.machine_dir);
            runs.unwrap_or(true)
        };
        let probed = self.daemon()?.probe(machine_runs).await;
        let probed = probed.map_err(client_error)?;
        Ok(probed.unwrap_or_else(|| Probe::at_rest(&self.paths)))
    }

    /// A daemon that runs or, where the machine runs without one, a new one that takes it over.
    async fn ask_if_running(
        &self,
        request: &crate::control::Request,
    ) -> Result<Option<Conversation>, CommandError> {
        self.state.check_version().map_err(state_error)?;
        let daemon = self.daemon()?;
        // One of another version is sent away first, and the machine with it found by ours.
        if daemon.greets().await.map_err(client_error)?
            && let Some(talk) = daemon.ask_living(request).await.map_err(client_error)?
        {
            return Ok(Some(talk));
        }
        let machine_runs = colima_vm::machine::Machine::is_running(&self.paths.machine_dir);
        if !machine_runs.unwrap_or(true) {
            return Ok(None);
        }
        daemon.ask(request).await.map(Some).map_err(client_error)
    }

    fn progress(&self) -> Progress<std::io::Stderr, impl Fn() -> std::time::Duration + use<>> {
        let screen = match std::io::stderr().is_terminal() {
            true => Screen::Terminal,
            false => Screen::Stream,
        };
        let began = Instant::now();
        let style = match self.progress {
            ProgressArg::Auto => Style::choose(screen, self.environment),
            ProgressArg::Tty => Style::live(self.environment),
            ProgressArg::Plain => Style::Plain,
            ProgressArg::Json => Style::Json,
            ProgressArg::None => Style::Quiet,
        };
        Progress::new(std::io::stderr(), style, move || began.elapsed())
    }

    fn not_running(&self) -> CommandError {
        let what = format!("{} is not running", self.profile.display_name());
        let hint = format!("start it: {}", self.start_command());
        CommandError::new(ErrorKind::NotRunning, what).hint(hint)
    }

    /// What starts the profile.
    fn start_command(&self) -> String {
        match self.profile == ProfileName::default() {
            true => "colima start".to_owned(),
            false => format!("colima start --profile {}", self.profile),
        }
    }
}

/// Follows a conversation to its last reply, showing what comes before.
///
/// Ctrl-C withdraws the request and waits until it is undone; a second one does not wait.
async fn follow<C: Fn() -> std::time::Duration>(
    talk: &mut Conversation,
    progress: &mut Progress<std::io::Stderr, C>,
) -> Result<Reply, CommandError> {
    let mut interrupts = signals()?;
    let mut ticks = tokio::time::interval(std::time::Duration::from_millis(200));
    let mut withdrawn = false;
    loop {
        let reply = tokio::select! {
            reply = talk.next() => reply.map_err(client_error)?,
            _ = ticks.tick(), if progress.wants_ticks() => {
                // What cannot be shown is not worth failing for, here and below.
                let _ = progress.tick();
                continue;
            }
            () = interrupts.next() => {
                if withdrawn {
                    return Err(CommandError::new(ErrorKind::Interrupted, "interrupted"));
                }
                withdrawn = true;
                let _ = progress.note("interrupted: finishing what cannot be left half done");
                talk.withdraw().await.map_err(client_error)?;
                continue;
            }
        };
        match reply {
            Reply::Stage(Stage::Begin { name }) => drop(progress.stage(&name)),
            Reply::Stage(Stage::Detail { text }) => drop(progress.detail(&text)),
            Reply::Stage(Stage::Note { text }) => drop(progress.note(&text)),
            Reply::Failed(error) => {
                let _ = progress.failed();
                return Err(error);
            }
            // What was going on could not be taken back, but nothing may follow it.
            _ if withdrawn => {
                return Err(CommandError::new(ErrorKind::Interrupted, "interrupted"));
            }
            last => return Ok(last),
        }
    }
}

/// Ctrl-C and its relatives.
struct Signals {
    interrupt: tokio::signal::unix::Signal,
    terminate: tokio::signal::unix::Signal,
    hang_up: tokio::signal::unix::Signal,
}

impl Signals {
    async fn next(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
            _ = self.hang_up.recv() => {}
        }
    }
}

fn signals() -> Result<Signals, CommandError> {
    use tokio::signal::unix::{SignalKind, signal};
    let listen = |kind| {
        signal(kind).map_err(|error| {
            CommandError::new(ErrorKind::Failure, "cannot listen for signals").caused_by(&error)
        })
    };
    Ok(Signals {
        interrupt: listen(SignalKind::interrupt())?,
        terminate: listen(SignalKind::terminate())?,
        hang_up: listen(SignalKind::hangup())?,
    })
}

/// Prints a line of talk.
fn say(line: &str) {
    use std::io::Write as _;
    // A closed standard error is nobody's error.
    let _ = writeln!(std::io::stderr(), "{line}");
}

/// Asks on the terminal; no is the answer of whoever just presses a key.
fn confirm(question: &str) -> Result<bool, CommandError> {
    use std::io::Write as _;
    let mut stderr = std::io::stderr();
    let mut answer = String::new();
    write!(stderr, "{question}? [y/N] ")
        .and_then(|()| stderr.flush())
        .and_then(|()| std::io::stdin().read_line(&mut answer))
        .map_err(|error| {
            CommandError::new(ErrorKind::Failure, "cannot ask on the terminal").caused_by(&error)
        })?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}

/// As [`confirm`]. Without a terminal the answer has to be a flag: `forced` is the command with it.
fn confirm_or_say_how(question: &str, forced: &str) -> Result<bool, CommandError> {
    if !std::io::stdin().is_terminal() {
        return Err(
            CommandError::new(ErrorKind::Usage, "there is no terminal to ask on")
                .hint(format!("to go on without being asked: {forced}")),
        );
    }
    confirm(question)
}

/// Prints data.
fn print(data: impl AsRef<[u8]>) -> Result<(), CommandError> {
    use std::io::Write as _;
    let mut stdout = std::io::stdout().lock();
    match stdout
        .write_all(data.as_ref())
        .and_then(|()| stdout.flush())
    {
        // Whoever reads has read enough: quietly, as a program that SIGPIPE ends.
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => {
            Err(CommandError::new(ErrorKind::ReaderLeft, ""))
        }
        Err(error) => Err(
            CommandError::new(ErrorKind::Failure, "cannot write to standard output")
                .caused_by(&error),
        ),
        Ok(()) => Ok(()),
    }
}

#[expect(clippy::needless_pass_by_value, reason = "taken by map_err")]
fn client_error(error: ClientError) -> CommandError {
    let kind = match &error {
        ClientError::Silent { .. } => ErrorKind::Timeout,
        _ => ErrorKind::Failure,
    };
    let hint = match &error {
        // Its machine does not notice, and the next command finds it again.
        ClientError::Silent {
            process: Some(pid), ..
        } => match is_stopped(pid) {
            true => format!("a signal has stopped it, let it go on: kill -CONT {pid}"),
            false => format!("end it alone, the machine runs on: kill -KILL {pid}"),
        },
        _ => "what it wrote is printed by: colima logs".to_owned(),
    };
    CommandError::new(kind, "the profile's daemon does not serve")
        .caused_by(&error)
        .hint(hint)
}

#[expect(clippy::needless_pass_by_value, reason = "taken by map_err")]
fn state_error(error: StateDirError) -> CommandError {
    let hint = match &error {
        StateDirError::Newer { .. } => "use the newer colima",
        StateDirError::Version { source, .. } => match source.kind() {
            std::io::ErrorKind::StorageFull => "make room, and nothing is lost: colima prune --all",
            std::io::ErrorKind::InvalidData => "remove that file if no newer colima wrote it",
            _ => "choose another directory: export COLIMA_HOME=...",
        },
        StateDirError::ForeignOwner { .. } | StateDirError::WritableByOthers { .. } => {
            "choose a directory of your own: export COLIMA_HOME=..."
        }
        _ => "choose another directory: export COLIMA_HOME=...",
    };
    CommandError::new(ErrorKind::Failure, "the state directory cannot be used")
        .caused_by(&error)
        .hint(hint)
}

fn unexpected(reply: &Reply) -> CommandError {
    CommandError::new(
        ErrorKind::Failure,
        "the daemon gave an answer to another question",
    )
    .because(format!("{reply:?}"))
}
