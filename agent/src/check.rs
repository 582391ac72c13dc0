//! `handover-agent check`: whether this host is as the config needs it, before anything is started and while it runs.
//!
//! [`look`] asks around and changes nothing; what it saw is [`facts`]; [`judge`] says what that means, line by line, each
//! with what to do about it.

pub mod facts;
pub mod judge;
mod look;
mod units;

use std::fmt;
use std::path::Path;

use serde::Serialize;

use crate::config::Config;

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// As it should be.
    Ok,
    /// It works, but something will be missed some day.
    Warn,
    /// It does not work.
    Fail,
}

/// One line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// What was looked at: "config", "directories", "certificates", "ports", "units", "store", "service".
    pub check: &'static str,
    /// How bad it is.
    pub verdict: Verdict,
    /// What was found, in a sentence.
    pub sentence: String,
    /// What to do about it; empty: nothing.
    pub fix: String,
}

impl Finding {
    pub(crate) fn ok(check: &'static str, sentence: impl Into<String>) -> Self {
        Self { check, verdict: Verdict::Ok, sentence: sentence.into(), fix: String::new() }
    }

    pub(crate) fn warn(check: &'static str, sentence: impl Into<String>, fix: impl Into<String>) -> Self {
        Self { check, verdict: Verdict::Warn, sentence: sentence.into(), fix: fix.into() }
    }

    pub(crate) fn fail(check: &'static str, sentence: impl Into<String>, fix: impl Into<String>) -> Self {
        Self { check, verdict: Verdict::Fail, sentence: sentence.into(), fix: fix.into() }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let word = match self.verdict {
            Verdict::Ok => "ok",
            Verdict::Warn => "warn",
            Verdict::Fail => "fail",
        };
        write!(f, "{word:<4}  {:<11}  {}", self.check, self.sentence)?;
        if self.fix.is_empty() { Ok(()) } else { write!(f, "\n{:19}fix: {}", "", self.fix) }
    }
}

/// Reads the config and looks at the host. Must be called within a tokio runtime.
pub async fn check(path: &Path) -> Vec<Finding> {
    match Config::read(path) {
        Ok(config) => {
            let mut findings = judge::config(&config);
            findings.extend(judge::host(&config, &look::look(&config).await));
            findings
        }
        Err(error) => {
            vec![Finding::fail("config", crate::report::chain(&error), "mend it; nothing else was looked at")]
        }
    }
}
