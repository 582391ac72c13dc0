//! Stop certificates (`SAFETY.md` §1.9): the agent of a lost holder says that its service has stopped, so that whoever
//! takes over need not wait out a deadline.
//!
//! What is certified must stay true: the turn is made unusable first (*haunted*: only T5 brings the instance a token
//! again), and the state file says so before the answer leaves. An agent that dies right after finds it there.

use handover_proto::ids::AgentId;
use handover_proto::lease::StopProof;
use handover_proto::numbers::Token;
use handover_proto::wire::CertifyReply;

use super::deadline::Boot;
use super::local::Local;
use super::state::{Core, Order, Why};
use super::wanted::Life;

/// What this agent can say of a token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Certified {
    /// Its service has stopped, and never works under it again.
    Stopped {
        /// Why that is certain.
        proof: StopProof,
        /// Since when it is known.
        since: Option<Boot>,
        /// Its process lives, so that the instance may want to go on under a new token.
        may_return: bool,
    },
    /// The state file is being written; ask again in a moment.
    Unwritten,
    /// Nothing of the kind can be said. One sentence.
    No(String),
}

impl Certified {
    /// As it goes over the wire, all but agent and token.
    pub(super) fn reply(self, now: Boot, wall_ms: u64) -> CertifyReply {
        match self {
            Self::Stopped { proof, since, may_return } => CertifyReply {
                stopped: true,
                proof: if proof == StopProof::Dead { "dead" } else { "quiesced" }.to_owned(),
                stopped_at_ms: since.map_or(0, |since| {
                    wall_ms.saturating_sub(u64::try_from(now.since(since).as_millis()).unwrap_or(u64::MAX))
                }),
                may_return,
                ..CertifyReply::default()
            },
            Self::Unwritten => {
                CertifyReply { reason: "its state file is being written".to_owned(), ..CertifyReply::default() }
            }
            Self::No(reason) => CertifyReply { reason, ..CertifyReply::default() },
        }
    }
}

/// A certificate in the taker's hand.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Certificate {
    /// What it is about.
    pub token: Token,
    /// Why it is certain.
    pub proof: StopProof,
    /// When the service was known to have stopped: wall clock of its host, Unix milliseconds, for people.
    pub stopped_at_ms: Option<u64>,
    /// The instance may want to go on.
    pub may_return: bool,
}

impl Core {
    /// What can be certified for `token` now.
    pub fn certify(&self, token: Token) -> Certified {
        let of_token = |local: &&Local| local.turn.as_ref().is_some_and(|turn| turn.token == token);
        let Some(local) = self.locals.values().find(of_token) else {
            let restored = self.restored.values().any(|turn| turn.token == token);
            let why = if restored {
                "this agent has just started and has not found the instance yet"
            } else {
                "this agent knows of no turn with that token"
            };
            return Certified::No(why.to_owned());
        };
        if let Some(why) = may_work(local) {
            return Certified::No(why.to_owned());
        }
        let recorded = local
            .turn
            .as_ref()
            .is_some_and(|turn| turn.haunted && self.leaving_is_saved(&local.wanted.owner.instance, turn));
        if !recorded {
            return Certified::Unwritten;
        }
        let dead = local.wanted.life == Life::Dead { proven: true };
        let proof = if dead { StopProof::Dead } else { StopProof::Quiesced };
        Certified::Stopped { proof, since: local.stopped_since, may_return: !dead }
    }

    /// Somebody asks for a certificate: a turn whose service has stopped is made unusable for good.
    pub(super) fn asked_to_certify(&mut self, token: Token) {
        for local in self.locals.values_mut().filter(|local| may_work(local).is_none()) {
            if let Some(turn) = local.turn.as_mut().filter(|turn| turn.token == token) {
                turn.haunted = true;
                turn.leaving = true;
            }
        }
    }

    /// Whom to ask for a certificate now, and about which token.
    pub(super) fn certificate_due(&self, now: Boot) -> Option<(AgentId, Token)> {
        let (_, held) = self.picture.held()?;
        let waits = !self.picture.is_unproven() && self.quarantine()?.end.is_some_and(|end| now < end);
        let token = self.picture.view().token().ok()??;
        let wanted = self.ask.is_due(now) && waits && self.certificate_for(token).is_none();
        (wanted && self.locals.values().any(|local| self.could_take(local))).then(|| (held.owner.agent.clone(), token))
    }

    /// The certificate for `token`, if there is one.
    pub(super) fn certificate_for(&self, token: Token) -> Option<&Certificate> {
        self.certificate.as_ref().filter(|certificate| certificate.token == token)
    }
}

/// Why `local`'s service may work, or may yet be told to; none: it has stopped, and its turn is not in order.
fn may_work(local: &Local) -> Option<&'static str> {
    if local.wanted.life == (Life::Dead { proven: true }) {
        return None;
    }
    match &local.service.order {
        Order::Unknown | Order::Stopped | Order::Active => Some("its service may be at work"),
        Order::Quiesce(Why::HandOver(_) | Why::Park(_) | Why::GiveUp) => Some("its holder is giving the lease up"),
        Order::Quiesce(_) | Order::Fenced => {
            (!local.is_stopped()).then_some("its service has not acknowledged that it stopped")
        }
    }
}
