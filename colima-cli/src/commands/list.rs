//! `colima list`.

use colima_core::config::Config;

use super::{Context, print, say, state_error, status};
use crate::{
    args::ListArgs,
    command_error::CommandError,
    exit_code::ExitCode,
    instance::{InstanceRecord, Probe, Problem},
    output::{escaped, list_json, list_table},
};

/// Asks all profiles at once: one that does not answer delays none.
pub(super) async fn run(
    context: &Context<'_>,
    args: &ListArgs,
    only_one: bool,
) -> Result<ExitCode, CommandError> {
    context.state.check_version().map_err(state_error)?;
    let mut names = context.state.profiles().map_err(state_error)?;
    if only_one {
        names.retain(|name| *name == context.profile);
    }
    if args.names {
        print(
            names
                .iter()
                .map(|name| format!("{name}\n"))
                .collect::<String>(),
        )?;
        return Ok(ExitCode::Ok);
    }
    let mut entries = Vec::new();
    let contexts: Vec<Context<'_>> = names
        .into_iter()
        .map(|profile| Context {
            environment: context.environment,
            paths: context.state.profile(&profile),
            state: context.state.clone(),
            progress: context.progress,
            profile,
        })
        .collect();
    let defaults = Config::default();
    let probes = join_all(contexts.iter().map(Context::probe)).await;
    for (context, probe) in contexts.iter().zip(probes) {
        // A record that cannot be read is `status`'s to complain about.
        let last = InstanceRecord::find(&context.paths.record).unwrap_or_default();
        // One that does not answer hides no other.
        let probe = probe.unwrap_or_else(|why| Probe::Stranded { why });
        entries.push(status::entry(context, &probe, last.as_ref(), &defaults));
    }
    for entry in entries.iter().filter(|_| !args.json) {
        for Problem { what, hint } in &entry.problems {
            say(&escaped(&format!("{}: {what}", entry.name)));
            say(&escaped(&format!("  hint: {hint}")));
        }
    }
    if entries.is_empty() {
        say("there is no profile yet: colima start");
    }
    print(if args.json {
        list_json(&entries)
    } else {
        list_table(&entries)
    })?;
    Ok(ExitCode::Ok)
}

/// Runs all at once and keeps their order.
async fn join_all<F: Future>(futures: impl Iterator<Item = F>) -> Vec<F::Output> {
    let mut running: Vec<_> = futures.map(|future| (Box::pin(future), None)).collect();
    std::future::poll_fn(|cx| {
        let mut pending = false;
        for (future, output) in &mut running {
            if output.is_none() {
                match future.as_mut().poll(cx) {
                    std::task::Poll::Ready(done) => *output = Some(done),
                    std::task::Poll::Pending => pending = true,
                }
            }
        }
        if pending {
            std::task::Poll::Pending
        } else {
            std::task::Poll::Ready(())
        }
    })
    .await;
    running
        .into_iter()
        .filter_map(|(_, output)| output)
        .collect()
}
