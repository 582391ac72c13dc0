//! The TOML as it stands in the file, and its way into a [`Spec`].

use std::fmt;
use std::ops::Range;
use std::time::Duration;

use handover_proto::assignment::{AtDeadline, DrainPolicy};
use handover_proto::ids::{Service, Version};
use serde::de::{self, Deserialize, Deserializer};
use toml::Spanned;

use super::{Health, Rate, Rules, Spec, SpecError, Unmeasured, Way};
use crate::core::duration;

/// What is wrong, and where in the text.
pub(super) struct Wrong {
    span: Range<usize>,
    message: String,
}

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct RawSpec {
    service: Vec<Spanned<RawService>>,
    #[serde(default)]
    rollout: RawRollout,
    #[serde(default)]
    health: RawHealth,
    #[serde(default)]
    drain: RawDrain,
    #[serde(default)]
    lease: RawLease,
}

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct RawService {
    name: Service,
    version: Version,
    after: Option<Spanned<Vec<String>>>,
}

#[derive(serde::Deserialize, Default)]
#[serde(deny_unknown_fields)]
struct RawRollout {
    way: Option<Spanned<String>>,
    wave_size: Option<Spanned<usize>>,
    min_serving: Option<usize>,
    stage: Option<bool>,
    shift: Option<Spanned<Vec<Percent>>>,
    step_soak: Option<Span>,
    soak: Option<Span>,
    start_deadline: Option<Span>,
}

#[derive(serde::Deserialize, Default)]
#[serde(deny_unknown_fields)]
struct RawHealth {
    max_error_rate: Option<Percent>,
    dwell: Option<Span>,
    min_samples: Option<u64>,
    unready_dwell: Option<Span>,
    #[serde(default)]
    unmeasured: Unmeasured,
}

#[derive(serde::Deserialize, Default)]
#[serde(deny_unknown_fields)]
struct RawDrain {
    deadline: Option<Span>,
    at_deadline: Option<AtDeadline>,
}

#[derive(serde::Deserialize, Default)]
#[serde(deny_unknown_fields)]
struct RawLease {
    quiesce_timeout: Option<Span>,
    prefer_zone: Option<String>,
}

/// A duration as text.
struct Span(Duration);

/// A percentage as text, in hundredths of a percent.
#[derive(Clone, Copy)]
struct Percent(u32);

impl<'de> Deserialize<'de> for Span {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let wanted =
            Text { what: "a duration as text with a unit, such as \"30s\" or \"500ms\"", read: duration::parse };
        deserializer.deserialize_any(wanted).map(Self)
    }
}

impl<'de> Deserialize<'de> for Percent {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Text { what: "a percentage as text, such as \"25%\"", read: percent }).map(Self)
    }
}

/// Text with a unit; anything else is told what would do.
struct Text<T> {
    what: &'static str,
    read: fn(&str) -> Result<T, String>,
}

impl<T> de::Visitor<'_> for Text<T> {
    type Value = T;
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.what)
    }
    fn visit_str<E: de::Error>(self, text: &str) -> Result<T, E> {
        (self.read)(text).map_err(E::custom)
    }
}

fn percent(text: &str) -> Result<u32, String> {
    let wrong = || format!("{text:?} is not a percentage; write \"25%\", from \"0%\" to \"100%\"");
    let number = text.strip_suffix('%').ok_or_else(wrong)?;
    let (whole, part) = number.split_once('.').unwrap_or((number, "0"));
    let digits = |text: &str| !text.is_empty() && text.len() <= 3 && text.bytes().all(|b| b.is_ascii_digit());
    if !digits(whole) || !digits(part) || part.len() > 2 {
        return Err(wrong());
    }
    let hundredths = whole.parse::<u32>().map_err(|_| wrong())? * 100;
    let part = format!("{part:0<2}").parse::<u32>().map_err(|_| wrong())?;
    Some(hundredths + part).filter(|sum| *sum <= 10_000).ok_or_else(wrong)
}

