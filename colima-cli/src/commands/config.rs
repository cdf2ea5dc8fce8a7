//! `colima config`.

use colima_core::config::{Explained, Settings, Standing, explain, schema};
use serde_json::json;

use super::{
    Context,
    configuration::{Configuration, TemplateUse},
    print, state_error,
};
use crate::{
    args::{ConfigShowArgs, ConfigVerb},
    command_error::CommandError,
    exit_code::ExitCode,
    output::escaped,
};

pub(super) fn run(context: &Context<'_>, verb: &ConfigVerb) -> Result<ExitCode, CommandError> {
    match verb {
        ConfigVerb::Show(args) => show(context, args)?,
        ConfigVerb::Schema => print(format!("{:#}\n", schema()))?,
    }
    Ok(ExitCode::Ok)
}

fn show(context: &Context<'_>, args: &ConfigShowArgs) -> Result<(), CommandError> {
    context.state.check_version().map_err(state_error)?;
    let configuration = Configuration::read(context, TemplateUse::Begin)?;
    let flags: Settings = args.wanted.settings();
    let config = configuration.merge(&flags)?;
    let explained = explain(&config, &configuration.file, &configuration.template);
    print(if args.json {
        format!("{:#}\n", in_json(&explained))
    } else {
        table(&explained)
    })
}

fn in_json(explained: &[Explained]) -> serde_json::Value {
    let keys = explained.iter().map(|one| {
        json!({
            "key": one.key,
            "value": one.value,
            "origin": one.origin.to_string(),
            "effect": effect(one.standing),
        })
    });
    keys.collect()
}

/// What becomes of a key, in one word.
const fn effect(standing: Option<Standing>) -> &'static str {
    match standing {
        None => "yes",
        Some(Standing::DoesNotApply) => "none",
        Some(_) => "not yet",
    }
}

/// One line per key: name, value, and where it comes from where that is not the default.
fn table(explained: &[Explained]) -> String {
    let rows: Vec<[String; 3]> = explained
        .iter()
        .map(|one| {
            let value = match &one.value {
                serde_json::Value::String(text) if !text.is_empty() => text.clone(),
                other => other.to_string(),
            };
            let effect = match one.standing {
                None => String::new(),
                Some(Standing::DoesNotApply) => " (does not apply here)".to_owned(),
                Some(_) => " (not available yet)".to_owned(),
            };
            let origin = format!("{}{effect}", one.origin);
            [escaped(&one.key), escaped(&value), origin]
        })
        .collect();
    let width = |column: usize, most: usize| {
        let widths = rows.iter().map(|row| row[column].chars().count());
        widths.filter(|width| *width <= most).max().unwrap_or(0)
    };
    let (keys, values) = (width(0, 40), width(1, 32));
    let mut table = String::new();
    for [key, value, origin] in &rows {
        table.push_str(&format!("{key:keys$}  {value:values$}  {origin}\n"));
    }
    table
}
