//! Durations: as an operator writes them (`"30s"`), and as plans hold them (`_ms` numbers).

use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// The units, longest first: rendering takes the first that divides the value.
const UNITS: [(&str, u64); 4] = [("h", 3_600_000), ("m", 60_000), ("s", 1000), ("ms", 1)];

/// Reads `"30s"`: a whole number and one of `ms`, `s`, `m`, `h`.
///
/// # Errors
/// One sentence that says what to write instead.
pub fn parse(text: &str) -> Result<Duration, String> {
    let split = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (digits, unit) = text.split_at(split);
    if unit.is_empty() || digits.is_empty() {
        return Err(format!("{text:?} is not a duration; write a number and a unit, such as \"30s\" or \"500ms\""));
    }
    let Some((_, unit_ms)) = UNITS.iter().find(|(name, _)| *name == unit) else {
        return Err(format!("{text:?} has the unknown unit {unit:?}; use ms, s, m or h, without fractions"));
    };
    let ms = digits.parse::<u64>().ok().and_then(|number| number.checked_mul(*unit_ms));
    ms.map(Duration::from_millis).ok_or_else(|| format!("{text:?} is too long"))
}

/// As [`parse`] reads it; below a millisecond is cut off.
pub fn text(duration: Duration) -> String {
    let ms = millis(duration);
    if ms == 0 {
        return "0s".to_owned();
    }
    let unit = UNITS.iter().find(|(_, unit_ms)| ms.is_multiple_of(*unit_ms));
    unit.map_or_else(|| format!("{ms}ms"), |(unit, unit_ms)| format!("{}{unit}", ms / unit_ms))
}

/// In milliseconds; longer than 500 million years is as long as that.
pub fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// For `serde(with)`: as a number of milliseconds.
///
/// # Errors
/// Those of the serializer.
pub fn serialize<S: Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    millis(*duration).serialize(serializer)
}

/// For `serde(with)`: from a number of milliseconds.
///
/// # Errors
/// If it is no such number.
pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    u64::deserialize(deserializer).map(Duration::from_millis)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_back() {
        for (given, ms) in [("500ms", 500), ("30s", 30_000), ("2m", 120_000), ("1h", 3_600_000), ("0s", 0)] {
            assert_eq!(parse(given), Ok(Duration::from_millis(ms)), "{given}");
            assert_eq!(text(Duration::from_millis(ms)), given);
        }
        assert_eq!(text(Duration::from_millis(1500)), "1500ms");
    }

    #[test]
    fn what_has_no_unit_a_wrong_one_or_too_many_digits_is_refused() {
        for bad in ["", "30", "s", "-1s", "1.5s", "3 weeks", "1m30s", "99999999999999999999s", "18446744073709551615h"]
        {
            parse(bad).expect_err(bad);
        }
    }
}
