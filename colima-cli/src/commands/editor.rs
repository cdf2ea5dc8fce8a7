//! A text in the user's editor.

use std::{
    fs, io,
    io::IsTerminal as _,
    path::{Path, PathBuf},
    process::Command,
};

use super::{Context, state_error};
use crate::{
    command_error::{CommandError, ErrorKind},
    environment::Environment,
    state_dir::write_private,
};

const BANNER: &str = "\
# ----------------------------------------------------------------------
# Save and leave the editor to go on. An empty file gives up.
# These lines are not kept.
# ----------------------------------------------------------------------

";

/// A draft in the state directory, removed when the value is dropped; [`Draft::keep`] leaves it there.
#[derive(Debug)]
pub(super) struct Draft {
    path: PathBuf,
    kept: bool,
}

impl Draft {
    /// Where it is.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Leaves it, and says where it is: nobody wants to type it again.
    pub(super) fn keep(mut self, error: CommandError) -> CommandError {
        self.kept = true;
        let path = self.path.display();
        error.hint(format!(
            "nothing was changed; what you wrote is kept in {path}"
        ))
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        if !self.kept {
            // It may be gone already, and a draft that stays harms nobody.
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// Shows `text` in an editor and returns what it has become.
///
/// `wanted` is the editor that was asked for, a command that may have arguments.
pub(super) fn edit(
    context: &Context<'_>,
    text: &str,
    wanted: Option<&str>,
) -> Result<(String, Draft), CommandError> {
    let editor = choose(context.environment, wanted)?;
    context.state.prepare().map_err(state_error)?;
    let name = format!("colima-{}-{}.yaml", context.profile, std::process::id());
    let draft = Draft {
        path: context.state.root().join(format!("_draft-{name}")),
        kept: false,
    };
    let failed = |error: io::Error| {
        let what = format!("cannot edit {}", draft.path.display());
        CommandError::new(ErrorKind::Failure, what).caused_by(&error)
    };
    write_private(&draft.path, format!("{BANNER}{text}").as_bytes()).map_err(failed)?;
    // As git does it: the shell splits the command, the file is an argument of its own.
    let status = Command::new("sh")
        .arg("-c")
        .arg(format!("{editor} \"$@\""))
        .arg(&editor)
        .arg(&draft.path)
        .status()
        .map_err(failed)?;
    if !status.success() {
        let what = format!("the editor {editor} failed ({status}); nothing was changed");
        return Err(CommandError::new(ErrorKind::Failure, what)
            .hint("choose another one: --editor COMMAND, or export EDITOR=..."));
    }
    let edited = fs::read_to_string(&draft.path).map_err(failed)?;
    // Whoever deleted the banner has deleted nothing of the text.
    let edited = edited.strip_prefix(BANNER).unwrap_or(&edited).to_owned();
    if edited.trim().is_empty() {
        return Err(CommandError::new(
            ErrorKind::Interrupted,
            "the file is empty: given up, nothing was changed",
        ));
    }
    Ok((edited, draft))
}

/// The editor that was asked for, else `EDITOR`, else the one around the terminal, else what there is.
fn choose(environment: &Environment, wanted: Option<&str>) -> Result<String, CommandError> {
    if let Some(editor) = wanted.or(environment.editor.as_deref()) {
        return Ok(editor.to_owned());
    }
    if !io::stdin().is_terminal() {
        return Err(
            CommandError::new(ErrorKind::Usage, "there is no terminal for an editor")
                .hint("name an editor that needs none: --editor COMMAND, or export EDITOR=..."),
        );
    }
    let around = match environment.term_program.as_deref() {
        Some("vscode") => Some("code"),
        _ => None,
    };
    around
        .into_iter()
        .chain(["nano", "vim", "vi"])
        .find(|program| environment.find_program(program).is_some())
        .map(|program| match program {
            // It returns at once unless it is told to wait.
            "code" => "code --wait".to_owned(),
            program => program.to_owned(),
        })
        .ok_or_else(|| {
            CommandError::new(ErrorKind::MissingDependency, "there is no editor")
                .hint("name one: --editor COMMAND, or export EDITOR=...")
        })
}
