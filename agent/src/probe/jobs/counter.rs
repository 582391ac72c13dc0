//! Asks, again and again, and keeps the last answer.

use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;
use serde_json::Value;
use tokio::sync::{Notify, watch};
use tokio_util::task::AbortOnDropHandle;

use super::settings::JobsSettings;
use crate::core::observed::{Boot, Kind, Line};
use crate::duration::render;
use crate::probe::Target;
use crate::probe::field::FieldPath;
use crate::probe::http::{answer, document, short};

/// The jobs of one instance, counted for as long as this lives.
#[derive(Debug)]
pub struct JobCounter {
    counts: Vec<Count>,
}

#[derive(Debug)]
struct Count {
    settings: JobsSettings,
    last: watch::Receiver<Option<Asked>>,
    _task: AbortOnDropHandle<()>,
}

/// One answer.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Asked {
    /// When the question left.
    at: Boot,
    /// How many and how old the oldest is, or why that is not known.
    found: Result<(u64, Duration), String>,
}

impl JobCounter {
    /// Asks at once and then again and again; each answer rings `wake`. `now` tells the time since boot. Must be called
    /// within a tokio runtime.
    pub fn start(
        settings: &[JobsSettings],
        target: &Target,
        wake: Arc<Notify>,
        now: impl Fn() -> Boot + Send + Sync + Clone + 'static,
    ) -> Self {
        let start = |settings: &JobsSettings| {
            let (publish, last) = watch::channel(None);
            let (asking, target) = (settings.clone(), target.clone());
            let (wake, now) = (Arc::clone(&wake), now.clone());
            let task = tokio::spawn(async move {
                loop {
                    let at = now();
                    let found = ask(&asking, &target).await;
                    publish.send_replace(Some(Asked { at, found }));
                    wake.notify_one();
                    tokio::time::sleep(asking.interval).await;
                }
            });
            Count { settings: settings.clone(), last, _task: AbortOnDropHandle::new(task) }
        };
        Self { counts: settings.iter().map(start).collect() }
    }

    /// The ledger's lines. `quiet_since`: since when no request can start a job any more, and the instance may have to go;
    /// only what was asked after that is the last word.
    pub fn lines(&self, quiet_since: Option<Boot>) -> impl Iterator<Item = Line> {
        self.counts.iter().map(move |count| line(&count.settings, count.last.borrow().as_ref(), quiet_since))
    }
}

fn line(settings: &JobsSettings, last: Option<&Asked>, quiet_since: Option<Boot>) -> Line {
    let name = &settings.name;
    let (count, oldest, unknown) = match last {
        None => (0, Duration::ZERO, Some(format!("{name}: not asked yet"))),
        Some(Asked { found: Err(why), .. }) => (0, Duration::ZERO, Some(format!("{name}: {why}"))),
        Some(Asked { at, found: Ok((0, _)) }) if quiet_since.is_some_and(|quiet| *at < quiet) => {
            (0, Duration::ZERO, Some(format!("{name}: not asked again yet")))
        }
        Some(Asked { found: Ok((count, oldest)), .. }) => (*count, *oldest, None),
    };
    Line { kind: Kind::Jobs, count, oldest, unknown, policy: settings.policy }
}

async fn ask(settings: &JobsSettings, target: &Target) -> Result<(u64, Duration), String> {
    let limit = settings.timeout;
    let answer = tokio::time::timeout(limit, answer(&settings.check, target)).await;
    let (status, body) = answer.unwrap_or_else(|_| Err(format!("no answer within {}", render(limit))))?;
    counted(settings, status, body.as_deref().map_err(String::clone))
}

/// How many jobs a whole answer says there are, and how old the oldest is; the body's error is why it could not be read.
///
/// # Errors
/// Why that is not known, in words.
pub fn counted(
    settings: &JobsSettings,
    status: StatusCode,
    body: Result<&[u8], String>,
) -> Result<(u64, Duration), String> {
    let document = document(&settings.check, status, body)?;
    let oldest = settings.oldest_ms.as_ref().map(|path| number(&document, path)).transpose()?;
    Ok((number(&document, &settings.count)?, Duration::from_millis(oldest.unwrap_or(0))))
}

fn number(document: &Value, path: &FieldPath) -> Result<u64, String> {
    match path.find(document) {
        Some(value) => value
            .as_u64()
            .ok_or_else(|| format!("{path} = {}, wanted a whole number from 0", short(&value.to_string()))),
        None => Err(format!("{path} is missing in the answer")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn settings() -> JobsSettings {
        toml::from_str("name = \"runs\"\nhttp = { path = \"/jobs\", count = \"n\" }").expect("settings")
    }

    fn asked(at_s: u64, found: Result<u64, &str>) -> Asked {
        let found = found.map(|count| (count, Duration::ZERO)).map_err(str::to_owned);
        Asked { at: Duration::from_secs(at_s), found }
    }

    #[test]
    fn what_is_not_known_is_never_zero() {
        let unknown = |last: Option<Asked>| line(&settings(), last.as_ref(), None).unknown.expect("unknown");
        assert!(unknown(None).contains("not asked yet"));
        assert_eq!(unknown(Some(asked(1, Err("no answer within 500ms")))), "runs: no answer within 500ms");
        let known = line(&settings(), Some(&asked(1, Ok(3))), None);
        assert_eq!((known.count, known.unknown), (3, None));
    }

    #[test]
    fn a_zero_from_before_the_last_request_ended_is_not_the_last_word() {
        let quiet = Some(Duration::from_secs(10));
        let zero = |at_s| line(&settings(), Some(&asked(at_s, Ok(0))), quiet).unknown;
        assert!(zero(9).expect("unknown").contains("not asked again yet"));
        assert_eq!(zero(10), None);
        assert_eq!(line(&settings(), Some(&asked(9, Ok(2))), quiet).count, 2, "two are two, whenever it was");
    }

    #[test]
    fn only_a_whole_number_is_a_count() {
        let path = FieldPath::try_from("a.n".to_owned()).expect("a path");
        assert_eq!(number(&json!({"a": {"n": 3}}), &path), Ok(3));
        let long = number(&json!({"a": {"n": "x".repeat(60_000)}}), &path).expect_err("refused");
        assert!(long.len() < 300, "{} bytes in a sentence for people", long.len());
        for bad in [json!({"a": {"n": "3"}}), json!({"a": {"n": -1}}), json!({"a": {"n": 1.5}}), json!({"a": {}})] {
            assert!(number(&bad, &path).expect_err("refused").contains("a.n"), "{bad}");
        }
    }
}
