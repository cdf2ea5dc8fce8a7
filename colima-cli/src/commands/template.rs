//! `colima template`.

use super::{
    Context,
    configuration::{parse, save_template, template},
    editor, print, say, state_error,
};
use crate::{args::TemplateArgs, command_error::CommandError, exit_code::ExitCode};

pub(super) fn run(context: &Context<'_>, args: &TemplateArgs) -> Result<ExitCode, CommandError> {
    context.state.check_version().map_err(state_error)?;
    let (text, _) = template(context)?;
    if args.print {
        print(text)?;
        return Ok(ExitCode::Ok);
    }
    let (edited, draft) = editor::edit(context, &text, args.editor.as_deref())?;
    match parse(draft.path(), &edited) {
        Ok(_) => save_template(context, &edited)?,
        Err(error) => return Err(draft.keep(error)),
    }
    say(&format!(
        "new profiles begin with {}",
        context.state.template().display()
    ));
    Ok(ExitCode::Ok)
}
