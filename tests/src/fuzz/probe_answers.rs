//! What a service answers to probes. An input is three lines, the field, the JSON that it must be and the status of the
//! answer, and then the answer's body.
//!
//! What must hold: no answer panics; a reading is good only if status and field are what is wanted, as an oracle (a JSON
//! pointer) finds them, and then always; jobs are counted as what stands there and never as 0 when nothing does; whatever a
//! service says, what is made of it is one short line.

use std::time::Duration;

use handover_agent::probe::condition::Reading;
use handover_agent::probe::jobs::{JobsSettings, counted};
use handover_agent::probe::judged;
use handover_agent::probe::settings::{Check, HttpCheck, ProbeSettings};
use http::StatusCode;
use serde_json::{Value, json};

use super::{Outcome, must};

/// No reading is longer, beside what stands in the config.
const LONGEST_CHARS: usize = 400;

/// Reads a count of jobs and the oldest's age out of an answer.
pub type Count = fn(&JobsSettings, StatusCode, Result<&[u8], String>) -> Result<(u64, Duration), String>;

/// The code that is judged.
#[derive(Clone, Copy)]
pub struct Subject {
    /// A probe's reading.
    pub judged: fn(&HttpCheck, StatusCode, Result<&[u8], String>) -> Reading,
    /// A count of jobs and the oldest's age.
    pub counted: Count,
}

/// As it is shipped.
pub const REAL: Subject = Subject { judged, counted };

/// The property.
///
/// # Errors
/// What is broken.
pub fn check(data: &[u8], subject: &Subject) -> Outcome {
    let mut lines = data.splitn(4, |byte| *byte == b'\n');
    let mut line = || std::str::from_utf8(lines.next().unwrap_or_default()).unwrap_or_default();
    let (field, wanted, status) = (line(), line(), line());
    let body = data.splitn(4, |byte| *byte == b'\n').nth(3).unwrap_or_default();
    let (Ok(wanted), Ok(status)) = (serde_json::from_str::<Value>(wanted), status.parse::<StatusCode>()) else {
        return Ok(());
    };
    // What stands in the config is shown as it stands there.
    if field.chars().chain(wanted.to_string().chars()).any(char::is_control) {
        return Ok(());
    }
    let answer = Answer { field, wanted: &wanted, status, body };
    answer.is_read(subject)?;
    answer.is_counted(subject)
}

struct Answer<'a> {
    field: &'a str,
    wanted: &'a Value,
    status: StatusCode,
    body: &'a [u8],
}

impl Answer<'_> {
    fn is_read(&self, subject: &Subject) -> Outcome {
        let probe = json!({ "name": "ready", "affects": "ready", "interval": "1s",
            "http": { "path": "/ready", "field": self.field, "equals": self.wanted } });
        let Ok(ProbeSettings { check: Check::Http(check), .. }) = serde_json::from_value(probe) else { return Ok(()) };
        let (good, text) = match (subject.judged)(&check, self.status, Ok(self.body)) {
            Reading::Good(text) => (true, text),
            Reading::Bad(text) => (false, text),
            Reading::NotTaken(text) => return Err(format!("an answer was not taken: {text}")),
        };
        let meant = self.status == StatusCode::OK && self.found().is_some_and(|found| same(&found, self.wanted));
        must!(good == meant, "{} is read as {good}: {text}", self.body.escape_ascii());
        self.is_short(&text, self.wanted.to_string().chars().count())?;
        let unread = (subject.judged)(&check, self.status, Err("it broke off".to_owned()));
        must!(matches!(unread, Reading::Bad(_)), "a body that could not be read is {unread:?}");
        Ok(())
    }

    fn is_counted(&self, subject: &Subject) -> Outcome {
        let jobs = json!({ "name": "runs", "http": { "path": "/jobs", "count": self.field, "oldest_ms": self.field } });
        let Ok(settings) = serde_json::from_value::<JobsSettings>(jobs) else { return Ok(()) };
        let counted = (subject.counted)(&settings, self.status, Ok(self.body));
        let meant = self.found().filter(|_| self.status == StatusCode::OK).and_then(|found| found.as_u64());
        let meant = meant.map(|count| (count, Duration::from_millis(count)));
        must!(counted.as_ref().ok() == meant.as_ref(), "counted as {counted:?}, meant is {meant:?}");
        counted.err().map_or(Ok(()), |why| self.is_short(&why, 0))
    }

    /// As RFC 6901 finds it.
    fn found(&self) -> Option<Value> {
        let document: Value = serde_json::from_slice(self.body).ok()?;
        let escaped = self.field.replace('~', "~0").replace('/', "~1");
        document.pointer(&format!("/{}", escaped.replace('.', "/"))).cloned()
    }

    fn is_short(&self, text: &str, config_chars: usize) -> Outcome {
        let bound = LONGEST_CHARS + self.field.chars().count() + config_chars;
        must!(!text.is_empty() && text.chars().count() <= bound, "{} characters: {text}", text.chars().count());
        must!(!text.chars().any(char::is_control), "more than a line: {text:?}");
        Ok(())
    }
}

/// Equal as people mean it: 1 and 1.0 are, two whole numbers only if every digit is.
fn same(found: &Value, wanted: &Value) -> bool {
    match (found, wanted) {
        (Value::Number(a), Value::Number(b)) if a.is_f64() || b.is_f64() => a.as_f64() == b.as_f64(),
        _ => found == wanted,
    }
}
