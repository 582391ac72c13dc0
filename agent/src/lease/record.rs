//! What the service is told, and what it answers (`SAFETY.md` §1.10): the same record on every way.

use handover_proto::ids::{InstanceId, OpId};
use handover_proto::numbers::Token;
use serde::{Deserialize, Serialize};

use super::clock::ClockIdentity;
use super::deadline::{Boot, Deadlines};

/// Version of the record and of the acknowledgement.
pub const RECORD_VERSION: u32 = 1;

/// What the service may do now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Told {
    /// Work under the token until the soft deadline.
    Active,
    /// Finish the present unit, start none.
    Quiesce,
    /// No work.
    Stopped,
    /// The token is dead: drop queues, timers and open transactions.
    Fenced,
    /// The agent does not know. It says so by silence (a call is not made, a question is not answered): what was told
    /// before stands until its deadline, and no longer.
    Unknown,
}

/// The record.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeaseRecord {
    /// [`RECORD_VERSION`].
    pub v: u32,
    /// Whom it is about.
    pub instance: InstanceId,
    /// What it may do.
    pub state: Told,
    /// The fencing token as a decimal number; none where there is no turn.
    pub token: Option<String>,
    /// Grows with every record; an older one that arrives later is to be dropped.
    pub seq: u64,
    /// The hand-over that QUIESCE is for.
    pub op: Option<OpId>,
    /// The boot on whose clock the deadlines are.
    pub boot_id: String,
    /// The time namespace on whose clock the deadlines are.
    pub time_ns: String,
    /// No new unit from here on: CLOCK_BOOTTIME, nanoseconds. 0: no right to work.
    pub soft_deadline_boot_ns: u64,
    /// Work has ended: CLOCK_BOOTTIME, nanoseconds. 0: no right to work.
    pub hard_deadline_boot_ns: u64,
    /// Time to the soft deadline when the record was made. Counted from the *sending* of the question.
    pub remaining_soft_ms: u64,
    /// Time to the hard deadline when the record was made.
    pub remaining_hard_ms: u64,
    /// One sentence for people.
    pub reason: String,
}

/// What the service reports back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum AckState {
    /// The token is installed and work has begun.
    Started,
    /// No unit runs, timers are disarmed, no transaction is open.
    Quiesced,
    /// What was asked did not work.
    Failed,
}

/// The service's answer to a call.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ack {
    /// [`RECORD_VERSION`].
    pub v: u32,
    /// The record's token.
    #[serde(default)]
    pub token: Option<String>,
    /// The record's number.
    pub seq: u64,
    /// What the service did.
    pub state: AckState,
    /// Units under way.
    #[serde(default)]
    pub in_flight: u64,
    /// Its longest unit, in milliseconds; none: as the agent's config says.
    #[serde(default)]
    pub c_unit_ms: Option<u64>,
    /// Grows with each finished unit, and within a long one; none: the service does not count.
    #[serde(default)]
    pub progress: Option<u64>,
    /// `progress` grows at least this often while a unit runs, in milliseconds (K4).
    #[serde(default)]
    pub progress_interval_ms: Option<u64>,
    /// The highest token that is installed in its database, as a decimal number (I12); none: not known.
    #[serde(default)]
    pub stored_token: Option<String>,
    /// Its database ends a statement, and an idle transaction, after so many milliseconds (K6); none: not known.
    #[serde(default)]
    pub statement_timeout_ms: Option<u64>,
    /// One sentence for people.
    #[serde(default)]
    pub detail: String,
}

impl Ack {
    /// An answer that says only what must be said.
    pub fn new(token: Option<String>, seq: u64, state: AckState) -> Self {
        Self {
            v: RECORD_VERSION,
            token,
            seq,
            state,
            in_flight: 0,
            c_unit_ms: None,
            progress: None,
            progress_interval_ms: None,
            stored_token: None,
            statement_timeout_ms: None,
            detail: String::new(),
        }
    }
}

/// What one instance is told, as the keeper published it; a [`LeaseRecord`] once a reader's `now` is put in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Published {
    /// What it may do.
    pub told: Told,
    /// The turn's token.
    pub token: Option<Token>,
    /// Number of the record.
    pub seq: u64,
    /// The hand-over that QUIESCE is for.
    pub op: Option<OpId>,
    /// The turn's deadlines; none: no right to work.
    pub deadlines: Option<Deadlines>,
    /// One sentence for people.
    pub reason: String,
}

/// The token as it stands in records and acknowledgements.
pub(super) fn token_text(token: Option<Token>) -> Option<String> {
    token.map(|token| token.get().to_string())
}

