//! One line of a result: a number, what was measured beside it in the same run, and the aim.

use std::fmt;
use std::time::Duration;

use serde::Serialize;

/// What a number counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unit {
    /// Milliseconds.
    Ms,
    /// Microseconds.
    Us,
    /// 2^20 bytes.
    MiB,
    /// Hundredths of one core.
    Percent,
    /// Things.
    Count,
}

/// What a measurement should come to.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Aim {
    /// The value itself, in its unit.
    AtMost(f64),
    /// So many times what stands beside it.
    Ratio(f64),
}

/// One measurement.
#[derive(Debug, Clone, PartialEq)]
pub struct Row {
    /// Of what.
    pub name: String,
    /// How much.
    pub value: f64,
    /// Of which unit; also of what stands beside it.
    pub unit: Unit,
    /// Its floor or peer, measured in the same run: of what, and how much.
    pub beside: Option<(String, f64)>,
    /// What it should come to; none: it explains another row.
    pub aim: Option<Aim>,
}

/// Milliseconds.
pub fn ms(span: Duration) -> f64 {
    span.as_secs_f64() * 1000.0
}

impl Row {
    /// A number with nothing beside it.
    pub fn new(name: impl Into<String>, value: f64, unit: Unit) -> Self {
        Self { name: name.into(), value, unit, beside: None, aim: None }
    }

    /// A span of time.
    pub fn span(name: impl Into<String>, span: Duration) -> Self {
        Self::new(name, ms(span), Unit::Ms)
    }

    /// With this beside it.
    pub fn beside(self, what: impl Into<String>, value: f64) -> Self {
        Self { beside: Some((what.into(), value)), ..self }
    }

    /// With this span beside it.
    pub fn beside_span(self, what: impl Into<String>, span: Duration) -> Self {
        self.beside(what, ms(span))
    }

    /// With this aim.
    pub fn aim(self, aim: Aim) -> Self {
        Self { aim: Some(aim), ..self }
    }

    /// How many times what stands beside it; none if nothing does, or nothing measurable.
    pub fn ratio(&self) -> Option<f64> {
        let (_, beside) = self.beside.as_ref()?;
        (*beside > 0.0).then(|| self.value / beside)
    }

    /// Whether the aim is met; none without an aim. An aim at a ratio that cannot be had is not met.
    pub fn met(&self) -> Option<bool> {
        Some(match self.aim? {
            Aim::AtMost(most) => self.value <= most,
            Aim::Ratio(most) => self.ratio().is_some_and(|ratio| ratio <= most),
        })
    }

    /// The aim in words.
    pub fn aim_text(&self) -> Option<String> {
        Some(match self.aim? {
            Aim::AtMost(most) => format!("at most {most} {}", self.unit).trim_end().to_owned(),
            Aim::Ratio(most) => format!("at most {most} ×"),
        })
    }

    /// As one flat JSON object.
    pub fn line(&self) -> Line<'_> {
        let (beside, beside_value) = self.beside.as_ref().map(|(what, value)| (what.as_str(), *value)).unzip();
        Line {
            name: &self.name,
            value: self.value,
            unit: self.unit.name(),
            beside,
            beside_value,
            ratio: self.ratio(),
            aim: self.aim_text(),
            met: self.met(),
        }
    }
}

/// A row as it is printed with `--json`.
#[derive(Debug, Serialize)]
pub struct Line<'a> {
    name: &'a str,
    value: f64,
    unit: &'static str,
    beside: Option<&'a str>,
    beside_value: Option<f64>,
    ratio: Option<f64>,
    aim: Option<String>,
    met: Option<bool>,
}

impl Unit {
    fn name(self) -> &'static str {
        match self {
            Self::Ms => "ms",
            Self::Us => "µs",
            Self::MiB => "MiB",
            Self::Percent => "%",
            Self::Count => "",
        }
    }
}

impl fmt::Display for Unit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dark() -> Row {
        Row::span("dark", Duration::from_micros(4500)).beside_span("floor", Duration::from_micros(1500))
    }

    #[test]
    fn an_aim_is_met_by_the_value_or_by_the_ratio_as_it_says() {
        assert_eq!(dark().met(), None);
        assert_eq!(dark().aim(Aim::AtMost(4.5)).met(), Some(true));
        assert_eq!(dark().aim(Aim::AtMost(4.4)).met(), Some(false));
        assert_eq!(dark().aim(Aim::Ratio(3.0)).met(), Some(true));
        assert_eq!(dark().aim(Aim::Ratio(2.9)).met(), Some(false));
    }

    #[test]
    fn a_ratio_to_nothing_is_none_and_meets_no_aim() {
        let row = Row::new("cpu", 0.1, Unit::Percent).beside("a process that waits", 0.0).aim(Aim::Ratio(2.0));
        assert_eq!((row.ratio(), row.met()), (None, Some(false)));
        assert_eq!(Row::new("cpu", 0.1, Unit::Percent).ratio(), None);
    }

    #[test]
    fn the_json_line_has_all_eight_fields_whether_they_are_known_or_not() {
        let full = serde_json::to_value(dark().aim(Aim::AtMost(10.0)).line()).expect("json");
        let expected = serde_json::json!({
            "name": "dark", "value": 4.5, "unit": "ms", "beside": "floor", "beside_value": 1.5, "ratio": 3.0,
            "aim": "at most 10 ms", "met": true,
        });
        assert_eq!(full, expected);
        let bare = serde_json::to_value(Row::new("lost", 0.0, Unit::Count).line()).expect("json");
        assert_eq!(bare.as_object().map(serde_json::Map::len), Some(8));
        assert!(["beside", "beside_value", "ratio", "aim", "met"].iter().all(|field| bare[field].is_null()), "{bare}");
    }

    #[test]
    fn aims_are_said_with_their_unit() {
        let text = |row: Row, aim| row.aim(aim).aim_text().expect("an aim");
        assert_eq!(text(Row::new("rss", 9.0, Unit::MiB), Aim::AtMost(10.0)), "at most 10 MiB");
        assert_eq!(text(Row::new("lost", 0.0, Unit::Count), Aim::AtMost(0.0)), "at most 0");
        assert_eq!(text(dark(), Aim::Ratio(1.5)), "at most 1.5 ×");
    }
}
