//! Sizes in bytes, written the way people write them.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

/// A number of bytes.
///
/// Text without a unit counts GiB, as Colima's `--memory` and `--disk` do; `512MiB`, `2.5GiB`,
/// `1TiB`, `4096KiB` and `10B` name their unit (the `iB` may be left out, case does not matter, and
/// every unit is a power of 1024).
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Bytes(u64);

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;
const TIB: u64 = 1 << 40;

impl Bytes {
    /// Exactly `n` bytes.
    #[must_use]
    pub const fn new(n: u64) -> Self {
        Self(n)
    }

    /// `n` KiB, saturating.
    #[must_use]
    pub const fn kib(n: u64) -> Self {
        Self(n.saturating_mul(KIB))
    }

    /// `n` MiB, saturating.
    #[must_use]
    pub const fn mib(n: u64) -> Self {
        Self(n.saturating_mul(MIB))
    }

    /// `n` GiB, saturating.
    #[must_use]
    pub const fn gib(n: u64) -> Self {
        Self(n.saturating_mul(GIB))
    }

    /// The count in bytes.
    #[must_use]
    pub const fn get(self) -> u64 {
        self.0
    }

    /// Whole MiB, rounded down.
    #[must_use]
    pub const fn whole_mib(self) -> u64 {
        self.0 / MIB
    }
}

const UNITS: [(u64, &str); 4] = [(TIB, "TiB"), (GIB, "GiB"), (MIB, "MiB"), (KIB, "KiB")];

impl Bytes {
    /// The size as a text that parses back to the same number of bytes, in the shortest form there is.
    #[must_use]
    pub fn exact(self) -> String {
        for (unit, name) in UNITS {
            // Tenths of a unit are tidy only where they are whole bytes.
            if self.0 >= unit && (u128::from(self.0) * 10).is_multiple_of(u128::from(unit)) {
                return decimal(u128::from(self.0) * 10 / u128::from(unit), 1, name);
            }
        }
        // What was typed as a decimal number of GiB, rounded down to a byte: 0.1 is 107374182 bytes.
        let typed = (1..=6).filter(|_| self.0 > 0).find_map(|decimals| {
            let scale = 10_u128.pow(decimals);
            let parts = (u128::from(self.0) * scale).div_ceil(u128::from(GIB));
            let text = decimal(parts, decimals, "GiB");
            (text.parse() == Ok(self)).then_some(text)
        });
        typed.unwrap_or_else(|| format!("{}B", self.0))
    }
}

/// `parts` tenths, hundredths and so on, without zeros at the end.
fn decimal(parts: u128, decimals: u32, unit: &str) -> String {
    let scale = 10_u128.pow(decimals);
    let (whole, rest) = (parts / scale, parts % scale);
    let width = usize::try_from(decimals).unwrap_or_default();
    let rest = format!("{rest:0width$}");
    match rest.trim_end_matches('0') {
        "" => format!("{whole}{unit}"),
        rest => format!("{whole}.{rest}{unit}"),
    }
}

/// Prints the size for people, in the largest unit and rounded to a tenth: `2GiB`, `2.5GiB`, `102.4MiB`, `17B`.
///
/// [`Bytes::exact`] is the form that parses back.
impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (unit, name) in UNITS {
            // What would be shown as 1024 of the smaller unit is one of the larger.
            let smaller_rounding = unit / 1024 / 20;
            if self.0.saturating_add(smaller_rounding) >= unit {
                let tenths = (u128::from(self.0) * 10 + u128::from(unit / 2)) / u128::from(unit);
                return f.write_str(&decimal(tenths, 1, name));
            }
        }
        write!(f, "{}B", self.0)
    }
}

/// Why a text is not a size.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not a size: {reason}")]
pub struct ParseBytesError {
    /// The text that was given.
    pub text: String,
    /// What is wrong with it, and the right form.
    pub reason: &'static str,
}

