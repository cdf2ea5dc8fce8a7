//! The docker CLI's context of a profile: made at start, taken back at stop.

use colima_core::runtime::docker_context::overridden;

use super::{Context, say};
use crate::{
    args::Activation,
    command_error::{CommandError, ErrorKind},
    docker_context::{DockerContextError, DockerContexts, Restored},
};

/// Points the profile's context at its socket and, if wanted, makes it current.
///
/// The machine runs by then, so a failure is told and does not undo the start.
pub(super) fn publish(context: &Context<'_>, activation: Activation) {
    if let Err(error) = try_publish(context, activation) {
        say(&format!("{error}"));
    }
    let name = context.profile.instance();
    let environment = context.environment;
    let override_note = overridden(
        environment.docker_host.as_deref(),
        environment.docker_context.as_deref(),
        &name,
        &context.paths.docker_socket,
    );
    if let Some(sentence) = override_note {
        say(&format!("note: {sentence}"));
    }
}

fn try_publish(context: &Context<'_>, activation: Activation) -> Result<(), CommandError> {
    let contexts = contexts(context)?;
    let name = context.profile.instance();
    let description = context.profile.display_name();
    contexts
        .publish(&name, &description, &context.paths.docker_socket)
        .map_err(failed)?;
    if activation == Activation::Activate {
        contexts
            .activate(&name, &context.paths.previous_context)
            .map_err(failed)?;
    }
    Ok(())
}

/// Takes the context back and makes the one before it current again. May be repeated.
pub(super) fn withdraw(context: &Context<'_>) {
    let withdrawn = contexts(context).and_then(|contexts| {
        let name = context.profile.instance();
        // Without the list of profiles only their notes are not kept right.
        let profiles = context.state.profiles().unwrap_or_default();
        let others: Vec<_> = profiles
            .iter()
            .map(|profile| context.state.profile(profile).previous_context)
            .collect();
        let restored = contexts
            .deactivate(
                &name,
                &context.paths.docker_socket,
                &context.paths.previous_context,
                &others,
            )
            .map_err(failed)?;
        contexts
            .remove(&name, &context.paths.docker_socket)
            .map_err(failed)?;
        Ok(restored)
    });
    match withdrawn {
        Ok(Restored::Previous(_) | Restored::NotOurs) => {}
        Err(error) => say(&error.to_string()),
    }
}

fn contexts(context: &Context<'_>) -> Result<DockerContexts, CommandError> {
    Ok(DockerContexts::new(
        context.environment.docker_config_dir()?,
    ))
}

#[expect(clippy::needless_pass_by_value, reason = "taken by map_err")]
fn failed(error: DockerContextError) -> CommandError {
    CommandError::new(ErrorKind::Failure, "the docker context was left as it is")
        .caused_by(&error)
        .hint(
            "docker can be pointed at the machine without a context: export DOCKER_HOST=unix://...",
        )
}
