//! `colima delete`.

use std::{
    fs,
    io::{self, IsTerminal as _, Write as _},
    path::Path,
};

use colima_vm::machine::Machine;

use super::{Context, client_error, say, state_error, stop};
use crate::{
    args::DeleteArgs,
    command_error::{CommandError, ErrorKind},
    control::StopManner,
    exit_code::ExitCode,
};

pub(super) async fn run(
    context: &Context<'_>,
    args: &DeleteArgs,
) -> Result<ExitCode, CommandError> {
    context.state.check_version().map_err(state_error)?;
    let paths = &context.paths;
    let name = context.profile.display_name();
    let something = paths.dir.exists() || (args.data && paths.data_dir.exists());
    if !something {
        let what = format!("there is no profile {}", context.profile);
        return Err(CommandError::new(ErrorKind::NoSuchProfile, what)
            .hint("the profiles there are: colima list"));
    }
    if !args.force && !confirmed(&name, args.data)? {
        say("nothing was deleted");
        return Ok(ExitCode::Ok);
    }
    // What is thrown away need not be put in order first.
    let manner = if args.data {
        StopManner::Forced
    } else {
        StopManner::Orderly
    };
    stop::stop(context, manner).await?;
    let daemon = context.daemon()?;
    // Nobody starts it while its files go.
    let _alone = daemon.lock_spawning().await.map_err(client_error)?;
    let runs = Machine::is_running(&paths.machine_dir).unwrap_or(true);
    if runs || daemon.greets().await.map_err(client_error)? {
        let what = format!("{name} was started again in the meantime");
        return Err(CommandError::new(ErrorKind::Busy, what).hint("repeat: colima delete"));
    }
    remove(&paths.dir)?;
    if args.data {
        remove(&paths.data_dir)?;
        for key in [paths.ssh_host_key.clone(), public_half(&paths.ssh_host_key)] {
            remove(&key)?;
        }
        say(&format!(
            "deleted {name} and its containers, images and volumes"
        ));
    } else {
        say(&format!(
            "deleted {name}; its containers, images and volumes are kept for the next start"
        ));
    }
    Ok(ExitCode::Ok)
}

fn public_half(key: &Path) -> std::path::PathBuf {
    let mut name = key.as_os_str().to_owned();
    name.push(".pub");
    name.into()
}

/// Asks on the terminal; without one the answer has to be a flag.
fn confirmed(name: &str, data: bool) -> Result<bool, CommandError> {
    if !io::stdin().is_terminal() {
        return Err(
            CommandError::new(ErrorKind::Usage, "there is no terminal to ask on")
                .hint("to delete without being asked: colima delete --force"),
        );
    }
    let what = if data {
        "AND ALL ITS CONTAINERS, IMAGES AND VOLUMES"
    } else {
        "(its containers, images and volumes are kept)"
    };
    let mut stderr = io::stderr();
    let mut answer = String::new();
    write!(stderr, "delete {name} {what}? [y/N] ")
        .and_then(|()| stderr.flush())
        .and_then(|()| io::stdin().read_line(&mut answer))
        .map_err(|error| {
            CommandError::new(ErrorKind::Failure, "cannot ask on the terminal").caused_by(&error)
        })?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}

/// Removes a file or directory of ours; one that is gone is fine, so that a delete can be repeated.
fn remove(path: &Path) -> Result<(), CommandError> {
    let removed = match fs::symlink_metadata(path) {
        Ok(metadata) if metadata.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
        Err(error) => Err(error),
    };
    match removed {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            let what = format!("cannot remove {}", path.display());
            Err(CommandError::new(ErrorKind::Failure, what).caused_by(&error))
        }
        _ => Ok(()),
    }
}
