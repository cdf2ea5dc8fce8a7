//! `colima port`.

use super::{Context, print, say, status};
use crate::{
    args::{PortListArgs, PortVerb},
    command_error::{CommandError, ErrorKind},
    exit_code::ExitCode,
    instance::Probe,
    output::{escaped, port_json, port_table},
};

pub(super) async fn run(context: &Context<'_>, verb: &PortVerb) -> Result<ExitCode, CommandError> {
    match verb {
        PortVerb::List(args) => list(context, args).await,
    }
}

async fn list(context: &Context<'_>, args: &PortListArgs) -> Result<ExitCode, CommandError> {
    let probe = context.probe().await?;
    let Probe::Running { ports, .. } = probe else {
        return Err(status::not_usable(context, probe));
    };
    let Some(ports) = ports else {
        let what = "ports of this profile stay in its machine";
        return Err(CommandError::new(ErrorKind::Failure, what)
            .because("colima.yaml says portForwarder: none")
            .hint("have them on this host: colima start --port-forwarder ssh"));
    };
    print(if args.json {
        port_json(&ports)
    } else {
        port_table(&ports)
    })?;
    // In JSON they are lines of their own.
    for conflict in ports.conflicts.iter().filter(|_| !args.json) {
        say(&format!("conflict: {}", escaped(conflict)));
    }
    if let Some(trouble) = &ports.trouble {
        say(&escaped(trouble));
    }
    Ok(ExitCode::Ok)
}
