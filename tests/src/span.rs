//! Spans of time as people write them: `"250ms"`, `"30s"`, `"1m 30s"`. A bare number is an error, because it has no unit.

use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// A text that is no span of time.
#[derive(Debug, thiserror::Error)]
#[error("{given:?} is not a span of time: write it with a unit, as 250ms, 30s or 5m")]
pub struct SpanError {
    given: String,
}

/// Parses a span; also a value parser for clap.
///
/// # Errors
/// [`SpanError`] for a text without units and for a negative span.
pub fn parse(text: &str) -> Result<Duration, SpanError> {
    let error = || SpanError { given: text.to_owned() };
    // jiff also reads ISO 8601 (`PT5S`); that is a second spelling for the same thing, so it is left out.
    let friendly = text.starts_with(|c: char| c.is_ascii_digit());
    let span = text.parse::<jiff::SignedDuration>().ok().filter(|_| friendly).ok_or_else(error)?;
    Duration::try_from(span).map_err(|_| error())
}

/// For `#[serde(deserialize_with)]` on an `Option<Duration>` field that has `#[serde(default)]`.
///
/// # Errors
/// As [`parse`].
pub fn optional<'de, D: Deserializer<'de>>(input: D) -> Result<Option<Duration>, D::Error> {
    let text = Option::<String>::deserialize(input)?;
    text.map(|text| parse(&text).map_err(de::Error::custom)).transpose()
}

/// A span in milliseconds, for people and for JSON fields that end in `_ms`.
pub fn ms(span: Duration) -> f64 {
    span.as_secs_f64() * 1000.0
}

/// For `#[serde(serialize_with)]` on a field whose name ends in `_ms`.
///
/// # Errors
/// Those of the output.
pub fn as_ms<S: Serializer>(span: &Duration, output: S) -> Result<S::Ok, S::Error> {
    output.serialize_f64(ms(*span))
}

/// As [`as_ms`], for a span that may be absent.
///
/// # Errors
/// Those of the output.
pub fn maybe_as_ms<S: Serializer>(span: &Option<Duration>, output: S) -> Result<S::Ok, S::Error> {
    span.map(ms).serialize(output)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_have_a_unit_and_are_never_negative() {
        assert_eq!(parse("250ms").expect("ms"), Duration::from_millis(250));
        assert_eq!(parse("0s").expect("none"), Duration::ZERO);
        assert_eq!(parse("1m 30s").expect("two units"), Duration::from_secs(90));
        for bad in ["5", "", "-1s", "PT5S", "soon", "5s ago"] {
            assert!(parse(bad).expect_err(bad).to_string().contains("unit"));
        }
    }
}
