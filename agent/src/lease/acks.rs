//! Acknowledgements of services that ask by themselves (`[lease] service = "pull"`): they come on `lease.sock`, and the
//! keeper hears of them as of the answer to a call that it made (`SAFETY.md` §1.10).

use std::collections::BTreeMap;
use std::time::Duration;

use handover_proto::ids::InstanceId;
use tokio::sync::watch;

use super::record::{Ack, AckState, Published, RECORD_VERSION, Told, token_text};

/// The newest acknowledgement of each instance that no call has taken yet.
#[derive(Debug, Clone, Default)]
pub(super) struct Acks(watch::Sender<BTreeMap<InstanceId, Ack>>);

/// An acknowledgement that proves nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum Unfit {
    #[error("the acknowledgement is of version {0}, not {RECORD_VERSION}")]
    Version(u32),
    #[error(
        "it acknowledges record {acked}, and the newest is {newest}: read that one, do what it says, acknowledge it"
    )]
    Seq { acked: u64, newest: u64 },
    #[error("it names token {acked}, and the record's is {newest}; work under no token but the record's")]
    Token { acked: String, newest: String },
    #[error("the record says {told}: {wanted} or FAILED would answer it, {state} does not")]
    State { told: &'static str, wanted: &'static str, state: &'static str },
    #[error("the agent has just started and has told nothing yet; read the record again")]
    Untold,
}

impl Acks {
    /// Takes in an acknowledgement that [`fits`].
    pub(super) fn put(&self, instance: InstanceId, ack: Ack) {
        self.0.send_modify(|acks| drop(acks.insert(instance, ack)));
    }

    /// Waits for the acknowledgement of this very record.
    pub(super) async fn take(&self, instance: &InstanceId, seq: u64, limit: Duration) -> Result<Ack, String> {
        let mut acks = self.0.subscribe();
        let here = |acks: &BTreeMap<InstanceId, Ack>| acks.get(instance).is_some_and(|ack| ack.seq == seq);
        // The sender lives in `self`, so that the wait ends only by its condition or its limit.
        let came = tokio::time::timeout(limit, acks.wait_for(here)).await.is_ok_and(|seen| seen.is_ok());
        let mut taken = None;
        if came {
            self.0.send_if_modified(|acks| {
                taken = acks.remove(instance);
                false
            });
        }
        taken.filter(|ack| ack.seq == seq).ok_or_else(|| {
            format!("the service has not acknowledged record {seq} within {limit:?}; it does so by POST /v1/ack on lease.sock")
        })
    }

    /// The instance is gone.
    pub(super) fn forget(&self, instance: &InstanceId) {
        self.0.send_if_modified(|acks| {
            acks.remove(instance);
            false
        });
    }
}

/// Whether `ack` answers what was told last.
pub(super) fn fits(published: &Published, ack: &Ack) -> Result<(), Unfit> {
    if ack.v != RECORD_VERSION {
        return Err(Unfit::Version(ack.v));
    }
    if ack.seq != published.seq {
        return Err(Unfit::Seq { acked: ack.seq, newest: published.seq });
    }
    let token = token_text(published.token);
    if ack.token != token {
        let text = |token: &Option<String>| token.clone().unwrap_or_else(|| "none".to_owned());
        return Err(Unfit::Token { acked: text(&ack.token), newest: text(&token) });
    }
    let (told, wanted) = match published.told {
        Told::Active => ("ACTIVE", AckState::Started),
        Told::Quiesce => ("QUIESCE", AckState::Quiesced),
        Told::Stopped => ("STOPPED", AckState::Quiesced),
        Told::Fenced => ("FENCED", AckState::Quiesced),
        Told::Unknown => return Err(Unfit::Untold),
    };
    match ack.state {
        AckState::Failed => Ok(()),
        state if state == wanted => Ok(()),
        state => Err(Unfit::State { told, wanted: word(wanted), state: word(state) }),
    }
}

fn word(state: AckState) -> &'static str {
    match state {
        AckState::Started => "STARTED",
        AckState::Quiesced => "QUIESCED",
        AckState::Failed => "FAILED",
    }
}

#[cfg(test)]
mod tests {
    use handover_proto::numbers::{Era, Token};

    use super::*;

    fn published(told: Told) -> Published {
        let token = Token::new(Era(0), 48).ok();
        Published { told, token, seq: 12, op: None, deadlines: None, reason: String::new() }
    }

    fn ack(token: &str, seq: u64, state: &str) -> Ack {
        let text = format!(r#"{{"v":1,"token":"{token}","seq":{seq},"state":"{state}"}}"#);
        serde_json::from_str(&text).expect("an ack")
    }

    #[test]
    fn only_the_newest_record_under_its_own_token_can_be_acknowledged() {
        let active = published(Told::Active);
        assert_eq!(fits(&active, &ack("48", 12, "STARTED")), Ok(()));
        assert_eq!(fits(&active, &ack("48", 11, "STARTED")), Err(Unfit::Seq { acked: 11, newest: 12 }));
        assert_eq!(fits(&active, &ack("48", 13, "STARTED")), Err(Unfit::Seq { acked: 13, newest: 12 }));
        let error = fits(&active, &ack("47", 12, "STARTED")).expect_err("another's token").to_string();
        assert!(error.contains("47") && error.contains("48"), "{error}");
        let later = Ack { v: 2, ..ack("48", 12, "STARTED") };
        assert_eq!(fits(&active, &later), Err(Unfit::Version(2)));
    }

    #[test]
    fn the_state_must_answer_what_was_told() {
        for told in [Told::Quiesce, Told::Stopped, Told::Fenced] {
            assert_eq!(fits(&published(told), &ack("48", 12, "QUIESCED")), Ok(()));
            fits(&published(told), &ack("48", 12, "STARTED")).expect_err("it was told to stop");
            assert_eq!(fits(&published(told), &ack("48", 12, "FAILED")), Ok(()), "a failure is an answer to anything");
        }
        fits(&published(Told::Active), &ack("48", 12, "QUIESCED")).expect_err("it was told to begin");
        assert_eq!(fits(&published(Told::Unknown), &ack("48", 12, "QUIESCED")), Err(Unfit::Untold));
    }

    #[tokio::test]
    async fn an_acknowledgement_waits_for_its_call_and_is_taken_once() {
        let (acks, id) = (Acks::default(), InstanceId::random());
        acks.put(id.clone(), ack("48", 12, "STARTED"));
        let second = Duration::from_millis(20);
        acks.take(&id, 13, second).await.expect_err("not this record");
        assert_eq!(acks.take(&id, 12, second).await.map(|ack| ack.seq), Ok(12));
        let error = acks.take(&id, 12, second).await.expect_err("taken");
        assert!(error.contains("record 12") && error.contains("/v1/ack"), "{error}");
    }

    #[tokio::test]
    async fn a_call_waits_for_the_acknowledgement_and_a_forgotten_instance_has_none() {
        let (acks, id) = (Acks::default(), InstanceId::random());
        let waiting = tokio::spawn({
            let (acks, id) = (acks.clone(), id.clone());
            async move { acks.take(&id, 12, Duration::from_secs(5)).await }
        });
        tokio::task::yield_now().await;
        acks.put(id.clone(), ack("48", 12, "QUIESCED"));
        assert_eq!(waiting.await.expect("a task").map(|ack| ack.state), Ok(AckState::Quiesced));
        acks.put(id.clone(), ack("48", 13, "QUIESCED"));
        acks.forget(&id);
        acks.take(&id, 13, Duration::from_millis(20)).await.expect_err("gone with its instance");
    }
}
