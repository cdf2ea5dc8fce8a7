//! `colima version`.

use std::fmt::Write as _;

use super::{Context, print};
use crate::{command_error::CommandError, exit_code::ExitCode, instance::Probe, output::escaped};

pub(super) async fn run(context: &Context<'_>) -> Result<ExitCode, CommandError> {
    let mut text = format!("colima version {}\n", env!("CARGO_PKG_VERSION"));
    if let Probe::Running { record, .. } = context.probe().await? {
        let spec = &record.spec;
        // Writing to a string cannot fail.
        let _ = writeln!(text, "\nprofile: {}\narch: {}", context.profile, spec.arch);
        let _ = writeln!(
            text,
            "image: {}\naccelerator: {}",
            record.image, record.accelerator
        );
        for (component, version) in &record.versions {
            let _ = writeln!(text, "{}: {}", escaped(component), escaped(version));
        }
    }
    print(text)?;
    Ok(ExitCode::Ok)
}
