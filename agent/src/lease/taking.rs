//! Who may take a free or lost lease, when, and who goes first.
//!
//! | rule | where |
//! |---|---|
//! | I8: T2 without proof only after the quarantine | [`Core::quarantine`] |
//! | F23: a holder key that dates from before a restore proves nothing | [`Core::unproven_end`] |
//! | I9: only listed agents take over | [`Core::taker_move`] |
//! | I12: no token below the one in the database | [`Core::fence_regression`] |
//! | K7: all candidates have equal T and rho | [`Core::unequal`] |
//! | the last holder first, then rank, then name | [`Core::courtesy`] |

use std::time::Duration;

use handover_proto::lease::{Candidate, StopProof};
use handover_proto::numbers::Token;
use handover_proto::planted::{Mistake, planted};

use super::deadline::Boot;
use super::local::Local;
use super::state::{Core, Move};
use super::waiting::Waiting;
use super::wanted::Life;

/// Each candidate leaves a lease this long to every one that goes before it.
const COURTESY: Duration = Duration::from_secs(1);
/// A candidate waits for so many at most: one that is dead still has its key until its etcd lease expires.
const MOST_BEFORE: u32 = 3;
/// The last holder, back after an outage, gets this long to go on: etcd lease, two renewals, its service's answer and T5
/// take well under a second, a reconnect to the store up to one more.
const FIRST_REFUSAL: Duration = Duration::from_secs(2);
/// Without proof, where no member revokes leases early and only agents can delete the beat (§1.9).
const SHORT_QUARANTINE: Duration = Duration::from_secs(1);

/// How long a taker waits, and why so long.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Quarantine {
    /// None: no read has shown the beat absent.
    pub(super) end: Option<Boot>,
    pub(super) length: Duration,
    pub(super) because: String,
}

impl Core {
    pub(super) fn taker_move(&self, local: &Local, now: Boot) -> Result<Option<Move>, Waiting> {
        if local.turn.is_some() {
            return Err(Waiting::Quiesce(local.service.trouble.clone()));
        }
        if local.wanted.life != Life::Running || !local.wanted.eligible {
            return Ok(None);
        }
        if local.copied {
            return Err(Waiting::Copied);
        }
        let view = self.picture.view();
        if view.beat.is_some() {
            return Ok(None);
        }
        if let Some(trouble) = self.picture.takers_trouble() {
            return Err(Waiting::Corrupt(trouble));
        }
        if !local.wanted.ready {
            return Err(Waiting::Readiness);
        }
        // F24: a turn that the state file does not show could never be ended.
        if let Some(trouble) = self.unsaved() {
            return Err(Waiting::Disk(Some(trouble)));
        }
        self.greeting(local)?;
        self.fits_in(local)?;
        let live = local.live.as_ref().ok_or(Waiting::Renewal(None))?;
        if !self.is_fit(local, live, now) {
            return Err(Waiting::Renewal(local.doubt()));
        }
        let owner = &local.wanted.owner;
        if view.is_frozen_for(&owner.agent) {
            return Err(Waiting::Frozen);
        }
        if let Some(intent) = view.kept_for_other(&owner.instance) {
            return Err(Waiting::IntentForOther(intent.value.op.clone()));
        }
        self.proof_stands(now)?;
        let kind = if self.picture.held().is_some() { Move::TakeOver } else { Move::Acquire };
        if kind == Move::TakeOver {
            if !view.lists(&owner.agent) {
                return Err(Waiting::NotListed(owner.agent.clone()));
            }
            self.quarantine_over(now)?;
        }
        self.courtesy(local, now).map(|()| Some(kind))
    }

    /// Rules that `local` keeps or breaks whatever the lease's state is.
    pub(super) fn fits_in(&self, local: &Local) -> Result<(), Waiting> {
        if let Some(unequal) = self.unequal(local) {
            return Err(unequal);
        }
        self.below_stored(local).map_or(Ok(()), Err)
    }