impl Published {
    /// The record as of `now`. Never ACTIVE past the soft deadline, even if the keeper has not noticed yet.
    pub fn record(&self, instance: &InstanceId, clock: &ClockIdentity, now: Boot) -> LeaseRecord {
        let (soft, hard) = self.deadlines.map_or_else(Default::default, |d| (d.soft, d.hard));
        let late = self.told == Told::Active && now >= soft;
        LeaseRecord {
            v: RECORD_VERSION,
            instance: instance.clone(),
            state: if late { Told::Quiesce } else { self.told },
            token: token_text(self.token),
            seq: self.seq,
            op: self.op.clone(),
            boot_id: clock.boot_id.clone(),
            time_ns: clock.time_ns.clone(),
            soft_deadline_boot_ns: soft.ns(),
            hard_deadline_boot_ns: hard.ns(),
            remaining_soft_ms: whole_ms(soft.since(now)),
            remaining_hard_ms: whole_ms(hard.since(now)),
            reason: if late { "the soft deadline has passed".to_owned() } else { self.reason.clone() },
        }
    }
}

fn whole_ms(span: std::time::Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use handover_proto::numbers::Era;

    use super::*;

    fn active() -> Published {
        Published {
            told: Told::Active,
            token: Token::new(Era(0), 48).ok(),
            seq: 12,
            op: None,
            deadlines: Some(Deadlines { soft: Boot::from_ns(9_000_000_000), hard: Boot::from_ns(11_500_000_000) }),
            reason: "holds".to_owned(),
        }
    }

    fn record(published: &Published, now_ms: u64) -> LeaseRecord {
        let clock = ClockIdentity { boot_id: "boot".into(), time_ns: "time:[1]".into() };
        let instance = "00000000000000aa".parse().expect("an id");
        published.record(&instance, &clock, Boot::from_ns(now_ms * 1_000_000))
    }

    #[test]
    fn the_record_has_exactly_the_fields_of_the_contract() {
        let json = serde_json::to_value(record(&active(), 4_000)).expect("json");
        let expected = serde_json::json!({
            "v": 1, "instance": "00000000000000aa", "state": "ACTIVE", "token": "48", "seq": 12, "op": null,
            "boot_id": "boot", "time_ns": "time:[1]", "soft_deadline_boot_ns": 9_000_000_000_u64,
            "hard_deadline_boot_ns": 11_500_000_000_u64, "remaining_soft_ms": 5000, "remaining_hard_ms": 7500,
            "reason": "holds"
        });
        assert_eq!(json, expected);
    }

    #[test]
    fn a_record_made_after_the_soft_deadline_never_says_active() {
        assert_eq!(record(&active(), 8_999).state, Told::Active);
        let late = record(&active(), 9_000);
        assert_eq!((late.state, late.remaining_soft_ms, late.remaining_hard_ms), (Told::Quiesce, 0, 2500));
    }

    #[test]
    fn without_a_turn_the_token_is_null_in_the_record_and_in_its_answer() {
        let published = Published { told: Told::Stopped, token: None, deadlines: None, ..active() };
        let json = serde_json::to_value(record(&published, 1)).expect("json");
        assert_eq!((&json["token"], &json["soft_deadline_boot_ns"]), (&serde_json::Value::Null, &0.into()));
        let ack: Ack = serde_json::from_str(r#"{"v":1,"token":null,"seq":12,"state":"QUIESCED"}"#).expect("an ack");
        assert_eq!(ack.token, None);
    }

    #[test]
    fn an_answer_needs_only_what_decides() {
        let text = r#"{"v":1,"token":"48","seq":12,"state":"QUIESCED"}"#;
        let ack: Ack = serde_json::from_str(text).expect("an ack");
        assert_eq!(ack, Ack::new(Some("48".to_owned()), 12, AckState::Quiesced));
    }

    #[test]
    fn an_answer_may_say_how_far_the_work_is_and_what_the_database_holds() {
        let text = r#"{"v":1,"token":"48","seq":12,"state":"STARTED","in_flight":1,"progress":7,
            "progress_interval_ms":250,"stored_token":"48","statement_timeout_ms":500,"of_a_later_version":true}"#;
        let ack: Ack = serde_json::from_str(text).expect("an ack");
        assert_eq!((ack.in_flight, ack.progress, ack.progress_interval_ms), (1, Some(7), Some(250)));
        assert_eq!((ack.stored_token.as_deref(), ack.statement_timeout_ms), (Some("48"), Some(500)));
    }
}
