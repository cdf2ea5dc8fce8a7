//! `colima start`.

use std::{fs, io};

use colima_core::boot::Runtime;
use colima_core::config::{
    Config, ConfigFile, InvalidConfig, Origin, ParseConfigError, Settings, TEMPLATE, write_back,
};

use super::{Context, client_error, docker, follow, say, signals, state_error, stop, unexpected};
use crate::{
    args::{Activation, StartArgs},
    assembly::{Assembly, assemble},
    command_error::{CommandError, ErrorKind},
    control::{Reply, Request, Started, StopManner},
    exit_code::ExitCode,
    instance::Instance,
    state_dir::write_private,
};

pub(super) async fn run(context: &Context<'_>, args: &StartArgs) -> Result<ExitCode, CommandError> {
    for flag in args.without_effect() {
        say(&format!("note: {flag}"));
    }
    let save = match args.saves_config(context.environment) {
        true => Save::WriteBack,
        false => Save::OnlyIfNew,
    };
    let config = configure(context, &args.settings(), save).await?;
    let assembly = prepare(context, &config)?;
    start(
        context,
        assembly,
        Activation::from(config.auto_activate.value),
    )
    .await?;
    if args.foreground {
        stay(context).await?;
    }
    Ok(ExitCode::Ok)
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
    stop::stop(context, StopManner::Orderly).await?;
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

/// Finds everything that a start of `config` needs, and changes nothing that runs.
pub(super) fn prepare(context: &Context<'_>, config: &Config) -> Result<Assembly, CommandError> {
    assemble(
        config,
        &context.profile,
        &context.state,
        &context.paths,
        context.environment,
    )
}

/// Starts what was prepared and shows how it goes.
pub(super) async fn start(
    context: &Context<'_>,
    assembly: Assembly,
    activation: Activation,
) -> Result<(), CommandError> {
    let Assembly { spec, boot } = assembly;
    let runtime = spec.runtime;
    let mut progress = context.progress();
    let request = Request::Start {
        spec: Box::new(spec),
        boot: Box::new(boot),
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
        docker::publish(context, activation);
    }
    let name = context.profile.display_name();
    match started {
        Started::Now { .. } => {
            let _ = progress.done(&format!("{name} is ready"));
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
) -> Result<Config, CommandError> {
    let path = &context.paths.config_file;
    let text = match fs::read_to_string(path) {
        Ok(text) => Some(text),
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => {
            let what = format!("cannot read {}", path.display());
            return Err(CommandError::new(ErrorKind::Config, what).caused_by(&error));
        }
    };
    let file = match &text {
        Some(text) => ConfigFile::parse(text).map_err(|error| parse_error(path, &error))?,
        None => ConfigFile::default(),
    };
    for ignored in &file.not_acted_on {
        say(&format!("note: {ignored}"));
    }
    let config = Config::merge(typed, &file.settings).map_err(|error| invalid(&error))?;
    // Nothing is written before everything is known to be right.
    if config.disk.origin == Origin::Flag {
        Instance::refuse_shrink(&context.paths, config.disk.value).await?;
    }
    context.state.prepare().map_err(state_error)?;
    context.paths.prepare().map_err(state_error)?;
    let written = text.as_deref().unwrap_or(TEMPLATE);
    if text.is_none() || (save == Save::WriteBack && *typed != Settings::default()) {
        let new = write_back(written, typed).map_err(|error| {
            CommandError::new(
                ErrorKind::Config,
                format!("cannot change {}", path.display()),
            )
            .caused_by(&error)
            .hint("change it by hand, or keep it as it is: --save-config=false")
        })?;
        if text.as_deref() != Some(&new) {
            write_private(path, new.as_bytes()).map_err(|error| {
                CommandError::new(
                    ErrorKind::Failure,
                    format!("cannot write {}", path.display()),
                )
                .caused_by(&error)
            })?;
        }
    }
    Ok(config)
}

fn parse_error(path: &std::path::Path, error: &ParseConfigError) -> CommandError {
    let what = format!("{} cannot be used", path.display());
    let failure =
        CommandError::new(ErrorKind::Config, what).hint("correct the file; nothing was changed");
    error
        .lines()
        .into_iter()
        .fold(failure, CommandError::because)
}

fn invalid(error: &InvalidConfig) -> CommandError {
    let failure = CommandError::new(ErrorKind::Config, "the settings cannot be used");
    error.violations.iter().fold(failure, |failure, violation| {
        failure.because(violation.to_string())
    })
}