    /// The next token is above everything that is known; a database that has seen a higher one outlived a restore.
    pub(super) fn below_stored(&self, local: &Local) -> Option<Waiting> {
        let newest = Token::new(self.era(), self.picture.revision().max(1)).ok();
        let (stored, token) = local.service.stored_token.zip(newest)?;
        (stored > token).then_some(Waiting::FenceRegression { token, stored })
    }

    /// I12, for a turn that has begun: its token is not above all that the database has seen.
    pub(super) fn fence_regression(&self, local: &Local) -> Option<Waiting> {
        let (token, stored) = (local.turn.as_ref()?.token, local.service.stored_token?);
        // Its own token stands there once its service was told to begin, if need be by an earlier agent process.
        let own = stored == token && (local.service.begun == Some(token) || local.turn.as_ref()?.inherited);
        (stored >= token && !own).then_some(Waiting::FenceRegression { token, stored })
    }

    /// K7: whoever differs from the holder's candidate, or else from the first that could take the lease, stands back.
    fn unequal(&self, local: &Local) -> Option<Waiting> {
        let me = &local.wanted.owner;
        let candidates = &self.picture.view().candidates;
        let holder = self.picture.held().map(|(_, held)| &held.owner.instance);
        let others = || candidates.values().map(|seen| &seen.value).filter(|other| other.owner.instance != me.instance);
        let able = |other: &&Candidate| self.picture.view().could_take(&other.owner.instance);
        let before_me =
            |other: &&Candidate| able(other) && (&other.owner.agent, &other.owner.instance) < (&me.agent, &me.instance);
        let first = others().find(|other| Some(&other.owner.instance) == holder);
        let first = first.or_else(|| others().filter(before_me).min_by_key(|other| &other.owner.agent))?;
        let (ttl_s, rho_ppm) = (self.settings.ttl.as_secs(), self.settings.rho_ppm());
        let equal = first.ttl_s == ttl_s && first.rho_ppm.is_none_or(|rho| rho == rho_ppm);
        (!equal).then(|| Waiting::Unequal {
            other: first.owner.agent.clone(),
            theirs: (first.ttl_s, first.rho_ppm.unwrap_or(rho_ppm)),
            ours: (ttl_s, rho_ppm),
        })
    }

    /// Whether `local` would take the lease if nothing but time were in the way.
    pub(super) fn could_take(&self, local: &Local) -> bool {
        let wanted = &local.wanted;
        let willing = wanted.life == Life::Running && wanted.eligible && wanted.ready && local.turn.is_none();
        willing && local.live.is_some() && self.picture.view().lists(&wanted.owner.agent)
    }

    /// A holder key that proves nothing is waited for: whoever worked before may have a whole deadline left.
    pub(super) fn proof_stands(&self, now: Boot) -> Result<(), Waiting> {
        match self.unproven_end() {
            _ if !self.picture.is_unproven() => Ok(()),
            Some(end) if now >= end => Ok(()),
            end => Err(Waiting::Unproven(end)),
        }
    }

    /// Until when; none: no read has shown it, or it does prove something.
    pub(super) fn unproven_end(&self) -> Option<Boot> {
        self.picture.unproven().map(|since| since.plus(self.settings.quarantine_of(self.settings.ttl)))
    }

    /// The wait before the present holder may be taken over from.
    pub(super) fn quarantine(&self) -> Option<Quarantine> {
        let (seen, held) = self.picture.held()?;
        if planted(Mistake::NoQuarantine) || planted(Mistake::QuarantineFromEvent) {
            let stamp = planted(Mistake::QuarantineFromEvent).then(|| Boot::from_ns(seen.value.at_ms));
            let end = self.picture.beat_gone().map(|gone| stamp.unwrap_or(gone));
            return Some(Quarantine { end, length: Duration::ZERO, because: "a mistake".to_owned() });
        }
        let token = self.picture.view().token().ok().flatten();
        let certificate = token.and_then(|token| self.certificate_for(token));
        let (length, because) = match certificate {
            Some(certificate) => {
                let proof = if certificate.proof == StopProof::Dead { "has died" } else { "has stopped" };
                (Duration::ZERO, format!("its agent certified that its service {proof}"))
            }
            None => self.unproved_wait(Duration::from_secs(held.ttl_s)),
        };
        Some(Quarantine { end: self.picture.beat_gone().map(|since| since.plus(length)), length, because })
    }

