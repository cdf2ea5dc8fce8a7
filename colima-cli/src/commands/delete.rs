//! `colima delete`.

use std::{fs, io, path::Path};

use colima_vm::machine::Machine;

use super::{
    Context, client_error, confirm_or_say_how, say,
    ssh_config::{self, Naming},
    state_error, stop,
};
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
    let what = match args.data {
        true => "AND ALL ITS CONTAINERS, IMAGES AND VOLUMES",
        false => "(its containers, images and volumes are kept)",
    };
    let question = format!("delete {name} {what}");
    if !args.force && !confirm_or_say_how(&question, "colima delete --force")? {
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
    ssh_config::include(context, Naming::Unnamed);
    // Made by a start without a list of mounts; what somebody has put there stays.
    let _ = fs::remove_dir(Path::new("/tmp").join(context.profile.instance()));
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

/// Removes a file or directory of ours; one that is gone is fine, so that a delete can be repeated.
pub(super) fn remove(path: &Path) -> Result<(), CommandError> {
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
