//! The `[[probe]]` tables of the agent's config.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use http::{HeaderName, HeaderValue};
use serde::Deserialize;
use serde_json::Value;

pub use self::error::ProbeSettingsError;
use super::field::FieldPath;
use crate::driver::Template;
use crate::duration::render;

mod error;

/// One probe, which keeps the condition of the same name.
///
/// ```toml
/// [[probe]]
/// name = "schema-gate-active"
/// affects = "ready"
/// http = { path = "/ready", field = "schema.gate", equals = "active" }
/// interval = "1s"
/// timeout = "500ms"
/// fall = 3
/// ```
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(try_from = "Raw")]
pub struct ProbeSettings {
    /// Name of the condition.
    pub name: String,
    /// What is looked at.
    pub check: Check,
    /// From the end of one look to the beginning of the next.
    pub interval: Duration,
    /// The same until the condition is met for the first time.
    pub start_interval: Duration,
    /// How long the service may take to answer; at most `interval`.
    pub timeout: Duration,
    /// Good readings in a row that make it met; at least 1.
    pub rise: u32,
    /// Bad readings in a row that make it unmet; at least 1.
    pub fall: u32,
    /// What follows from it.
    pub affects: Affects,
}

/// What a condition is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Affects {
    /// Unmet, the instance gets no traffic.
    Ready,
    /// Unmet, the instance is not alive.
    Live,
    /// It is shown, and nothing else.
    Report,
}

/// How to look.
#[derive(Debug, Clone, PartialEq)]
pub enum Check {
    /// GET over HTTP/1.1.
    Http(HttpCheck),
    /// A connection is accepted.
    Tcp(TcpCheck),
    /// A command ends with code 0.
    Exec(ExecCheck),
}

/// `http = { … }`
#[derive(Debug, Clone, PartialEq)]
pub struct HttpCheck {
    /// Path and query, begins with `/`.
    pub path: String,
    /// The slot's port if none is given.
    pub port: Option<u16>,
    /// The status that is good.
    pub status: u16,
    /// A field of the JSON body and what it must be.
    pub field: Option<(FieldPath, Value)>,
    /// Added to the request.
    pub headers: Vec<(HeaderName, HeaderValue)>,
}

/// `tcp = { … }`
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TcpCheck {
    /// The slot's port if none is given.
    pub port: Option<u16>,
}

/// `exec = { … }`
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExecCheck {
    /// Program and arguments, with the placeholders of the driver's command.
    pub command: Vec<Template>,
}

