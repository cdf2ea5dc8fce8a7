//! `colima events`.

use colima_core::ProfileName;
use serde_json::{Value, json};

use super::{Context, client_error, print, signals, state_error, unexpected};
use crate::{
    command_error::CommandError,
    control::{Reply, Request},
    exit_code::ExitCode,
};

/// Prints a line per state until Ctrl-C, or until nobody reads any more.
pub(super) async fn run(context: &Context<'_>) -> Result<ExitCode, CommandError> {
    context.state.prepare().map_err(state_error)?;
    context.paths.prepare().map_err(state_error)?;
    let mut signals = signals()?;
    let daemon = context.daemon()?;
    let mut talk = daemon.ask(&Request::Events).await.map_err(client_error)?;
    loop {
        let reply = tokio::select! {
            reply = talk.next() => reply.map_err(client_error)?,
            () = signals.next() => return Ok(ExitCode::Ok),
        };
        match reply {
            Reply::State { state } => {
                print(line(&context.profile, &json!({ "state": state })))?;
            }
            Reply::Happened { happening } => print(line(&context.profile, &json!(happening)))?,
            other => return Err(unexpected(&other)),
        }
    }
}

/// A line that says when and where something is or happened.
fn line(profile: &ProfileName, what: &Value) -> String {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    let mut event = json!({
        "time": now.unwrap_or_default().as_secs(),
        "profile": profile.as_str(),
    });
    if let (Value::Object(event), Value::Object(what)) = (&mut event, what) {
        event.extend(what.clone());
    }
    format!("{event}\n")
}