    /// The wait without proof for a holder with this agent's own TTL, in words.
    pub(super) fn quarantine_text(&self) -> String {
        let (length, because) = self.unproved_wait(self.settings.ttl);
        format!("{length:?} without proof: {because}")
    }

    /// How long to wait for a holder with this TTL, of whom nothing is proved, and why so long.
    fn unproved_wait(&self, ttl: Duration) -> (Duration, String) {
        match (self.trust.why_long(), self.settings.quarantine) {
            (Some(why), _) => (self.settings.quarantine_of(ttl), why),
            (None, Some(_)) => {
                (self.settings.quarantine_of(ttl), "`quarantine` is set in the agent's config".to_owned())
            }
            (None, None) => (
                SHORT_QUARANTINE,
                "the store keeps leases, and but for agents only the operators' certificate can end them".to_owned(),
            ),
        }
    }

    fn quarantine_over(&self, now: Boot) -> Result<(), Waiting> {
        let Some(Quarantine { end, length, because }) = self.quarantine() else { return Ok(()) };
        if end.is_none_or(|end| now < end) {
            return Err(Waiting::Quarantine { end, length, because });
        }
        match self.first_refusal_end() {
            Some(end) if now < end => Err(Waiting::FirstRefusal),
            Some(_) | None => Ok(()),
        }
    }

    /// Until when the lease is left to its last holder; none: it is not there, or it is free.
    pub(super) fn first_refusal_end(&self) -> Option<Boot> {
        let (_, held) = self.picture.held()?;
        let view = self.picture.view();
        let certified = view.token().ok().flatten().and_then(|token| self.certificate_for(token));
        let back = view.candidates.contains_key(&held.owner.instance) || certified.is_some_and(|c| c.may_return);
        self.picture.beat_gone().filter(|_| back).map(|since| since.plus(FIRST_REFUSAL))
    }

    fn courtesy(&self, local: &Local, now: Boot) -> Result<(), Waiting> {
        let view = self.picture.view();
        let me = (local.wanted.rank, &local.wanted.owner.agent, &local.wanted.owner.instance);
        let place = |other: &Candidate| (other.rank, other.owner.agent.clone(), other.owner.instance.clone());
        let goes_before = |other: &&Candidate| {
            other.ready
                && other.owner.instance != local.wanted.owner.instance
                && (other.rank, &other.owner.agent, &other.owner.instance) < me
        };
        let before_me: Vec<&Candidate> = view.candidates.values().map(|seen| &seen.value).filter(goes_before).collect();
        let first = before_me.iter().min_by_key(|other| place(other));
        let Some(first) = first.filter(|_| view.open_intent().is_none()) else { return Ok(()) };
        let many = u32::try_from(before_me.len()).unwrap_or(MOST_BEFORE).min(MOST_BEFORE);
        match self.takeable_since() {
            Some(since) if now < since.plus(COURTESY * many) => Err(Waiting::Courtesy(first.owner.instance.clone())),
            Some(_) | None => Ok(()),
        }
    }

    /// Since when somebody could have taken it.
    fn takeable_since(&self) -> Option<Boot> {
        let since = match self.quarantine() {
            Some(quarantine) => quarantine.end.max(self.first_refusal_end()),
            None => self.picture.vacant(),
        };
        since.max(self.unproven_end())
    }

    /// The moments at which one more candidate may take it.
    pub(super) fn taking_moments(&self) -> impl Iterator<Item = Boot> {
        let turns = (0..=MOST_BEFORE).filter_map(|n| Some(self.takeable_since()?.plus(COURTESY * n)));
        let quarantine = self.quarantine().and_then(|quarantine| quarantine.end);
        turns.chain(quarantine).chain(self.unproven_end()).chain(self.first_refusal_end())
    }
}

/// For messages: who and how much.
pub(super) fn numbers((ttl_s, rho_ppm): &(u64, u32)) -> String {
    format!("ttl {ttl_s} s, rho {}", f64::from(*rho_ppm) / 1e6)
}
