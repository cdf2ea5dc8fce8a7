//! `colima mount`.

use colima_core::config::{MountEntry, Mounts, Settings};

use super::{
    Context, client_error, configuration::Configuration, configuration::TemplateUse, print, say,
    status, unexpected,
};
use crate::{
    args::{MountListArgs, MountVerb},
    assembly::surroundings,
    command_error::{CommandError, naming},
    control::{Reply, Request},
    exit_code::ExitCode,
    guest_user,
    instance::Probe,
    mounts::{MountHealth, Share, plan},
    output::{escaped, mount_json, mount_table},
};

/// Whether `colima.yaml` follows what is changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Keep {
    ForLaterStarts,
    UntilItStops,
}

impl From<bool> for Keep {
    fn from(save: bool) -> Self {
        match save {
            true => Self::ForLaterStarts,
            false => Self::UntilItStops,
        }
    }
}

pub(super) async fn run(context: &Context<'_>, verb: &MountVerb) -> Result<ExitCode, CommandError> {
    match verb {
        MountVerb::List(args) => list(context, args).await,
        MountVerb::Add(args) => add(context, &args.directory, args.save.into()).await,
        MountVerb::Remove(args) => remove(context, &args.path, args.save.into()).await,
    }
}

async fn list(context: &Context<'_>, args: &MountListArgs) -> Result<ExitCode, CommandError> {
    let mounts = mounts(context).await?;
    print(if args.json {
        mount_json(&mounts)
    } else {
        mount_table(&mounts)
    })?;
    for mount in mounts.iter().filter(|_| !args.json) {
        if let Some(problem) = &mount.problem {
            let problem = naming(problem, &context.profile);
            say(&escaped(&format!("{}: {problem}", mount.share.location)));
        }
    }
    Ok(ExitCode::Ok)
}

/// What a running machine has.
pub(super) async fn mounts(context: &Context<'_>) -> Result<Vec<MountHealth>, CommandError> {
    match context.probe().await? {
        Probe::Running { mounts, .. } => Ok(mounts),
        other => Err(status::not_usable(context, other)),
    }
}

async fn add(
    context: &Context<'_>,
    directory: &MountEntry,
    keep: Keep,
) -> Result<ExitCode, CommandError> {
    let user = guest_user::mirror(&context.environment.user);
    let share = surroundings(context.environment, &user.home, None, |surroundings| {
        plan::share(directory, surroundings)
    })?;
    let share = match ask(context, &Request::Mount { share }).await? {
        Reply::Mounted(share) => share,
        other => return Err(unexpected(&other)),
    };
    let (location, path) = (escaped(&share.location), escaped(&share.guest.path));
    match keep {
        Keep::UntilItStops => say(&format!(
            "{location} is {path} in the machine until that stops; --save keeps it"
        )),
        Keep::ForLaterStarts => {
            save(context, |entries| {
                entries.retain(|entry| entry.location != directory.location);
                entries.push(directory.clone());
            })?;
            say(&format!("{location} is {path} in the machine"));
        }
    }
    Ok(ExitCode::Ok)
}

async fn remove(context: &Context<'_>, path: &str, keep: Keep) -> Result<ExitCode, CommandError> {
    // As the host names it, unless only the guest can know it.
    let path = std::path::absolute(path).ok();
    let path = path.as_deref().and_then(|path| path.to_str());
    let path = path.unwrap_or_default().trim_end_matches('/').to_owned();
    let share = match ask(context, &Request::Unmount { path }).await? {
        Reply::Unmounted(share) => share,
        other => return Err(unexpected(&other)),
    };
    if keep == Keep::ForLaterStarts {
        forget(context, &share)?;
    }
    say(&format!(
        "{} is not shared any more",
        escaped(&share.location)
    ));
    Ok(ExitCode::Ok)
}

/// Takes what became this share out of the file.
fn forget(context: &Context<'_>, share: &Share) -> Result<(), CommandError> {
    let user = guest_user::mirror(&context.environment.user);
    save(context, |entries| {
        entries.retain(|entry| {
            let planned = surroundings(context.environment, &user.home, None, |surroundings| {
                plan::share(entry, surroundings)
            });
            !planned.is_ok_and(|planned| planned.guest.path == share.guest.path)
        });
    })
}

/// Changes the list of `colima.yaml`. Where that says nothing, the list begins with what is shared then.
fn save(
    context: &Context<'_>,
    change: impl FnOnce(&mut Vec<MountEntry>),
) -> Result<(), CommandError> {
    let configuration = Configuration::read(context, TemplateUse::Begin)?;
    let config = configuration.merge(&Settings::default())?;
    let mut entries = match config.mounts.value {
        Mounts::These(entries) => entries,
        Mounts::None => Vec::new(),
        Mounts::Usual => vec![MountEntry {
            location: "~".to_owned(),
            mount_point: None,
            writable: true,
        }],
    };
    change(&mut entries);
    let settings = Settings {
        mounts: Some(match entries.is_empty() {
            true => Mounts::None,
            false => Mounts::These(entries),
        }),
        ..Settings::default()
    };
    let new = configuration.with_flags(&settings, &context.paths.config_file)?;
    configuration.save(context, &new)
}

async fn ask(context: &Context<'_>, request: &Request) -> Result<Reply, CommandError> {
    let talk = context.ask_if_running(request).await?;
    let mut talk = talk.ok_or_else(|| context.not_running())?;
    match talk.next().await.map_err(client_error)? {
        Reply::Failed(error) => Err(error),
        reply => Ok(reply),
    }
}
