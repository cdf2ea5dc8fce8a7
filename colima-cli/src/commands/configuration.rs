//! What a profile wants: the flags over its `colima.yaml` over the template, read, merged and written back.

use std::{fs, io, net::Ipv4Addr, path::Path};

use colima_core::{
    config::{
        Config, ConfigFile, InvalidConfig, Layers, ParseConfigError, Settings, TEMPLATE, write_back,
    },
    runtime::{DaemonDefaults, daemon_json},
};

use super::{Context, say, state_error};
use crate::{
    command_error::{CommandError, ErrorKind},
    state_dir::{private_dir, write_private},
};

/// Whether a new profile begins with the user's template.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TemplateUse {
    /// It does.
    Begin,
    /// It begins with the built-in one.
    Ignore,
}

/// The texts of a profile and what they say.
#[derive(Debug)]
pub(super) struct Configuration {
    /// Of `colima.yaml`; `None` where there is none.
    text: Option<String>,
    pub(super) file: ConfigFile,
    template_text: String,
    /// Empty once there is a file.
    pub(super) template: ConfigFile,
}

impl Configuration {
    /// Reads what there is; nothing is changed.
    pub(super) fn read(context: &Context<'_>, begin: TemplateUse) -> Result<Self, CommandError> {
        context.state.look().map_err(state_error)?;
        context.paths.look().map_err(state_error)?;
        let path = &context.paths.config_file;
        let text = read(path)?;
        let file = parse(path, text.as_deref().unwrap_or_default())?;
        // As in Colima: the template is where a profile begins, not what stands behind it for ever.
        let is_new = text.as_deref().is_none_or(|text| text.trim().is_empty());
        let (template_text, template) = match begin {
            TemplateUse::Begin if is_new => template(context)?,
            _ => (TEMPLATE.to_owned(), ConfigFile::default()),
        };
        Ok(Self {
            text,
            file,
            template_text,
            template,
        })
    }

    /// The configuration in which another text was put in the place of the file.
    pub(super) fn replaced(self, path: &Path, text: String) -> Result<Self, CommandError> {
        Ok(Self {
            file: parse(path, &text)?,
            text: Some(text),
            template: ConfigFile::default(),
            ..self
        })
    }

    /// Tells which keys have no effect.
    pub(super) fn tell_what_is_left_aside(&self) {
        for ignored in self
            .file
            .not_acted_on
            .iter()
            .chain(&self.template.not_acted_on)
        {
            say(&format!("note: {ignored}"));
        }
    }

    /// Everything that a start with these flags would use.
    pub(super) fn merge(&self, flags: &Settings) -> Result<Config, CommandError> {
        let config = Config::merge(&Layers {
            flags: flags.clone(),
            file: self.file.settings.clone(),
            template: self.template.settings.clone(),
        })
        .map_err(|error| invalid(&error))?;
        // What docker's part cannot be, it cannot be with any gateway.
        daemon_json(
            &config.docker.value,
            &DaemonDefaults::new(Ipv4Addr::UNSPECIFIED),
        )
        .map_err(|error| unusable().because(error.to_string()))?;
        Ok(config)
    }

    /// The file's text with the flags in it; a new one begins as the template.
    pub(super) fn with_flags(&self, flags: &Settings, path: &Path) -> Result<String, CommandError> {
        let text = match &self.text {
            Some(text) if !text.trim().is_empty() => text,
            _ => &self.template_text,
        };
        write_back(text, flags).map_err(|error| {
            let what = format!("cannot change {}", path.display());
            CommandError::new(ErrorKind::Config, what)
                .caused_by(&error)
                .hint("change it by hand, or keep it as it is: --save-config=false")
        })
    }

    /// Writes `new` into the profile's `colima.yaml`, unless it stands there already.
    pub(super) fn save(&self, context: &Context<'_>, new: &str) -> Result<(), CommandError> {
        if self.text.as_deref() == Some(new) {
            return Ok(());
        }
        write(&context.paths.config_file, new)
    }

    /// Whether the profile has a file.
    pub(super) fn is_there(&self) -> bool {
        self.text.is_some()
    }
}

/// The user's template, else the built-in one, with what the user's says.
pub(super) fn template(context: &Context<'_>) -> Result<(String, ConfigFile), CommandError> {
    let path = context.state.template();
    match read(&path)? {
        Some(text) => {
            let template = parse(&path, &text)?;
            Ok((text, template))
        }
        None => Ok((TEMPLATE.to_owned(), ConfigFile::default())),
    }
}

/// Replaces the user's template.
pub(super) fn save_template(context: &Context<'_>, text: &str) -> Result<(), CommandError> {
    let path = context.state.template();
    let directory = path.parent().unwrap_or(context.state.root());
    private_dir(directory).map_err(state_error)?;
    write(&path, text)
}

fn read(path: &Path) -> Result<Option<String>, CommandError> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => {
            let what = format!("cannot read {}", path.display());
            let failure = CommandError::new(ErrorKind::Config, what).caused_by(&error);
            Err(match error.kind() {
                io::ErrorKind::InvalidData => failure.hint("the file has to be text in UTF-8"),
                _ => failure.hint("see whose it is: ls -l"),
            })
        }
    }
}

/// Replaces a file of the user's settings.
pub(super) fn write(path: &Path, text: &str) -> Result<(), CommandError> {
    write_private(path, text.as_bytes()).map_err(|error| {
        let what = format!("cannot write {}", path.display());
        let failure = CommandError::new(ErrorKind::Failure, what).caused_by(&error);
        match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                failure.hint("make room, and nothing is lost: colima prune --all")
            }
            _ => failure.hint("see what is wrong: colima doctor"),
        }
    })
}

/// What the text says; a wrong one is complained about under the name of `path`.
pub(super) fn parse(path: &Path, text: &str) -> Result<ConfigFile, CommandError> {
    ConfigFile::parse(text).map_err(|error: ParseConfigError| {
        let what = format!("{} cannot be used", path.display());
        let failure = CommandError::new(ErrorKind::Config, what)
            .hint("correct the file; nothing was changed");
        error
            .lines()
            .into_iter()
            .fold(failure, CommandError::because)
    })
}

fn unusable() -> CommandError {
    CommandError::new(ErrorKind::Config, "the settings cannot be used")
        .hint("to correct the file: colima start --edit")
}

fn invalid(error: &InvalidConfig) -> CommandError {
    error
        .violations
        .iter()
        .fold(unusable(), |failure, violation| {
            failure.because(violation.to_string())
        })
}
