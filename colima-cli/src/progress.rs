//! Stages of a long command, with the time each took.
//!
//! On a terminal the stage at work is one line that is rewritten; elsewhere each stage is one plain line
//! when it begins and one when it has ended. Everything goes to the writer the caller gives (standard
//! error), and time comes from the caller's clock.

use std::{
    io::{self, Write},
    time::Duration,
};

use serde_json::{Value, json};

use crate::output::escaped;

/// How stages are shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Style {
    /// A line that is rewritten, with colours.
    LiveColor,
    /// A line that is rewritten, without colours.
    Live,
    /// Plain lines with colours, for a forced colour without a terminal.
    PlainColor,
    /// Plain lines.
    Plain,
    /// One JSON object per line, for programs.
    Json,
    /// Nothing.
    Quiet,
}

/// Whether the writer is a terminal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Screen {
    /// It is.
    Terminal,
    /// It is a file or pipe.
    Stream,
}

impl Style {
    /// The style for a writer and what the environment wishes.
    #[must_use]
    pub fn choose(screen: Screen, environment: &crate::environment::Environment) -> Self {
        use crate::environment::ColorWish;

        let live = screen == Screen::Terminal && environment.term.is_some();
        let color = match environment.color {
            ColorWish::Always => true,
            ColorWish::Never => false,
            ColorWish::Auto => live,
        };
        match (live, color) {
            (true, true) => Self::LiveColor,
            (true, false) => Self::Live,
            (false, true) => Self::PlainColor,
            (false, false) => Self::Plain,
        }
    }

    /// A line that is rewritten, whatever the writer is.
    #[must_use]
    pub fn live(environment: &crate::environment::Environment) -> Self {
        match environment.color {
            crate::environment::ColorWish::Never => Self::Live,
            _ => Self::LiveColor,
        }
    }

    fn is_live(self) -> bool {
        matches!(self, Self::Live | Self::LiveColor)
    }

    fn paint(self, code: &str, text: &str) -> String {
        match self {
            Self::LiveColor | Self::PlainColor => format!("\x1b[{code}m{text}\x1b[0m"),
            Self::Live | Self::Plain | Self::Json | Self::Quiet => text.to_owned(),
        }
    }
}

/// Prints stages.
///
/// Dropping it leaves a rewritten line as it is; [`Self::done`] or [`Self::failed`] end it properly.
#[derive(Debug)]
pub struct Progress<W, C> {
    writer: W,
    /// Time since the command began.
    clock: C,
    style: Style,
    stage: Option<Stage>,
}

#[derive(Debug)]
struct Stage {
    name: String,
    detail: String,
    began: Duration,
}

const GREEN: &str = "32";
const RED: &str = "31";
const DIM: &str = "2";

/// Ends what a rewritten line leaves behind its text (ECMA-48, erase in line).
const ERASE_TO_END: &str = "\x1b[K";

impl<W: Write, C: Fn() -> Duration> Progress<W, C> {
    /// A printer without a stage; `clock` tells the time since the command began.
    pub fn new(writer: W, style: Style, clock: C) -> Self {
        Self {
            writer,
            clock,
            style,
            stage: None,
        }
    }

    /// Begins a stage; the one at work has ended well.
    ///
    /// # Errors
    ///
    /// The writer's; callers may ignore them, nothing else depends on it.
    pub fn stage(&mut self, name: &str) -> io::Result<()> {
        self.finish()?;
        self.stage = Some(Stage {
            // What programs read is escaped as JSON, and only once.
            name: match self.style {
                Style::Json => name.to_owned(),
                _ => escaped(name),
            },
            detail: String::new(),
            began: (self.clock)(),
        });
        match self.style {
            Style::Plain | Style::PlainColor => writeln!(self.writer, "{} ...", escaped(name)),
            Style::Live | Style::LiveColor => self.tick(),
            Style::Json => self.event("begin", &[("stage", json!(name))]),
            Style::Quiet => Ok(()),
        }
    }

    /// One line of JSON: the event, the time since the command began, and what belongs to it.
    fn event(&mut self, event: &str, fields: &[(&str, Value)]) -> io::Result<()> {
        let mut object = serde_json::Map::new();
        object.insert("event".to_owned(), json!(event));
        object.insert("seconds".to_owned(), json!(rounded((self.clock)())));
        for (name, value) in fields {
            object.insert((*name).to_owned(), value.clone());
        }
        writeln!(self.writer, "{}", Value::Object(object))?;
        self.writer.flush()
    }

