//! What is wrong with a command line, in the form of all other failures.

use std::ffi::OsString;

use clap::CommandFactory as _;

use crate::{
    args::Cli,
    command_error::{CommandError, ErrorKind},
};

/// Clap's words: the first paragraph says what is wrong, a `tip:` what was probably meant.
pub(super) fn error(error: &clap::Error, arguments: &[OsString]) -> CommandError {
    let text = error.render().to_string();
    let mut paragraphs = text.split("\n\n");
    let what = paragraphs.next().unwrap_or_default();
    let what = what.strip_prefix("error: ").unwrap_or(what);
    let what: Vec<&str> = what.split_whitespace().collect();
    let failure = CommandError::new(ErrorKind::Usage, what.join(" "));
    let tips = paragraphs
        .flat_map(str::lines)
        .filter_map(|line| line.trim().strip_prefix("tip: "));
    let help = match verb(arguments) {
        Some(verb) => format!("colima {verb} --help"),
        None => "colima --help".to_owned(),
    };
    let mut hint: Vec<&str> = tips.collect();
    let all = format!("everything that can be typed: {help}");
    hint.push(&all);
    failure.hint(hint.join("; "))
}

/// The verb that was typed, if there is such a one.
fn verb(arguments: &[OsString]) -> Option<String> {
    let command = Cli::command();
    let typed = arguments.iter().skip(1).filter_map(|word| word.to_str());
    let mut verbs = typed.filter_map(|word| command.find_subcommand(word));
    verbs.next().map(|verb| verb.get_name().to_owned())
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;

    fn said(line: &str) -> String {
        let words: Vec<OsString> = line.split(' ').map(OsString::from).collect();
        let refused = Cli::try_parse_from(&words).expect_err(line);
        format!("{line}\n{}\n", error(&refused, &words))
    }

    #[test]
    fn one_form_for_all() {
        let lines = [
            "colima strat",
            "colima start --mem 4",
            "colima start --memory lots",
            "colima image rm",
            "colima logs --serial --daemon",
            "colima -p",
            "colima completion tcsh",
        ];
        insta::assert_snapshot!(lines.map(said).join("\n"));
    }
}
