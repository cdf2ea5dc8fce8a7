//! What `qemu-img check` found: its exit status and its JSON.

use serde::Deserialize;

/// What [`check`](crate::QemuImg::check) may change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Repair {
    /// Only look.
    Nothing,
    /// Give back clusters that nothing refers to; this cannot lose data.
    Leaks,
    /// Repair damage as well. It may choose wrongly: make a copy first.
    Everything,
}

/// What the check found (after repairs, where it made some).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Verdict {
    /// The image is consistent.
    Clean,
    /// Some space is wasted; the data is whole.
    Leaks,
    /// The image is damaged.
    Corrupt,
}

/// The result of a check that ran to its end.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct CheckReport {
    /// The whole in one word.
    pub verdict: Verdict,
    /// Damages that are there.
    pub corruptions: u64,
    /// Leaked clusters that are there.
    pub leaks: u64,
    /// Damages that were there and have been repaired.
    pub corruptions_fixed: u64,
    /// Leaked clusters that were there and have been given back.
    pub leaks_fixed: u64,
    /// Offset of the first byte behind the last used cluster, where the format tells it.
    pub image_end_offset: Option<u64>,
    /// Clusters that the virtual size counts, where the format tells it.
    pub total_clusters: Option<u64>,
    /// Clusters that hold data, where the format tells it.
    pub allocated_clusters: Option<u64>,
    /// What the program said about single findings, at most 64 KiB.
    pub diagnostics: String,
}

/// The exit statuses that the manual of `qemu-img` lists for `check`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CheckExit {
    /// 0, 2 and 3: the check ran.
    Completed(Verdict),
    /// 1: it did not run to its end.
    Incomplete,
    /// 63: the format has no checks.
    Unsupported,
    /// A status that is not in the manual, or a signal.
    Unknown,
}

impl CheckExit {
    /// From the exit code, which a process ended by a signal does not have.
    pub(crate) const fn from_code(code: Option<i32>) -> Self {
        match code {
            Some(0) => Self::Completed(Verdict::Clean),
            Some(1) => Self::Incomplete,
            Some(2) => Self::Completed(Verdict::Corrupt),
            Some(3) => Self::Completed(Verdict::Leaks),
            Some(63) => Self::Unsupported,
            Some(_) | None => Self::Unknown,
        }
    }
}

/// `ImageCheck` of QEMU's qapi/block-core.json; counts that are zero are left out.
#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct ImageCheck {
    #[serde(default)]
    corruptions: u64,
    #[serde(default)]
    leaks: u64,
    #[serde(default)]
    corruptions_fixed: u64,
    #[serde(default)]
    leaks_fixed: u64,
    image_end_offset: Option<u64>,
    total_clusters: Option<u64>,
    allocated_clusters: Option<u64>,
}

pub(crate) fn parse(
    verdict: Verdict,
    stdout: &[u8],
    diagnostics: String,
) -> Result<CheckReport, serde_json::Error> {
    let check: ImageCheck = serde_json::from_slice(stdout)?;
    Ok(CheckReport {
        verdict,
        corruptions: check.corruptions,
        leaks: check.leaks,
        corruptions_fixed: check.corruptions_fixed,
        leaks_fixed: check.leaks_fixed,
        image_end_offset: check.image_end_offset,
        total_clusters: check.total_clusters,
        allocated_clusters: check.allocated_clusters,
        diagnostics,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_exit_status_of_the_manual() {
        for (code, exit) in [
            (Some(0), CheckExit::Completed(Verdict::Clean)),
            (Some(1), CheckExit::Incomplete),
            (Some(2), CheckExit::Completed(Verdict::Corrupt)),
            (Some(3), CheckExit::Completed(Verdict::Leaks)),
            (Some(63), CheckExit::Unsupported),
            (Some(4), CheckExit::Unknown),
            (None, CheckExit::Unknown),
        ] {
            assert_eq!(CheckExit::from_code(code), exit);
        }
    }

    #[test]
    fn counts_that_are_left_out_are_zero() {
        let stdout = br#"{"image-end-offset": 1376256, "total-clusters": 160, "corruptions": 1,
            "check-errors": 0, "leaks": 2, "allocated-clusters": 15, "filename": "c.qcow2",
            "format": "qcow2", "fragmented-clusters": 1}"#;
        insta::assert_debug_snapshot!(parse(Verdict::Corrupt, stdout, String::new()).unwrap());
    }
}
