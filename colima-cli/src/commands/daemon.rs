//! `colima daemon run`: the profile's daemon, started by the command line itself.

use std::{fs::File, io::Write as _};

use super::{Context, state_error};
use crate::{
    args::DaemonVerb,
    command_error::{CommandError, ErrorKind},
    daemon,
    exit_code::ExitCode,
};

/// Two threads: one relays while the other does. A daemon is small.
const THREADS: usize = 2;

pub(super) fn run(context: &Context<'_>, verb: DaemonVerb) -> Result<ExitCode, CommandError> {
    let DaemonVerb::Run = verb;
    crate::inherited::close();
    // Away from the terminal that happened to start it; fails when it leads a group, and then a
    // person runs it by hand and wants its Ctrl-C.
    let _ = rustix::process::setsid();
    raise_descriptor_limit();
    context.state.prepare().map_err(state_error)?;
    context.paths.prepare().map_err(state_error)?;
    let failed = |error: &dyn std::error::Error| {
        CommandError::new(ErrorKind::Failure, "the daemon cannot serve").caused_by(error)
    };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(THREADS)
        .enable_all()
        .build()
        .map_err(|error| failed(&error))?;
    let served = runtime.block_on(async {
        let mut signals = super::signals()?;
        let terminate = async move { signals.next().await };
        daemon::serve(context.paths.clone(), say_ready, terminate)
            .await
            .map_err(|error| failed(&error))
    });
    // What still blocks in a thread is not worth waiting for.
    runtime.shutdown_background();
    served?;
    Ok(ExitCode::Ok)
}

/// Every relayed connection costs a descriptor or two, and the usual soft limit is 1,024.
fn raise_descriptor_limit() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: limit.maximum,
        maximum: limit.maximum,
    };
    // Without it accepting pauses earlier, that is all.
    let _ = setrlimit(Resource::Nofile, raised);
}

/// Tells whoever started us, and lets go of the pipe so that its other end is not kept.
fn say_ready() {
    let mut stdout = std::io::stdout();
    // Nobody may listen any more.
    let _ = stdout.write_all(b"\n").and_then(|()| stdout.flush());
    if let Ok(null) = File::options().write(true).open("/dev/null") {
        let _ = rustix::stdio::dup2_stdout(&null);
    }
}
