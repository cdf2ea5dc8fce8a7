//! Flags of Colima's `start` that are accepted and have no effect yet.
//!
//! A script that passes one of them keeps working; it gets one line that says so.

use std::fmt;

use clap::{Arg, ArgAction, ArgMatches, Args, Command, FromArgMatches, parser::ValueSource};
use colima_core::config::Standing::{self, DoesNotApply, NotYet};

/// A flag of Colima's that was typed and has no effect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LegacyFlag {
    /// The long flag, with its dashes.
    pub flag: &'static str,
    /// Why it has no effect.
    pub standing: Standing,
}

impl fmt::Display for LegacyFlag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let standing = match self.standing {
            Standing::DoesNotApply => "does not apply here",
            _ => "is not available yet",
        };
        write!(f, "{} {standing} and is left aside", self.flag)
    }
}

enum Takes {
    Value,
    /// Nothing, or `=true` and `=false`.
    Switch,
}

use Takes::{Switch, Value};

/// Long flag with its dashes, short flag, what it takes, why it has no effect.
const FLAGS: &[(&str, Option<char>, Takes, Standing)] = &[
    ("--binfmt", None, Switch, NotYet),
    ("--cpu-type", None, Value, NotYet),
    ("--disk-image", Some('i'), Value, NotYet),
    ("--disk-image-mirror", None, Value, DoesNotApply),
    ("--downloader", None, Value, DoesNotApply),
    ("--force-disk-image", None, Switch, DoesNotApply),
    ("--gateway-address", None, Value, NotYet),
    ("--k3s-arg", None, Value, NotYet),
    ("--k3s-listen-port", None, Value, NotYet),
    ("--kubernetes", Some('k'), Switch, NotYet),
    ("--kubernetes-disable", None, Value, NotYet),
    ("--kubernetes-version", None, Value, NotYet),
    ("--layer", Some('l'), Switch, DoesNotApply),
    ("--model-runner", None, Value, NotYet),
    ("--mount-inotify", None, Switch, NotYet),
    ("--mount-type", None, Value, DoesNotApply),
    ("--nested-virtualization", Some('z'), Switch, NotYet),
    ("--network-address", None, Switch, NotYet),
    ("--network-host-addresses", None, Switch, NotYet),
    ("--network-interface", None, Value, DoesNotApply),
    ("--network-mode", None, Value, NotYet),
    ("--network-preferred-route", None, Switch, NotYet),
    ("--vm-type", Some('t'), Value, DoesNotApply),
    ("--vz-rosetta", None, Switch, DoesNotApply),
    ("--with-kubernetes", None, Switch, NotYet),
];

/// The flags of this table that were typed.
#[derive(Clone, Debug, Default)]
pub(super) struct LegacyFlags {
    pub(super) typed: Vec<LegacyFlag>,
}

impl Args for LegacyFlags {
    fn augment_args(command: Command) -> Command {
        command.args(FLAGS.iter().map(|(flag, short, takes, _)| {
            let arg = Arg::new(*flag)
                .long(flag.trim_start_matches('-'))
                .short(*short)
                .hide(true);
            match takes {
                Value => arg.action(ArgAction::Append),
                Switch => arg
                    .action(ArgAction::Append)
                    .num_args(0..=1)
                    .require_equals(true)
                    .default_missing_value("true"),
            }
        }))
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl FromArgMatches for LegacyFlags {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let typed = |(flag, _, _, standing): &(&'static str, _, _, Standing)| {
            let on_command_line = matches.value_source(flag) == Some(ValueSource::CommandLine);
            // `--kubernetes=false` asks for what happens anyway.
            let off = matches
                .get_raw(flag)
                .is_some_and(|mut values| values.all(|value| value == "false"));
            (on_command_line && !off).then_some(LegacyFlag {
                flag,
                standing: *standing,
            })
        };
        Ok(Self {
            typed: FLAGS.iter().filter_map(typed).collect(),
        })
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}
