//! What is kept of a comparison, and how it is shown.

use std::{fmt::Write as _, fs, path::Path};

use serde::{Deserialize, Serialize};

use crate::{
    Result,
    host::Host,
    sample::{Sample, Unit},
};

/// One comparison: where, how, what, and what was hoped for.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Row {
    /// Its name on the command line.
    pub name: String,
    /// What is compared, in a sentence.
    pub about: String,
    /// The command that does it again.
    pub command: String,
    /// Where it ran.
    pub host: Host,
    /// The measured things.
    pub measures: Vec<Measure>,
    /// What was hoped for.
    pub bars: Vec<Bar>,
}

/// One measured thing of all peers.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Measure {
    /// What is measured.
    pub what: String,
    /// In what.
    pub unit: Unit,
    /// Of whom, in the order of the turns.
    pub samples: Vec<Sample>,
}

impl Measure {
    /// Nothing measured yet.
    pub fn new<const N: usize>(what: impl Into<String>, unit: Unit, peers: [&str; N]) -> Self {
        Self {
            what: what.into(),
            unit,
            samples: peers.map(Sample::new).into(),
        }
    }

    /// The median of a peer, by its place.
    ///
    /// # Panics
    ///
    /// When there is no such peer.
    #[must_use]
    pub fn median(&self, peer: usize) -> f64 {
        self.samples[peer].median()
    }
}

/// A number that must not be exceeded, or must be reached.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Bar {
    /// What is demanded.
    pub demand: String,
    /// The limit.
    pub limit: f64,
    /// What was measured.
    pub measured: f64,
    /// Whether it was met.
    pub met: bool,
}

impl Bar {
    /// Met when `measured` is `limit` or more.
    #[must_use]
    pub fn at_least(demand: impl Into<String>, limit: f64, measured: f64) -> Self {
        Self {
            demand: demand.into(),
            limit,
            measured,
            met: measured >= limit,
        }
    }

    /// Met when `measured` is `limit` or less.
    #[must_use]
    pub fn at_most(demand: impl Into<String>, limit: f64, measured: f64) -> Self {
        Self {
            demand: demand.into(),
            limit,
            measured,
            met: measured <= limit,
        }
    }
}

impl Row {
    /// Keeps everything in `directory`.
    ///
    /// # Errors
    ///
    /// When the file cannot be written.
    pub fn write(&self, directory: &Path) -> Result<()> {
        fs::create_dir_all(directory)?;
        let text = serde_json::to_string_pretty(self)? + "\n";
        Ok(fs::write(
            directory.join(format!("{}.json", self.name)),
            text,
        )?)
    }

    /// What [`Row::write`] has kept; `None` when this row never ran.
    ///
    /// # Errors
    ///
    /// When there is something that cannot be read.
    pub fn read(directory: &Path, name: &str) -> Result<Option<Self>> {
        match fs::read(directory.join(format!("{name}.json"))) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            text => Ok(Some(serde_json::from_slice(&text?)?)),
        }
    }

    /// The row for people, in Markdown.
    #[must_use]
    pub fn markdown(&self) -> String {
        let mut text = format!(
            "### {}\n\n{}\n\n`{}`, {}\n\n| measured | peer | median | min to max | n |\n|---|---|---|---|---|\n",
            self.name, self.about, self.command, self.host
        );
        for measure in &self.measures {
            for sample in &measure.samples {
                let (least, most) = sample.range();
                let _ = writeln!(
                    text,
                    "| {} | {} | {} {unit} | {} to {} | {} |",
                    measure.what,
                    sample.peer,
                    number(sample.median()),
                    number(least),
                    number(most),
                    sample.values.len(),
                    unit = measure.unit.text(),
                );
            }
        }
        text.push('\n');
        for bar in &self.bars {
            let verdict = if bar.met { "met" } else { "**not met**" };
            let measured = number(bar.measured);
            let _ = writeln!(text, "- {}: {measured}, {verdict}", bar.demand);
        }
        if !self.bars.is_empty() {
            text.push('\n');
        }
        text
    }
}

/// Three significant digits.
fn number(value: f64) -> String {
    let digits = match value.abs() {
        a if a >= 100.0 => 0,
        a if a >= 10.0 => 1,
        a if a >= 1.0 => 2,
        _ => 3,
    };
    format!("{value:.digits$}")
}

const BEGIN: &str = "<!-- results: written by `compare` -->\n";
const END: &str = "<!-- end of results -->\n";

/// `readme` with other results between its two marks.
///
/// # Errors
///
/// When a mark is missing.
pub fn replace_results(readme: &str, results: &str) -> Result<String> {
    let (before, rest) = readme
        .split_once(BEGIN)
        .ok_or("the mark before the results is missing")?;
    let (_, after) = rest
        .split_once(END)
        .ok_or("the mark after the results is missing")?;
    Ok(format!("{before}{BEGIN}\n{results}{END}{after}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_as_people_see_it() {
        let mut measure = Measure::new("a new connection", Unit::Milliseconds, ["ours", "ssh"]);
        measure.samples[0].values = vec![1.0, 3.0, 2.0];
        measure.samples[1].values = vec![120.0];
        let row = Row {
            name: "example".to_owned(),
            about: "One against the other.".to_owned(),
            command: "compare example".to_owned(),
            host: Host {
                cpu: "A Processor".to_owned(),
                cpus: 2,
                kernel: "6.1".to_owned(),
                qemu: Some("10.0.2".to_owned()),
                accelerator: Some("TCG".to_owned()),
                load: 0.5,
                recorded: 1_700_000_000,
            },
            bars: vec![
                Bar::at_most("ours at most 3", 3.0, measure.median(0)),
                Bar::at_least("ssh at least 200", 200.0, measure.median(1)),
            ],
            measures: vec![measure],
        };
        insta::assert_snapshot!(row.markdown());
    }

    #[test]
    fn only_what_is_between_the_marks_changes() {
        let readme = format!("a\n{BEGIN}old\n{END}b\n");
        let new = replace_results(&readme, "new\n").unwrap();
        assert_eq!(new, format!("a\n{BEGIN}\nnew\n{END}b\n"));
        assert_eq!(replace_results(&new, "new\n").unwrap(), new);
        assert!(replace_results("a", "new").is_err());
    }
}
