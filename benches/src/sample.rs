//! Repeated measurements of one peer.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// What a value is counted in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Unit {
    /// Seconds.
    #[serde(rename = "s")]
    Seconds,
    /// Thousandths of a second.
    #[serde(rename = "ms")]
    Milliseconds,
    /// 10^6 bytes per second.
    #[serde(rename = "MB/s")]
    MegabytesPerSecond,
    /// 10^6 bytes.
    #[serde(rename = "MB")]
    Megabytes,
}

impl Unit {
    /// As it stands behind a number.
    #[must_use]
    pub const fn text(self) -> &'static str {
        match self {
            Self::Seconds => "s",
            Self::Milliseconds => "ms",
            Self::MegabytesPerSecond => "MB/s",
            Self::Megabytes => "MB",
        }
    }

    /// A duration in which `bytes` were moved, in this unit.
    #[must_use]
    #[expect(
        clippy::cast_precision_loss,
        reason = "no measurement has 52 significant bits"
    )]
    pub fn of(self, elapsed: Duration, bytes: u64) -> f64 {
        match self {
            Self::Seconds => elapsed.as_secs_f64(),
            Self::Milliseconds => elapsed.as_secs_f64() * 1e3,
            Self::MegabytesPerSecond => bytes as f64 / 1e6 / elapsed.as_secs_f64(),
            Self::Megabytes => bytes as f64 / 1e6,
        }
    }
}

/// The values of one peer, in the order in which they were measured.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Sample {
    /// Who was measured.
    pub peer: String,
    /// What came out.
    pub values: Vec<f64>,
}

impl Sample {
    /// Nothing measured yet.
    #[must_use]
    pub fn new(peer: impl Into<String>) -> Self {
        Self {
            peer: peer.into(),
            values: Vec::new(),
        }
    }

    /// The middle value, or the mean of the two in the middle; NaN without values.
    #[must_use]
    pub fn median(&self) -> f64 {
        let sorted = self.sorted();
        match sorted.len() {
            0 => f64::NAN,
            n if n % 2 == 1 => sorted[n / 2],
            n => f64::midpoint(sorted[n / 2 - 1], sorted[n / 2]),
        }
    }

    /// The value that so many of 100 do not exceed; NaN without values.
    #[must_use]
    pub fn percentile(&self, of_100: usize) -> f64 {
        let sorted = self.sorted();
        let rank = (sorted.len() * of_100).div_ceil(100);
        sorted
            .get(rank.saturating_sub(1))
            .copied()
            .unwrap_or(f64::NAN)
    }

    /// Smallest and largest value; NaN without values.
    #[must_use]
    pub fn range(&self) -> (f64, f64) {
        let sorted = self.sorted();
        let end = |value: Option<&f64>| value.copied().unwrap_or(f64::NAN);
        (end(sorted.first()), end(sorted.last()))
    }

    fn sorted(&self) -> Vec<f64> {
        let mut sorted = self.values.clone();
        sorted.sort_by(f64::total_cmp);
        sorted
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians() {
        let median = |values: &[f64]| {
            Sample {
                peer: String::new(),
                values: values.to_vec(),
            }
            .median()
        };
        assert!(median(&[]).is_nan());
        assert_eq!(median(&[3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(&[4.0, 1.0, 2.0, 3.0]), 2.5);
    }

    #[test]
    fn percentiles() {
        let sample = |count: u32| Sample {
            peer: String::new(),
            values: (1..=count).rev().map(f64::from).collect(),
        };
        assert!(sample(0).percentile(99).is_nan());
        assert_eq!(sample(1).percentile(99), 1.0);
        assert_eq!(sample(200).percentile(99), 198.0);
        assert_eq!(sample(201).percentile(99), 199.0);
    }
}