    /// Says what the stage is at: a percentage, a file. Shown only on a terminal.
    ///
    /// # Errors
    ///
    /// As [`Self::stage`].
    pub fn detail(&mut self, detail: &str) -> io::Result<()> {
        if let Some(stage) = &mut self.stage {
            stage.detail = escaped(detail);
        }
        if self.style == Style::Json {
            return self.event("detail", &[("text", json!(detail))]);
        }
        self.tick()
    }

    /// Rewrites the line with the time that has passed. Call it from time to time, and only if
    /// [`Self::wants_ticks`].
    ///
    /// # Errors
    ///
    /// As [`Self::stage`].
    pub fn tick(&mut self) -> io::Result<()> {
        let Some(stage) = self.stage.as_ref().filter(|_| self.style.is_live()) else {
            return Ok(());
        };
        let elapsed = seconds((self.clock)().saturating_sub(stage.began));
        let elapsed = self.style.paint(DIM, &elapsed);
        let gap = if stage.detail.is_empty() { "" } else { "  " };
        write!(
            self.writer,
            "\r{}  {elapsed}{gap}{}{ERASE_TO_END}",
            stage.name, stage.detail
        )?;
        self.writer.flush()
    }

    /// Whether [`Self::tick`] does anything.
    #[must_use]
    pub fn wants_ticks(&self) -> bool {
        self.style.is_live()
    }

    /// Prints a line of its own between stages: a warning, a note.
    ///
    /// # Errors
    ///
    /// As [`Self::stage`].
    pub fn note(&mut self, line: &str) -> io::Result<()> {
        if self.style.is_live() && self.stage.is_some() {
            write!(self.writer, "\r{ERASE_TO_END}")?;
        }
        match self.style {
            Style::Quiet => {}
            Style::Json => return self.event("note", &[("text", json!(line))]),
            _ => writeln!(self.writer, "{}", escaped(line))?,
        }
        self.tick()
    }

    /// Ends the last stage well and prints the sum: `ready in 6.2s`.
    ///
    /// # Errors
    ///
    /// As [`Self::stage`].
    pub fn done(&mut self, what: &str) -> io::Result<()> {
        self.finish()?;
        match self.style {
            Style::Quiet => return Ok(()),
            Style::Json => return self.event("done", &[("text", json!(what))]),
            _ => {}
        }
        let total = seconds((self.clock)());
        writeln!(self.writer, "{} in {total}", escaped(what))
    }

    /// Ends the stage at work as failed. The reason is the caller's to print.
    ///
    /// # Errors
    ///
    /// As [`Self::stage`].
    pub fn failed(&mut self) -> io::Result<()> {
        self.end("failed", RED)
    }

    fn finish(&mut self) -> io::Result<()> {
        self.end("done", GREEN)
    }

    fn end(&mut self, outcome: &str, color: &str) -> io::Result<()> {
        let Some(stage) = self.stage.take() else {
            return Ok(());
        };
        let (start, end) = match self.style {
            Style::Live | Style::LiveColor => ("\r", ERASE_TO_END),
            Style::Plain | Style::PlainColor => ("", ""),
            Style::Json => {
                return self.event(outcome_word(outcome), &[("stage", json!(stage.name))]);
            }
            Style::Quiet => return Ok(()),
        };
        let elapsed = seconds((self.clock)().saturating_sub(stage.began));
        let elapsed = self.style.paint(DIM, &elapsed);
        let outcome = self.style.paint(color, outcome);
        writeln!(
            self.writer,
            "{start}{}: {outcome}  {elapsed}{end}",
            stage.name
        )?;
        self.writer.flush()
    }
}

/// The end of a stage is not the end of the command, which is called done.
fn outcome_word(outcome: &str) -> &str {
    match outcome {
        "done" => "end",
        other => other,
    }
}

/// Milliseconds are enough.
fn rounded(time: Duration) -> f64 {
    (time.as_secs_f64() * 1000.0).round() / 1000.0
}

/// `0.4s`, `12.0s`, `3m05s`.
fn seconds(time: Duration) -> String {
    let whole = time.as_secs();
    if whole < 60 {
        format!("{whole}.{}s", time.subsec_millis() / 100)
    } else {
        format!("{}m{:02}s", whole / 60, whole % 60)
    }
}
