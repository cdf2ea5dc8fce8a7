//! `colima start`.

use std::io::{self, IsTerminal as _};

use colima_core::boot::Runtime;
use colima_core::config::{Config, Origin, Settings};

use super::{
    Context, client_error,
    configuration::{Configuration, TemplateUse},
    confirm, docker, editor, follow, say, signals,
    ssh_config::{self, Naming},
    state_error, stop, unexpected,
};
use crate::{
    args::{Activation, StartArgs},
    assembly::{Assembly, assemble},
    command_error::{CommandError, ErrorKind},
    control::{Reply, Request, Started, StopManner, WhenSuspended},
    exit_code::ExitCode,
    instance::{Instance, InstanceRecord},
    other_colima,
};

pub(super) async fn run(context: &Context<'_>, args: &StartArgs) -> Result<ExitCode, CommandError> {
    for flag in args.without_effect() {
        say(&format!("note: {flag}"));
    }
    let save = match args.saves_config(context.environment) {
        true => Save::WriteBack,
        false => Save::OnlyIfNew,
    };
    let config = if args.edit {
        edit(context, args).await?
    } else {
        configure(context, &args.settings(), save, template_use(args)).await?
    };
    let assembly = prepare(context, &config)?;
    if args.edit && offers_restart(context).await? {
        stop::stop(context, StopManner::Orderly).await?;
    }
    let suspended = match args.cold {
        true => WhenSuspended::Drop,
        false => WhenSuspended::Resume,
    };
    start(context, assembly, OnHost::of(&config), suspended).await?;
    if args.foreground {
        stay(context).await?;
    }
    Ok(ExitCode::Ok)
}

fn template_use(args: &StartArgs) -> TemplateUse {
    if args.uses_template() {
        TemplateUse::Begin
    } else {
        TemplateUse::Ignore
    }
}

/// Lets the user edit `colima.yaml` with the flags in it, and keeps what is right.
async fn edit(context: &Context<'_>, args: &StartArgs) -> Result<Config, CommandError> {
    let path = &context.paths.config_file;
    let before = Configuration::read(context, template_use(args))?;
    let offered = before.with_flags(&args.settings(), path)?;
    let (text, draft) = editor::edit(context, &offered, args.editor.as_deref())?;
    let checked = match before.replaced(draft.path(), text.clone()) {
        Ok(edited) => match edited.merge(&Settings::default()) {
            Ok(config) => Ok((edited, config)),
            Err(error) => Err(error),
        },
        Err(error) => Err(error),
    };
    let (edited, config) = match checked {
        Ok(checked) => checked,
        Err(error) => return Err(draft.keep(error)),
    };
    edited.tell_what_is_left_aside();
    context.paths.prepare().map_err(state_error)?;
    super::configuration::write(path, &text)?;
    Ok(config)
}

/// Whether the machine runs and the user, asked, wants it stopped for what was edited.
async fn offers_restart(context: &Context<'_>) -> Result<bool, CommandError> {
    let asks = io::stdin().is_terminal() && io::stderr().is_terminal();
    if !asks || context.ask_if_running(&Request::Hello).await?.is_none() {
        return Ok(false);
    }
    let name = context.profile.display_name();
    confirm(&format!("{name} runs; restart it to apply the changes"))
}

/// Waits for Ctrl-C and stops the machine, or for whatever else ends it.
async fn stay(context: &Context<'_>) -> Result<(), CommandError> {
    let mut signals = signals()?;
    say("in the foreground: Ctrl-C stops the machine");
    let ended = async {
        if let Some(mut talk) = context.ask_if_running(&Request::AwaitEnd).await? {
            talk.next().await.map_err(client_error)?;
        }
        Ok(())
    };
    tokio::select! {
        () = signals.next() => {}
        ended = ended => {
            ended?;
            say("the machine ended");
        }
    }
    stop::stop(context, stop::usual(context)).await?;
    Ok(())
}

/// Whether what was typed goes into a `colima.yaml` that exists.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Save {
    /// It does.
    WriteBack,
    /// It does not.
    OnlyIfNew,
}

/// What a start does on the host beside the machine.
#[derive(Clone, Copy, Debug)]
pub(super) struct OnHost {
    activation: Activation,
    naming: Naming,
}