impl FromStr for Bytes {
    type Err = ParseBytesError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let fail = |reason| ParseBytesError {
            text: text.to_owned(),
            reason,
        };
        let split = text
            .find(|c: char| !c.is_ascii_digit() && c != '.')
            .unwrap_or(text.len());
        let (number, unit) = text.split_at(split);
        let factor = match unit.trim_start().to_ascii_lowercase().as_str() {
            "b" => 1,
            "k" | "kb" | "kib" => KIB,
            "m" | "mb" | "mib" => MIB,
            "" | "g" | "gb" | "gib" => GIB,
            "t" | "tb" | "tib" => TIB,
            _ => {
                return Err(fail(
                    "write a number with B, KiB, MiB, GiB or TiB, such as 2.5GiB",
                ));
            }
        };
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        if whole.is_empty() || (number.contains('.') && fraction.is_empty()) {
            return Err(fail("it starts with a number, such as 2 or 2.5GiB"));
        }
        if fraction.len() > 9 || fraction.contains('.') {
            return Err(fail("at most one decimal point and nine decimals"));
        }
        let too_large = || fail("it is larger than 16 EiB");
        let whole: u64 = whole.parse().map_err(|_| too_large())?;
        let bytes = whole.checked_mul(factor).ok_or_else(too_large)?;
        let scale = 10_u128.pow(u32::try_from(fraction.len()).unwrap_or(9));
        let parts: u128 = if fraction.is_empty() {
            0
        } else {
            fraction.parse().unwrap_or(0)
        };
        // Rounded down to whole bytes; below one TiB, so it fits.
        let rest = u64::try_from(parts * u128::from(factor) / scale).map_err(|_| too_large())?;
        bytes.checked_add(rest).map(Self).ok_or_else(too_large)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_forms_people_type() {
        for (text, bytes) in [
            ("2", Bytes::gib(2)),
            ("2.5", Bytes::mib(2560)),
            ("0.5", Bytes::mib(512)),
            ("512MiB", Bytes::mib(512)),
            ("512m", Bytes::mib(512)),
            ("100 GiB", Bytes::gib(100)),
            ("1.5TB", Bytes::gib(1536)),
            ("7B", Bytes::new(7)),
            ("0", Bytes::new(0)),
        ] {
            assert_eq!(text.parse::<Bytes>().as_ref(), Ok(&bytes), "{text}");
        }
    }

    #[test]
    fn what_is_shown() {
        for (bytes, shown, exact) in [
            (2 << 30, "2GiB", "2GiB"),
            (5 << 29, "2.5GiB", "2.5GiB"),
            (107_374_182, "102.4MiB", "0.1GiB"),
            (1_234_567, "1.2MiB", "1234567B"),
            (1_000_000 << 10, "976.6MiB", "1000000KiB"),
            ((1 << 30) - 1, "1GiB", "1073741823B"),
            (1000 << 20, "1000MiB", "1000MiB"),
            (1023, "1023B", "1023B"),
            (0, "0B", "0B"),
        ] {
            let size = Bytes::new(bytes);
            assert_eq!(
                (size.to_string().as_str(), size.exact().as_str()),
                (shown, exact)
            );
        }
    }

    #[test]
    fn what_is_refused() {
        for text in [
            "",
            "GiB",
            "-1",
            "2,5",
            "1.",
            ".5",
            "1.2.3",
            "1e3",
            "2XB",
            "99999999999999999999",
        ] {
            assert!(text.parse::<Bytes>().is_err(), "{text}");
        }
        let error = "4 bananas".parse::<Bytes>().unwrap_err();
        assert_eq!(
            error.to_string(),
            "\"4 bananas\" is not a size: write a number with B, KiB, MiB, GiB or TiB, such as 2.5GiB"
        );
    }

    proptest! {
        #[test]
        fn the_exact_form_parses_back(n in any::<u64>()) {
            prop_assert_eq!(Bytes::new(n).exact().parse::<Bytes>().unwrap(), Bytes::new(n));
        }

        #[test]
        fn what_is_shown_is_near(n in any::<u64>()) {
            // Just below 16 EiB the rounded text is too large to be read.
            if let Ok(shown) = Bytes::new(n).to_string().parse::<Bytes>() {
                prop_assert!(shown.get().abs_diff(n) <= n / 20 + 1, "{} for {}", shown, n);
            }
        }

        #[test]
        fn tidy_sizes_parse_back(n in 0_u64..1 << 40, shift in 0_u32..20) {
            let size = Bytes::new(n << shift);
            prop_assert_eq!(size.exact().parse::<Bytes>().unwrap(), size);
        }

        #[test]
        fn any_text_is_answered(text in ".{0,24}") {
            let _ = text.parse::<Bytes>();
        }
    }
}
