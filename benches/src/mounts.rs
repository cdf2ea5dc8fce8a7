//! What both comparisons of mounts have in common: what is measured, and what is hoped for.

use std::time::Duration;

use crate::{
    Result,
    files::{Amount, LARGE, Work},
    report::{Bar, Measure},
    sample::Unit,
};

/// The candidates, in the order of their turns.
pub const PEERS: [&str; 3] = ["sshfs", "ours", "no mount"];
const SSHFS: usize = 0;
const OURS: usize = 1;
const PLAIN: usize = 2;

/// Where Debian and Fedora have OpenSSH's server of files.
const SFTP_SERVERS: [&str; 3] = [
    "/usr/lib/openssh/sftp-server",
    "/usr/libexec/openssh/sftp-server",
    "/usr/lib/ssh/sftp-server",
];

/// OpenSSH's server of files on this host.
///
/// # Errors
///
/// When it is not here.
pub fn sftp_server() -> Result<&'static str> {
    let mut known = SFTP_SERVERS.into_iter();
    let found = known.find(|path| std::path::Path::new(path).exists());
    found.ok_or_else(|| "sftp-server is not here: install the package openssh-sftp-server".into())
}

/// The times of all work of all candidates.
#[derive(Debug)]
pub struct Times {
    /// With a measure each.
    works: Vec<(Work, Measure)>,
}

impl Times {
    /// Nothing measured yet.
    #[must_use]
    pub fn new(amount: Amount, unit: Unit) -> Self {
        let measure = |work| {
            let unit = match work {
                Work::RandomRead => Unit::Milliseconds,
                _ => unit,
            };
            (work, Measure::new(title(work, amount), unit, PEERS))
        };
        Self {
            works: Work::ALL.into_iter().map(measure).collect(),
        }
    }

    /// Takes what the program printed in the turn of a candidate; gives what failed, in its words.
    ///
    /// # Errors
    ///
    /// When it printed something else.
    pub fn add(&mut self, peer: usize, printed: &str) -> Result<Vec<String>> {
        let mut failed = Vec::new();
        for line in printed.lines() {
            let (name, value) = line.split_once(' ').ok_or("a line without a time")?;
            let found = self.works.iter_mut().find(|(work, _)| work.name() == name);
            match (found, value.parse()) {
                (Some((_, measure)), Ok(nanos)) => {
                    let value = measure.unit.of(Duration::from_nanos(nanos), 0);
                    measure.samples[peer].values.push(value);
                }
                _ => failed.push(format!("{}: {line}", PEERS[peer])),
            }
        }
        Ok(failed)
    }

    /// What was measured of all, and the bars that `bars` makes of it. What one candidate could not do has
    /// no bar; what nobody did is left out.
    #[must_use]
    pub fn done(self, bars: fn(Work, &Measure) -> Vec<Bar>) -> (Vec<Measure>, Vec<Bar>) {
        let mut kept = (Vec::new(), Vec::new());
        for (work, measure) in self.works {
            let counts = measure.samples.iter().map(|sample| sample.values.len());
            if counts.clone().all(|count| count > 0) {
                kept.1.extend(bars(work, &measure));
            }
            if counts.sum::<usize>() > 0 {
                kept.0.push(measure);
            }
        }
        kept
    }
}

/// How much faster than sshfs.
#[must_use]
pub fn against_sshfs(work: Work, measure: &Measure) -> Bar {
    let times = match work {
        Work::Write | Work::ReadBack => 5.0,
        _ => 3.0,
    };
    Bar::at_least(
        format!("{}: at least {times} times as fast as sshfs", measure.what),
        times,
        measure.median(SSHFS) / measure.median(OURS),
    )
}

/// What is remembered, against the same without a mount; `None` for other work.
#[must_use]
pub fn against_no_mount(work: Work, measure: &Measure) -> Option<Bar> {
    let warm = matches!(
        work,
        Work::FindAgain | Work::Stat | Work::ReadAgain | Work::StatusAgain
    );
    warm.then(|| {
        Bar::at_most(
            format!(
                "{}: at most 2 times as long as without a mount",
                measure.what
            ),
            2.0,
            measure.median(OURS) / measure.median(PLAIN),
        )
    })
}

fn title(work: Work, amount: Amount) -> String {
    let large = LARGE >> 20;
    match work {
        Work::FindFirst => format!("find among {} files, first", amount.found()),
        Work::FindAgain => "find again".to_owned(),
        Work::Stat => format!("stat of {} files", amount.found()),
        Work::ReadFirst => format!("read {} small files, first", amount.small()),
        Work::ReadAgain => "read them again".to_owned(),
        Work::RandomRead => "one uncached read of 4 KiB".to_owned(),
        Work::Unpack => format!("untar {} files", amount.unpacked()),
        Work::Remove => "rm -rf of them".to_owned(),
        Work::Write => format!("write {large} MiB, fsync"),
        Work::ReadBack => format!("read {large} MiB back"),
        Work::Commit => format!("{} inserts of SQLite", amount.commits()),
        Work::StatusFirst => format!("git status of {} files, first", amount.small()),
        Work::StatusAgain => "git status again".to_owned(),
        Work::Clone => format!("git clone of {} files", amount.small()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bars(work: Work, measure: &Measure) -> Vec<Bar> {
        let mut bars = vec![against_sshfs(work, measure)];
        bars.extend(against_no_mount(work, measure));
        bars
    }

    #[test]
    fn what_somebody_could_not_do_has_no_bar() {
        let mut times = Times::new(Amount::Whole, Unit::Milliseconds);
        let failed = times
            .add(SSHFS, "write 50000000\nunpack failed: No such file")
            .unwrap();
        assert_eq!(failed, ["sshfs: unpack failed: No such file"]);
        times.add(OURS, "write 10000000\nunpack 1").unwrap();
        times.add(PLAIN, "write 9000000\nunpack 1").unwrap();
        assert!(times.add(OURS, "nonsense").is_err());
        let (measures, bars) = times.done(bars);
        assert_eq!(measures.len(), 2);
        assert_eq!(bars.len(), 1);
        assert_eq!(
            (bars[0].limit, bars[0].measured, bars[0].met),
            (5.0, 5.0, true)
        );
    }

    #[test]
    fn warm_work_is_compared_with_no_mount() {
        let mut times = Times::new(Amount::Third, Unit::Seconds);
        for (peer, nanos) in [(SSHFS, 300), (OURS, 100), (PLAIN, 40)] {
            times.add(peer, &format!("stat {nanos}")).unwrap();
        }
        let (_, bars) = times.done(bars);
        assert_eq!(
            bars.iter().map(|bar| bar.met).collect::<Vec<_>>(),
            [true, false]
        );
    }
}