impl OnHost {
    pub(super) fn of(config: &Config) -> Self {
        Self {
            activation: config.auto_activate.value.into(),
            naming: config.ssh_config.value.into(),
        }
    }
}

/// Finds everything that a start of `config` needs, and changes nothing that runs.
pub(super) fn prepare(context: &Context<'_>, config: &Config) -> Result<Assembly, CommandError> {
    refuse_the_others(context)?;
    let assembly = assemble(
        config,
        &context.profile,
        &context.state,
        &context.paths,
        context.environment,
    )?;
    for note in &assembly.notes {
        say(&format!("note: {note}"));
    }
    if let Ok(Some(last)) = InstanceRecord::find(&context.paths.record) {
        tell_of_another_runtime(last.spec.runtime, assembly.spec.runtime);
    }
    Ok(assembly)
}

/// Each runtime has its own place on the data disk.
fn tell_of_another_runtime(before: Runtime, now: Runtime) {
    if before == now || before == Runtime::None {
        return;
    }
    let (before, now) = (before.as_str(), now.as_str());
    say(&format!(
        "note: the runtime was {before}, and {now} sees nothing of it: images, containers and volumes of {before} \
         are kept, and are there again with: colima start --runtime {before}"
    ));
}

/// The original Colima's instance of the same name has its docker socket where ours would be.
fn refuse_the_others(context: &Context<'_>) -> Result<(), CommandError> {
    let name = context.profile.instance();
    let directory = context.state.root().join("_lima").join(&name);
    let Some(pid) = other_colima::supervisor(&directory) else {
        return Ok(());
    };
    let what = format!("{name} runs already, started by the original Colima");
    Err(CommandError::new(ErrorKind::Busy, what)
        .because(format!(
            "process {pid} supervises it in {}",
            directory.display()
        ))
        .hint("start another profile: colima start --profile NAME"))
}

/// Starts what was prepared and shows how it goes.
pub(super) async fn start(
    context: &Context<'_>,
    assembly: Assembly,
    on_host: OnHost,
    suspended: WhenSuspended,
) -> Result<(), CommandError> {
    let Assembly { spec, boot, .. } = assembly;
    let runtime = spec.runtime;
    let mut progress = context.progress();
    let request = Request::Start {
        spec: Box::new(spec),
        boot: Box::new(boot),
        suspended,
    };
    let mut talk = context
        .daemon()?
        .ask(&request)
        .await
        .map_err(client_error)?;
    let started = match follow(&mut talk, &mut progress).await? {
        Reply::Started(started) => started,
        other => return Err(unexpected(&other)),
    };
    drop(talk);
    if runtime == Runtime::Docker {
        docker::publish(context, on_host.activation);
    }
    ssh_config::include(context, on_host.naming);
    let name = context.profile.display_name();
    match started {
        Started::Now { .. } => {
            let _ = progress.done(&format!("{name} is ready"));
        }
        Started::Resumed { .. } => {
            let _ = progress.done(&format!("{name} goes on where it was suspended: ready"));
        }
        Started::Before { differing } if differing.is_empty() => {
            say(&format!("{name} runs already"));
        }
        Started::Before { differing } => say(&format!(
            "{name} runs already; a restart applies the new {}: colima restart",
            differing.join(", ")
        )),
    }
    Ok(())
}

/// Reads what the profile wants, merges what was typed, and writes that back.
pub(super) async fn configure(
    context: &Context<'_>,
    typed: &Settings,
    save: Save,
    begin: TemplateUse,
) -> Result<Config, CommandError> {
    let path = &context.paths.config_file;
    let configuration = Configuration::read(context, begin)?;
    configuration.tell_what_is_left_aside();
    let config = configuration.merge(typed)?;
    // Nothing is written before everything is known to be right.
    if config.disk.origin == Origin::Flag {
        Instance::refuse_shrink(&context.paths, config.disk.value).await?;
    }
    let new = match save {
        Save::OnlyIfNew if configuration.is_there() => None,
        // The profile begins as its file will say from the next start on.
        Save::OnlyIfNew => Some(configuration.with_flags(&Settings::default(), path)?),
        Save::WriteBack => Some(configuration.with_flags(typed, path)?),
    };
    context.state.prepare().map_err(state_error)?;
    context.paths.prepare().map_err(state_error)?;
    if let Some(new) = new {
        configuration.save(context, &new)?;
    }
    Ok(config)
}
