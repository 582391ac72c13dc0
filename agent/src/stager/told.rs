//! What the agent reports of its staging.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use handover_proto::ids::Version;
use handover_proto::numbers::Serial;
use handover_proto::staging::StagingState;
use handover_proto::wire::StagingReport;

use super::job::{End, Job};
use crate::artifact::progress::{Far, Progress};
use crate::clock;

/// Written by the stager, read by the agent's loop.
#[derive(Debug, Default)]
pub(super) struct Told(Mutex<Inner>);

#[derive(Debug, Default)]
struct Inner {
    now: Now,
    /// The state that was reported last, and since when.
    since: Option<(Serial, StagingState, u64)>,
}

#[derive(Debug, Default)]
enum Now {
    /// Nothing is asked of this agent.
    #[default]
    Nothing,
    /// What is asked cannot be read.
    Unread(String),
    /// It is asked, and something else has to stop first.
    Asked(Serial, Version),
    /// It is at work.
    AtWork(Serial, Version, Arc<Progress>),
    /// It is answered.
    Ended(Serial, Version, End),
}

impl Told {
    pub(super) fn unread(&self, why: String) {
        self.held().now = Now::Unread(why);
    }

    /// What is asked, and what is at work for it.
    pub(super) fn asked(
        &self,
        asked: Option<(Serial, &Version)>,
        job: Option<&Job>,
        answered: Option<(Serial, &Version)>,
    ) {
        let mut inner = self.held();
        let Some((serial, version)) = asked else {
            inner.now = Now::Nothing;
            return;
        };
        match job.filter(|job| job.version == *version && !job.stop.is_cancelled()) {
            Some(job) => inner.now = Now::AtWork(serial, version.clone(), job.progress.clone()),
            None if answered == Some((serial, version)) => {}
            None => inner.now = Now::Asked(serial, version.clone()),
        }
    }

    pub(super) fn ended(&self, serial: Serial, version: &Version, end: End) {
        self.held().now = Now::Ended(serial, version.clone(), end);
    }

    pub(super) fn report(&self) -> Option<StagingReport> {
        let mut inner = self.held();
        let (serial, state, report) = inner.now.report()?;
        let since_ms = match inner.since {
            Some((known, was, since_ms)) if (known, was) == (serial, state) => since_ms,
            _ => clock::wall_ms(),
        };
        inner.since = Some((serial, state, since_ms));
        Some(StagingReport { serial: serial.0, state: state.as_str().to_owned(), since_ms, ..report })
    }

    fn held(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Now {
    fn report(&self) -> Option<(Serial, StagingState, StagingReport)> {
        let of = |version: &Version| StagingReport { version: version.to_string(), ..StagingReport::default() };
        let saying = |sentence: &str| StagingReport { sentence: sentence.to_owned(), ..StagingReport::default() };
        Some(match self {
            Self::Nothing => return None,
            Self::Unread(why) => (Serial(0), StagingState::Waiting, saying(why)),
            Self::Asked(serial, version) => {
                let sentence = "another version's staging stops first".to_owned();
                (*serial, StagingState::Waiting, StagingReport { sentence, ..of(version) })
            }
            Self::AtWork(serial, version, progress) => {
                let Far { waiting, verifying, done_bytes, total_bytes } = progress.now();
                let state = match (&waiting, verifying) {
                    (Some(_), _) => StagingState::Waiting,
                    (None, true) => StagingState::Verifying,
                    (None, false) => StagingState::Fetching,
                };
                let sentence = waiting.unwrap_or_default();
                (*serial, state, StagingReport { done_bytes, total_bytes, sentence, ..of(version) })
            }
            Self::Ended(serial, version, End::Staged(sentence)) => {
                (*serial, StagingState::Staged, StagingReport { version: version.to_string(), ..saying(sentence) })
            }
            Self::Ended(serial, version, End::Refused(kind, why)) => {
                let refusal = kind.as_str().to_owned();
                (*serial, StagingState::Refused, StagingReport { refusal, sentence: why.clone(), ..of(version) })
            }
            Self::Ended(_, _, End::Stopped) => return None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use handover_proto::staging::StagingRefusal;

    #[test]
    fn an_answer_stands_until_something_else_is_asked() {
        let told = Told::default();
        assert_eq!(told.report(), None);
        let version: Version = "1.5.0".parse().expect("a version");
        told.asked(Some((Serial(7), &version)), None, None);
        assert_eq!(told.report().expect("asked").state, "waiting");
        let refused = End::Refused(StagingRefusal::Space, "too little room".into());
        told.ended(Serial(7), &version, refused);
        let answered = Some((Serial(7), &version));
        told.asked(answered, None, answered);
        let report = told.report().expect("refused");
        assert_eq!((report.serial, report.state.as_str(), report.refusal.as_str()), (7, "refused", "space"));
        assert_eq!(told.report().expect("the same").since_ms, report.since_ms);
        told.asked(Some((Serial(9), &version)), None, answered);
        let report = told.report().expect("asked again");
        assert_eq!((report.serial, report.state.as_str()), (9, "waiting"));
        told.ended(Serial(7), &version, End::Staged("there".into()));
        let other: Version = "1.6.0".parse().expect("a version");
        told.asked(Some((Serial(7), &other)), None, answered);
        assert_eq!(told.report().expect("another one, of a restored store").state, "waiting");
        told.asked(None, None, answered);
        assert_eq!(told.report(), None);
    }

    #[test]
    fn a_key_that_cannot_be_read_is_told_with_its_reason() {
        let told = Told::default();
        told.unread("permission denied".into());
        let report = told.report().expect("told");
        assert_eq!((report.serial, report.sentence.as_str()), (0, "permission denied"));
    }
}