/// What only shows when all probes are seen together.
///
/// # Errors
/// When two have one name, or none decides readiness.
pub fn check_together(probes: &[ProbeSettings]) -> Result<(), ProbeSettingsError> {
    let mut names = BTreeSet::new();
    if let Some(twice) = probes.iter().find(|probe| !names.insert(&probe.name)) {
        return Err(ProbeSettingsError::Twice { name: twice.name.clone() });
    }
    match probes.iter().any(|probe| probe.affects == Affects::Ready) {
        true => Ok(()),
        false => Err(ProbeSettingsError::NothingForReady),
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Raw {
    name: String,
    http: Option<RawHttp>,
    tcp: Option<TcpCheck>,
    exec: Option<ExecCheck>,
    #[serde(with = "crate::duration", default = "default_interval")]
    interval: Duration,
    #[serde(default)]
    start_interval: Option<Interval>,
    #[serde(default)]
    timeout: Option<Interval>,
    #[serde(default = "default_rise")]
    rise: u32,
    #[serde(default = "default_fall")]
    fall: u32,
    affects: Affects,
}

#[derive(Deserialize)]
struct Interval(#[serde(with = "crate::duration")] Duration);

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawHttp {
    pub(super) path: String,
    pub(super) port: Option<u16>,
    #[serde(default = "default_status")]
    pub(super) status: u16,
    pub(super) field: Option<String>,
    pub(super) equals: Option<Value>,
    #[serde(default)]
    pub(super) headers: BTreeMap<String, String>,
}

/// With `fall = 3` an instance that stops answering is out after about three seconds.
fn default_interval() -> Duration {
    Duration::from_secs(1)
}

/// Quick enough that a start waits for the service and not for us; twenty small requests a second for its duration.
const START_INTERVAL: Duration = Duration::from_millis(50);

/// A service that takes longer for its readiness than this is not ready.
const TIMEOUT: Duration = Duration::from_millis(500);

fn default_rise() -> u32 {
    1
}

/// One lost reading is no reason to take an instance out.
fn default_fall() -> u32 {
    3
}

pub(super) fn default_status() -> u16 {
    200
}

impl TryFrom<Raw> for ProbeSettings {
    type Error = ProbeSettingsError;

    fn try_from(raw: Raw) -> Result<Self, ProbeSettingsError> {
        let name = raw.name;
        let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
        if name.is_empty() || name.len() > 64 || !name.chars().all(allowed) {
            return Err(ProbeSettingsError::Name { name });
        }
        let given = usize::from(raw.http.is_some()) + usize::from(raw.tcp.is_some()) + usize::from(raw.exec.is_some());
        let check = match (raw.http, raw.tcp, raw.exec) {
            (Some(http), None, None) => Check::Http(http_check(&name, http)?),
            (None, Some(tcp), None) => Check::Tcp(tcp),
            (None, None, Some(exec)) if exec.command.is_empty() => {
                return Err(ProbeSettingsError::NoCommand { name });
            }
            (None, None, Some(exec)) => Check::Exec(exec),
            _ => return Err(ProbeSettingsError::Kind { name, given }),
        };
        let interval = raw.interval;
        let settings = Self {
            name,
            check,
            interval,
            start_interval: raw.start_interval.map_or(interval.min(START_INTERVAL), |given| given.0),
            timeout: raw.timeout.map_or(interval.min(TIMEOUT), |given| given.0),
            rise: raw.rise,
            fall: raw.fall,
            affects: raw.affects,
        };
        settings.check_numbers()?;
        Ok(settings)
    }
}

impl ProbeSettings {
    fn check_numbers(&self) -> Result<(), ProbeSettingsError> {
        let name = || self.name.clone();
        for (field, is_zero, least) in [
            ("interval", self.interval.is_zero(), "\"10ms\""),
            ("start_interval", self.start_interval.is_zero(), "\"10ms\""),
            ("timeout", self.timeout.is_zero(), "\"10ms\""),
            ("rise", self.rise == 0, "1"),
            ("fall", self.fall == 0, "1"),
        ] {
            if is_zero {
                return Err(ProbeSettingsError::Zero { name: name(), field, least });
            }
        }
        let interval = render(self.interval);
        if self.timeout > self.interval {
            let timeout = render(self.timeout);
            return Err(ProbeSettingsError::TimeoutOverInterval { name: name(), timeout, interval });
        }
        if self.start_interval > self.interval {
            let start_interval = render(self.start_interval);
            return Err(ProbeSettingsError::StartOverInterval { name: name(), start_interval, interval });
        }
        Ok(())
    }
}

pub(super) fn http_check(name: &str, raw: RawHttp) -> Result<HttpCheck, ProbeSettingsError> {
    let wrong = |what, given: &str, rule| {
        let (name, given) = (name.to_owned(), given.to_owned());
        ProbeSettingsError::Request { name, what, given, rule }
    };
    if !raw.path.starts_with('/') || raw.path.parse::<http::Uri>().is_err() {
        return Err(wrong("path", &raw.path, "is not the path of a URL; begin it with / and percent-encode blanks"));
    }
    if !(100..=999).contains(&raw.status) {
        return Err(wrong("status", &raw.status.to_string(), "is no HTTP status; use three digits such as 200"));
    }
    let field = match (raw.field, raw.equals) {
        (None, None) => None,
        (None, Some(_)) => return Err(ProbeSettingsError::EqualsWithoutField { name: name.to_owned() }),
        (Some(field), equals) => {
            let path = FieldPath::try_from(field)
                .map_err(|source| ProbeSettingsError::Field { name: name.to_owned(), source })?;
            Some((path, equals.unwrap_or(Value::Bool(true))))
        }
    };
    let mut headers = Vec::new();
    for (header, value) in raw.headers {
        let parsed_name =
            header.parse().map_err(|_| wrong("header name", &header, "holds characters that no name may"))?;
        let parsed = value.parse().map_err(|_| wrong("header value", &value, "holds characters that no value may"))?;
        headers.push((parsed_name, parsed));
    }
    Ok(HttpCheck { path: raw.path, port: raw.port, status: raw.status, field, headers })
}

#[cfg(test)]
mod tests;
