//! The `[[drain.jobs]]` tables of the agent's config.

use std::collections::BTreeMap;
use std::time::Duration;

use handover_proto::assignment::{AtDeadline, DrainPolicy};
use serde::Deserialize;

use crate::duration::render;
use crate::probe::field::FieldPath;
use crate::probe::settings::{HttpCheck, RawHttp, default_status, http_check};

/// `[drain]`
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct DrainSettings {
    /// Where jobs are counted.
    pub jobs: Vec<JobsSettings>,
}

/// One place where jobs are counted.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(try_from = "Raw")]
pub struct JobsSettings {
    /// Its name, for people.
    pub name: String,
    /// What is asked.
    pub check: HttpCheck,
    /// Where in the answer the count stands.
    pub count: FieldPath,
    /// Where the age of the oldest stands, in milliseconds.
    pub oldest_ms: Option<FieldPath>,
    /// From the end of one look to the beginning of the next.
    pub interval: Duration,
    /// How long the service may take to answer.
    pub timeout: Duration,
    /// What holds instead of the assignment's drain policy.
    pub policy: Option<DrainPolicy>,
}

/// A `[[drain.jobs]]` that cannot work.
#[derive(Debug, thiserror::Error)]
pub enum JobsError {
    /// Part of the question is malformed.
    #[error("drain.jobs: {0}")]
    Question(String),
    /// A time that cannot be.
    #[error("drain.jobs {name}: {field} is {given}; {fix}")]
    Time {
        /// Which.
        name: String,
        /// Which field.
        field: &'static str,
        /// What was given.
        given: String,
        /// What would do.
        fix: &'static str,
    },
    /// Half a policy.
    #[error("drain.jobs {name}: give both deadline and at_deadline, or none: then the rollout's drain policy holds")]
    HalfPolicy {
        /// Which.
        name: String,
    },
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Raw {
    name: String,
    http: RawCount,
    #[serde(with = "crate::duration", default = "default_interval")]
    interval: Duration,
    #[serde(with = "crate::duration", default = "default_timeout")]
    timeout: Duration,
    #[serde(default)]
    deadline: Option<Span>,
    #[serde(default)]
    at_deadline: Option<AtDeadline>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawCount {
    path: String,
    port: Option<u16>,
    #[serde(default = "default_status")]
    status: u16,
    count: String,
    oldest_ms: Option<String>,
    #[serde(default)]
    headers: BTreeMap<String, String>,
}

#[derive(Deserialize)]
struct Span(#[serde(with = "crate::duration")] Duration);

/// A drain ends within about a second of its last job.
fn default_interval() -> Duration {
    Duration::from_secs(1)
}

fn default_timeout() -> Duration {
    Duration::from_millis(500)
}

impl TryFrom<Raw> for JobsSettings {
    type Error = JobsError;

    fn try_from(raw: Raw) -> Result<Self, JobsError> {
        let Raw { name, http, interval, timeout, deadline, at_deadline } = raw;
        let path = |path: String| FieldPath::try_from(path).map_err(|error| JobsError::Question(error.to_string()));
        let (count, oldest_ms) = (path(http.count)?, http.oldest_ms.map(path).transpose()?);
        let RawCount { path, port, status, headers, .. } = http;
        let question = RawHttp { path, port, status, headers, field: None, equals: None };
        let check = http_check(&name, question).map_err(|error| JobsError::Question(error.to_string()))?;
        let least = Duration::from_millis(10);
        if let Some((field, given)) =
            [("interval", interval), ("timeout", timeout)].into_iter().find(|(_, t)| *t < least)
        {
            return Err(JobsError::Time { name, field, given: render(given), fix: "give at least \"10ms\"" });
        }
        let policy = match (deadline, at_deadline) {
            (None, None) => None,
            (Some(Span(deadline)), Some(at_deadline)) => {
                let deadline_ms = u64::try_from(deadline.as_millis()).unwrap_or(u64::MAX);
                Some(DrainPolicy { deadline_ms, at_deadline, over_all: false })
            }
            _ => return Err(JobsError::HalfPolicy { name }),
        };
        Ok(Self { name, check, count, oldest_ms, interval, timeout, policy })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = r#"
        [[jobs]]
        name = "runs"
        http = { path = "/jobs", count = "in_flight", oldest_ms = "oldest.ms" }
        interval = "2s"
        timeout = "300ms"
        deadline = "30m"
        at_deadline = "cut"
    "#;

    fn parse(text: &str) -> Result<DrainSettings, String> {
        toml::from_str(text).map_err(|error| error.to_string())
    }

    #[test]
    fn everything_that_is_written_is_taken_and_little_is_enough() {
        let jobs = &parse(GOOD).expect("settings").jobs[0];
        assert_eq!((jobs.name.as_str(), jobs.check.path.as_str(), jobs.check.status), ("runs", "/jobs", 200));
        assert_eq!((jobs.count.to_string(), jobs.interval.as_millis()), ("in_flight".to_owned(), 2000));
        assert_eq!(jobs.oldest_ms.as_ref().map(ToString::to_string), Some("oldest.ms".to_owned()));
        assert_eq!(
            jobs.policy,
            Some(DrainPolicy { deadline_ms: 1_800_000, at_deadline: AtDeadline::Cut, over_all: false })
        );
        let short = parse("[[jobs]]\nname = \"x\"\nhttp = { path = \"/j\", count = \"n\" }").expect("settings");
        assert_eq!((short.jobs[0].policy, short.jobs[0].timeout.as_millis()), (None, 500));
        assert_eq!(parse("").expect("settings"), DrainSettings::default());
    }

    #[test]
    fn each_mistake_is_refused_with_its_name_and_the_fix() {
        for (from, to, expected) in [
            ("deadline = \"30m\"", "", "both deadline and at_deadline"),
            ("at_deadline = \"cut\"", "at_deadline = \"drop\"", "drop"),
            ("\"2s\"", "\"1ms\"", "interval is 1ms"),
            ("\"300ms\"", "\"0s\"", "timeout is 0s"),
            ("\"in_flight\"", "\"in..flight\"", "in..flight"),
            ("\"/jobs\"", "\"jobs\"", "begin it with /"),
            ("count =", "cuont =", "cuont"),
        ] {
            assert!(GOOD.contains(from), "{from}");
            let error = parse(&GOOD.replacen(from, to, 1)).expect_err(to);
            assert!(error.contains(expected), "{to}: {expected:?} is missing in {error}");
        }
    }
}
