//! What a run found, and whether that is good.

use std::fmt;
use std::time::Duration;

use serde::Serialize;

use crate::load::crowd::CrowdReceipt;
use crate::span;
use crate::switch::{Course, Event};

/// What a run found.
#[derive(Debug, Serialize)]
pub struct Verdict {
    /// What was asked for.
    pub course: Course,
    /// What the clients saw.
    pub receipt: CrowdReceipt,
    /// What happened when, since the first event.
    #[serde(serialize_with = "moments")]
    pub events: Vec<(Duration, Event)>,
    /// Jobs that were started and never finished.
    pub lost_jobs: i64,
    /// From the first event to the end.
    #[serde(rename = "took_ms", serialize_with = "span::as_ms")]
    pub took: Duration,
}

fn moments<S: serde::Serializer>(events: &[(Duration, Event)], out: S) -> Result<S::Ok, S::Error> {
    out.collect_seq(events.iter().map(|(at, event)| (span::ms(*at), event)))
}

impl Verdict {
    /// Nothing was lost, and every connection that was ended from our side had its notice.
    pub fn passed(&self) -> bool {
        self.receipt.is_clean() && self.silent_closes() == 0 && self.lost_jobs == 0
    }

    /// Idle connections that ended in good order but without a word.
    pub fn silent_closes(&self) -> u64 {
        self.receipt.sum(|counts| counts.idle)
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Course { switches, agent_restarts, gate_restarts, gate_kills, .. } = self.course;
        writeln!(
            f,
            "{switches} switches, {agent_restarts} agent restarts, {gate_restarts} gate restarts, {gate_kills} gate kills in {:.1} s",
            self.took.as_secs_f64()
        )?;
        write!(f, "{}", self.receipt)?;
        let (lost, dropped) = (self.receipt.sum(|c| c.lost), self.receipt.sum(|c| c.dropped));
        let word = if self.passed() { "PASSED" } else { "FAILED" };
        writeln!(
            f,
            "{word}: {lost} lost, {dropped} connections dropped, {} closed without a word, {} jobs lost",
            self.silent_closes(),
            self.lost_jobs
        )
    }
}