/// Reads and checks.
pub(super) fn parse(text: &str) -> Result<Spec, Wrong> {
    let raw: RawSpec = toml::from_str(text)
        .map_err(|error| Wrong { span: error.span().unwrap_or(0..0), message: fixed(error.message()) })?;
    let service = the_service(raw.service)?;
    let rollout = raw.rollout;
    let way = way(rollout.way)?;
    let or = |given: Option<Span>, default_s: u64| given.map_or(Duration::from_secs(default_s), |span| span.0);
    Ok(Spec {
        service: service.name,
        version: service.version,
        way,
        wave_size: wave_size(rollout.wave_size)?,
        min_serving: rollout.min_serving,
        stage: rollout.stage,
        shift: shift(rollout.shift, way)?,
        step_soak: or(rollout.step_soak, 2),
        soak: or(rollout.soak, 30),
        rules: Rules {
            start_deadline: or(rollout.start_deadline, 60),
            health: Health {
                max_error_rate: Rate { basis_points: raw.health.max_error_rate.map_or(500, |percent| percent.0) },
                dwell: or(raw.health.dwell, 3),
                min_samples: raw.health.min_samples.unwrap_or(50),
                unready_dwell: or(raw.health.unready_dwell, 2),
                unmeasured: raw.health.unmeasured,
            },
            drain: DrainPolicy {
                deadline_ms: duration::millis(or(raw.drain.deadline, 30)),
                at_deadline: raw.drain.at_deadline.unwrap_or(AtDeadline::Wait),
                over_all: false,
            },
            quiesce_timeout: or(raw.lease.quiesce_timeout, 30),
            prefer_zone: raw.lease.prefer_zone,
        },
    })
}

/// The parser's words, with the way out where it does not say it.
fn fixed(message: &str) -> String {
    let message = message.lines().collect::<Vec<_>>().join("; ");
    if message.starts_with("unknown field") { format!("{message}; correct or delete the line") } else { message }
}

fn the_service(services: Vec<Spanned<RawService>>) -> Result<RawService, Wrong> {
    let mut services = services.into_iter();
    let Some(first) = services.next() else {
        return Err(Wrong { span: 0..0, message: "name a service: [[service]] with name and version".into() });
    };
    if let Some(second) = services.next() {
        let message = "more than one [[service]] in a rollout comes later; give each its own spec, and start them one \
                       after the other";
        return Err(Wrong { span: second.span(), message: message.into() });
    }
    let service = first.into_inner();
    match &service.after {
        Some(after) if !after.get_ref().is_empty() => {
            let message = "an order among services needs more than one, which comes later; leave it out or empty";
            Err(Wrong { span: after.span(), message: message.into() })
        }
        _ => Ok(service),
    }
}

fn way(given: Option<Spanned<String>>) -> Result<Way, Wrong> {
    let Some(given) = given else { return Ok(Way::StartFirst) };
    let message = match given.get_ref().as_str() {
        "start-first" => return Ok(Way::StartFirst),
        "stop-first" => return Ok(Way::StopFirst),
        "fresh" => "the way \"fresh\" comes later; use \"start-first\" or \"stop-first\"".to_owned(),
        other => format!("there is no way {other:?}; use \"start-first\" or \"stop-first\""),
    };
    Err(Wrong { span: given.span(), message })
}

fn wave_size(given: Option<Spanned<usize>>) -> Result<usize, Wrong> {
    match given {
        None => Ok(1),
        Some(size) if *size.get_ref() == 0 => {
            Err(Wrong { span: size.span(), message: "a wave of no hosts changes nothing; write 1 or more".into() })
        }
        Some(size) => Ok(size.into_inner()),
    }
}

fn shift(given: Option<Spanned<Vec<Percent>>>, way: Way) -> Result<Vec<u32>, Wrong> {
    let Some(given) = given else { return Ok(vec![25, 100]) };
    if way == Way::StopFirst {
        let message = "stop-first has one version on a host at a time, and no shares to shift; delete the line";
        return Err(Wrong { span: given.span(), message: message.into() });
    }
    let shares: Vec<u32> = given.get_ref().iter().map(|percent| percent.0).collect();
    let grows = shares.is_sorted_by(|a, b| a < b) && shares.first() > Some(&0) && shares.last() == Some(&10_000);
    if !grows || shares.iter().any(|share| share % 100 != 0) {
        let message = "the shares of the reads have to be whole, grow, and end with 100 %: write [\"25%\", \"100%\"]";
        return Err(Wrong { span: given.span(), message: message.into() });
    }
    Ok(shares.into_iter().map(|share| share / 100).collect())
}

impl Wrong {
    /// With file, line and field, as the operator sees it.
    pub(super) fn at(self, file: &str, text: &str) -> SpecError {
        let start = self.span.start.min(text.len());
        let before = text.get(..start).unwrap_or_default();
        let line = before.matches('\n').count();
        let field = text.lines().nth(line).and_then(|line| line.split_once('='));
        let field = field.map(|(key, _)| key.trim().to_owned()).unwrap_or_default();
        SpecError { file: file.to_owned(), line: line + 1, field, message: self.message }
    }
}
