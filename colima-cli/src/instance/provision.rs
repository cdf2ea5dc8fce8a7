//! The last of the guest's scripts, and what became of all of them.

use colima_core::{
    Command, Guest as _,
    boot::{GUEST_PROGRAM, ProvisionFailure},
};
use colima_net::{agent::Agent, mux::Mux};

use super::{Watcher, start::SCRIPTS_LIMIT};
use crate::{
    command_error::{CommandError, ErrorKind},
    control::Stage,
};

/// Runs the scripts for when containers can run, and tells which scripts failed: as in Colima that is no failure of the
/// start.
pub(super) async fn finish(agent: &Agent<Mux>, watch: Watcher<'_>) -> Result<(), CommandError> {
    let command = Command::new([GUEST_PROGRAM, "provision", "ready"]);
    let output = match tokio::time::timeout(SCRIPTS_LIMIT, agent.run(&command)).await {
        Ok(Ok(output)) => output,
        Ok(Err(error)) => return Err(failed().caused_by(&error)),
        Err(_) => {
            let minutes = SCRIPTS_LIMIT.as_secs() / 60;
            return Err(CommandError {
                kind: ErrorKind::Timeout,
                ..failed().because(format!("they did not end within {minutes} minutes"))
            });
        }
    };
    let failures: Vec<ProvisionFailure> = serde_json::from_slice(&output.stdout)
        .map_err(|_| failed().because(String::from_utf8_lossy(&output.stderr)))?;
    for failure in failures {
        let text = sentence(&failure);
        watch(Stage::Note { text });
        for line in &failure.output {
            let text = format!("  guest: {line}");
            watch(Stage::Note { text });
        }
    }
    Ok(())
}

fn failed() -> CommandError {
    CommandError::new(
        ErrorKind::Failure,
        "the scripts of colima.yaml could not be run",
    )
    .hint("what they are: colima config show")
}

fn sentence(failure: &ProvisionFailure) -> String {
    let (number, mode) = (failure.number, failure.mode.as_str());
    format!(
        "warning: script {number} of colima.yaml ({mode}) failed: {}",
        failure.why
    )
}

#[cfg(test)]
mod tests {
    use colima_core::boot::ProvisionMode;

    use super::*;

    #[test]
    fn a_failed_script_is_named() {
        let failure = ProvisionFailure {
            number: 2,
            mode: ProvisionMode::AfterBoot,
            why: "exit status: 3".to_owned(),
            output: Vec::new(),
        };
        assert_eq!(
            sentence(&failure),
            "warning: script 2 of colima.yaml (after-boot) failed: exit status: 3"
        );
    }
}
