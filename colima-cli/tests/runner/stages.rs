//! Stages with a clock that stands where the test puts it.

use std::{cell::Cell, io, time::Duration};

use colima::{
    environment::Environment,
    progress::{Progress, Screen, Style},
};

fn a_start(style: Style) -> String {
    let now = Cell::new(Duration::ZERO);
    let wait = |ms| now.set(now.get() + Duration::from_millis(ms));
    let mut written = Vec::new();
    let mut play = || -> io::Result<()> {
        let mut progress = Progress::new(&mut written, style, || now.get());
        progress.stage("building the image")?;
        wait(1500);
        progress.detail("42 of 180 packages")?;
        wait(185_000);
        progress.note("hint: this is needed once")?;
        progress.stage("booting")?;
        wait(5_050);
        progress.tick()?;
        progress.stage("docker\x1b[2J")?;
        wait(120);
        progress.failed()?;
        progress.done("ready")
    };
    play().unwrap();
    String::from_utf8(written)
        .unwrap()
        .escape_debug()
        .to_string()
        .replace("\\n", "\n")
}

#[test]
fn every_style() {
    insta::assert_snapshot!("stages_plain", a_start(Style::Plain));
    insta::assert_snapshot!("stages_json", a_start(Style::Json));
    insta::assert_snapshot!("stages_live", a_start(Style::Live));
    insta::assert_snapshot!("stages_live_color", a_start(Style::LiveColor));
    insta::assert_snapshot!("stages_plain_color", a_start(Style::PlainColor));
    assert_eq!(a_start(Style::Quiet), "");
}

#[test]
fn the_style_follows_terminal_and_environment() {
    let style = |screen, variables: &[(&str, &str)]| {
        let lookup = |name: &str| {
            let found = variables.iter().find(|(key, _)| *key == name)?;
            Some(found.1.into())
        };
        Style::choose(screen, &Environment::from_variables(lookup, "", 1, 1))
    };
    let xterm = ("TERM", "xterm");
    assert_eq!(style(Screen::Terminal, &[xterm]), Style::LiveColor);
    assert_eq!(
        style(Screen::Terminal, &[xterm, ("NO_COLOR", "1")]),
        Style::Live
    );
    assert_eq!(style(Screen::Terminal, &[("TERM", "dumb")]), Style::Plain);
    assert_eq!(style(Screen::Stream, &[xterm]), Style::Plain);
    assert_eq!(
        style(Screen::Stream, &[xterm, ("CLICOLOR_FORCE", "1")]),
        Style::PlainColor
    );
}
