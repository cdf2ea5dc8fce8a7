//! The help of every verb, as a terminal of 100 columns shows it.

use clap::CommandFactory;
use colima::args::Cli;

fn help_of(command: &mut clap::Command) -> String {
    // Nothing of the terminal that runs the test gets in.
    command
        .clone()
        .term_width(100)
        .render_long_help()
        .to_string()
}

#[test]
fn the_whole() {
    let mut command = Cli::command();
    command.build();
    insta::assert_snapshot!(help_of(&mut command));
}

#[test]
fn every_verb() {
    let mut command = Cli::command().term_width(100);
    command.build();
    let verbs: Vec<String> = command
        .get_subcommands()
        .map(|verb| verb.get_name().to_owned())
        .collect();
    assert!(verbs.len() >= 12, "{verbs:?}");
    for verb in verbs {
        let help = help_of(command.find_subcommand_mut(&verb).unwrap());
        insta::assert_snapshot!(format!("verb_{verb}"), help);
    }
}

#[test]
fn the_definitions_are_sound() {
    Cli::command().debug_assert();
}
