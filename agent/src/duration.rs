//! Durations as people write them in a config: `"30s"`, `"500ms"`, `"2m"`, `"1h"`.
//!
//! Use as `#[serde(with = "crate::duration")]`. A bare number is refused, because nobody can tell what it counts; the
//! message says what to write instead.

use std::fmt;
use std::time::Duration;

use serde::{Deserializer, Serializer, de};

/// A text that is not a duration; the message says what to write.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{given:?} is not a duration: {fix}")]
pub struct DurationError {
    given: String,
    fix: String,
}

/// The units, longest first: rendering takes the first that divides the value.
const UNITS: [(&str, u64); 5] = [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1000), ("ms", 1)];

/// Reads `"30s"`: a whole number and one of `ms`, `s`, `m`, `h`, `d`.
///
/// # Errors
/// When the unit is missing or unknown, or the number is not whole or too large.
pub fn parse(text: &str) -> Result<Duration, DurationError> {
    let wrong = |fix: String| DurationError { given: text.to_owned(), fix };
    let split = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (digits, unit) = (&text[..split], text[split..].trim_start());
    if digits.is_empty() {
        return Err(wrong("write a whole number and a unit, such as \"30s\" or \"500ms\"".to_owned()));
    }
    if unit.is_empty() {
        return Err(wrong(missing_unit(digits)));
    }
    let Some((_, unit_ms)) = UNITS.iter().find(|(name, _)| *name == unit) else {
        return Err(wrong(format!("the unit {unit:?} is unknown; use ms, s, m, h or d, and no fractions")));
    };
    let ms = digits.parse::<u64>().ok().and_then(|n| n.checked_mul(*unit_ms));
    ms.map(Duration::from_millis).ok_or_else(|| wrong("the number is too large".to_owned()))
}

/// The shortest text that [`parse`] reads back; below a millisecond is cut off.
pub fn render(duration: Duration) -> String {
    let ms = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    if ms == 0 {
        return "0s".to_owned();
    }
    let fits = UNITS.iter().find(|(_, unit_ms)| ms.is_multiple_of(*unit_ms));
    fits.map_or_else(|| format!("{ms}ms"), |(unit, unit_ms)| format!("{}{unit}", ms / unit_ms))
}

fn missing_unit(digits: &str) -> String {
    format!("it has no unit; write \"{digits}s\" for seconds or \"{digits}ms\" for milliseconds")
}

/// For `serde(with)`.
///
/// # Errors
/// Those of the serializer.
pub fn serialize<S: Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&render(*duration))
}

/// For `serde(with)`.
///
/// # Errors
/// When the value is no text that [`parse`] accepts; a bare number is told its missing unit.
pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    struct Text;
    impl de::Visitor<'_> for Text {
        type Value = Duration;
        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a duration such as \"30s\"")
        }
        fn visit_str<E: de::Error>(self, text: &str) -> Result<Duration, E> {
            parse(text).map_err(E::custom)
        }
        fn visit_i64<E: de::Error>(self, number: i64) -> Result<Duration, E> {
            Err(E::custom(format!("{number} is not a duration: {}", missing_unit(&number.to_string()))))
        }
        fn visit_u64<E: de::Error>(self, number: u64) -> Result<Duration, E> {
            Err(E::custom(format!("{number} is not a duration: {}", missing_unit(&number.to_string()))))
        }
    }
    deserializer.deserialize_any(Text)
}

/// For `serde(with)` on an `Option<Duration>` that is left out when there is none; add `serde(default)`.
pub mod optional {
    use std::time::Duration;

    use serde::{Deserializer, Serializer};

    /// For `serde(with)`.
    ///
    /// # Errors
    /// Those of the serializer.
    pub fn serialize<S: Serializer>(duration: &Option<Duration>, serializer: S) -> Result<S::Ok, S::Error> {
        match duration {
            Some(duration) => super::serialize(duration, serializer),
            None => serializer.serialize_none(),
        }
    }

    /// For `serde(with)`.
    ///
    /// # Errors
    /// As [`super::deserialize`].
    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Duration>, D::Error> {
        super::deserialize(deserializer).map(Some)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, PartialEq, serde::Serialize, serde::Deserialize)]
    struct Config {
        #[serde(with = "crate::duration")]
        wait: Duration,
    }

    #[test]
    fn what_is_written_is_read_back() {
        for (text, ms) in
            [("500ms", 500), ("30s", 30_000), ("2m", 120_000), ("1h", 3_600_000), ("0s", 0), ("7d", 604_800_000)]
        {
            assert_eq!(parse(text), Ok(Duration::from_millis(ms)), "{text}");
            assert_eq!(render(Duration::from_millis(ms)), text);
        }
        assert_eq!(render(Duration::from_millis(1500)), "1500ms");
        assert_eq!(parse("30 s"), Ok(Duration::from_secs(30)));
    }

    #[test]
    fn a_bare_number_is_refused_with_the_fix_in_the_message() {
        for config in ["wait = 30", "wait = \"30\""] {
            let error = toml::from_str::<Config>(config).expect_err(config).to_string();
            assert!(error.contains("write \"30s\""), "{error}");
        }
        assert_eq!(toml::from_str::<Config>("wait = \"30s\"").expect("a config").wait, Duration::from_secs(30));
    }

    #[test]
    fn fractions_signs_unknown_units_and_overflow_are_refused() {
        for bad in ["", "s", "-1s", "1.5s", "3 weeks", "1m30s", "99999999999999999999s", "18446744073709551615d"] {
            parse(bad).expect_err(bad);
        }
    }
}
