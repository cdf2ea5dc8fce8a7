//! `completion`: the scripts that clap makes, and names of profiles, which only a run can know.

use clap::{Args, CommandFactory as _};
use clap_complete::Shell;

use super::Cli;

/// `colima completion`
#[derive(Args, Clone, Debug)]
pub struct CompletionArgs {
    /// Shell
    #[arg(value_enum)]
    pub shell: Shell,
}

/// Prints the profiles' names without asking any of them how it is.
const NAMES: &str = "colima list --names 2>/dev/null";

impl CompletionArgs {
    /// The completion script.
    #[must_use]
    pub fn script(&self) -> String {
        let mut script = Vec::new();
        let mut command = Cli::command();
        clap_complete::generate(self.shell, &mut command, "colima", &mut script);
        let script = String::from_utf8_lossy(&script).into_owned();
        match self.shell {
            Shell::Bash => script + &bash(&verbs()),
            Shell::Zsh => zsh(&script),
            Shell::Fish => script + &fish(&verbs()),
            // Without the names.
            _ => script,
        }
    }
}

/// The verbs whose argument is a profile, under all their names.
fn verbs() -> Vec<String> {
    let command = Cli::command();
    let takes_one = command.get_subcommands().filter(|verb| {
        let mut arguments = verb.get_positionals();
        arguments.any(|argument| argument.get_value_names() == Some(&["PROFILE".into()]))
    });
    takes_one
        .flat_map(|verb| std::iter::once(verb.get_name()).chain(verb.get_all_aliases()))
        .map(str::to_owned)
        .collect()
}

/// Around clap's own function: behind `--profile`, and directly behind a verb that takes a profile.
fn bash(verbs: &[String]) -> String {
    let verbs = verbs.join("|");
    format!(
        r#"
_colima_with_profiles() {{
    local current="${{COMP_WORDS[COMP_CWORD]}}" before="${{COMP_WORDS[COMP_CWORD-1]}}" verb=
    case "${{COMP_WORDS[1]}}" in
        {verbs}) [[ $COMP_CWORD -eq 2 && $current != -* ]] && verb=yes ;;
    esac
    if [[ $before == -p || $before == --profile || -n $verb ]]; then
        COMPREPLY=($(compgen -W "$({NAMES})" -- "$current"))
        return
    fi
    _colima "$@"
}}
complete -F _colima_with_profiles -o bashdefault -o default colima
"#
    )
}

/// In the places where clap would offer files for a profile.
fn zsh(script: &str) -> String {
    let function = format!(
        "\n_colima_profiles() {{\n    local -a names\n    \
         names=(${{(f)\"$({NAMES})\"}})\n    _describe profile names\n}}\n"
    );
    let mut with_names = String::new();
    for line in script.split_inclusive('\n') {
        if line.contains("[Profile\\: ") || line.contains("-- Profile, as with --profile") {
            with_names.push_str(&line.replace("_default'", "_colima_profiles'"));
        } else {
            with_names.push_str(line);
        }
        if line.starts_with("#compdef") {
            with_names.push_str(&function);
        }
    }
    with_names
}

fn fish(verbs: &[String]) -> String {
    let verbs = verbs.join(" ");
    format!(
        "complete -c colima -s p -l profile -x -a '({NAMES})'\n\
         complete -c colima -n '__fish_seen_subcommand_from {verbs}' -f -a '({NAMES})'\n"
    )
}
