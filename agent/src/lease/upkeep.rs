//! The standing work: etcd leases, renewals, candidate keys, reads, the state file.

use std::time::Duration;

use handover_proto::ids::InstanceId;
use handover_proto::lease::{self, Candidate};
use handover_proto::stored::{Rest, STORED_VERSION, StoredError, encode};
use handover_proto::txn::{Cmp, LeaseId, Op, Txn};

use super::deadline::Boot;
use super::local::{LiveLease, Local};
use super::memory::Memory;
use super::next::Now;
use super::renewal::{Expectation, Standing, barrier};
use super::state::{Core, Stage};
use super::wanted::Life;

/// Rest after something that the store, the disk or the service did not take.
pub(super) const REST: Duration = Duration::from_millis(250);

impl Core {
    /// An etcd lease that stands in the store for `local` from an earlier agent process.
    pub(super) fn adoptable(&self, local: &Local) -> Option<LiveLease> {
        if local.had_lease || local.live.is_some() || !self.picture.is_known() || !local.is_alive() {
            return None;
        }
        let (view, me) = (self.picture.view(), &local.wanted.owner.instance);
        if let Some((seen, held)) = self.picture.held().filter(|_| self.is_holder(me)) {
            let beat = view.beat.as_ref().filter(|beat| beat.mod_revision == seen.mod_revision);
            if let Some(beat) = beat {
                return Some(LiveLease::new(beat.lease, Duration::from_secs(held.ttl_s), true));
            }
        }
        let seen = view.candidates.get(me).filter(|seen| seen.lease != 0)?;
        Some(LiveLease::new(seen.lease, Duration::from_secs(seen.value.ttl_s), false))
    }

    /// Whether `local` needs a new etcd lease: to be a candidate, or for a new turn after it lost the old one.
    pub(super) fn needs_lease(&self, local: &Local) -> bool {
        // A copied one may go on with a turn, if that is its own, and never begin one.
        let runs = local.wanted.life == Life::Running && (!local.copied || local.turn.is_some());
        runs && self.picture.is_known() && local.live.is_none() && (local.wanted.eligible || local.turn.is_some())
    }

    /// Whether `local`'s etcd lease has no purpose any more.
    pub(super) fn has_idle_lease(&self, local: &Local) -> bool {
        let id = &local.wanted.owner.instance;
        let wanted = local.wanted.life == Life::Running;
        // Attachment rule 4: never while the holder key names it, whatever became of the process.
        local.live.is_some() && !wanted && local.turn.is_none() && self.picture.is_known() && !self.is_holder(id)
    }

    /// Whether nothing is left of an instance that is not reported any more.
    pub(super) fn is_gone(&self, local: &Local) -> bool {
        let id = &local.wanted.owner.instance;
        !local.reported
            && local.turn.is_none()
            && local.live.is_none()
            && self.picture.is_known()
            && !self.is_holder(id)
    }

    /// The renewal that is due for `local`.
    pub(super) fn renewal_due(&self, local: &Local, now: Boot) -> Option<(LeaseId, usize, Txn, Expectation)> {
        let live = local.live.as_ref().filter(|live| live.renew.is_due(now) && local.is_alive())?;
        let me = &local.wanted.owner.instance;
        // Nobody may work under a turn that the other copy of this host may have begun: its beat ends, and others take over.
        if local.copied && local.turn.is_none() && self.is_holder(me) {
            return None;
        }
        let standing = if live.used {
            let turn = local.turn.as_ref().filter(|turn| self.is_present(me, turn))?;
            Standing::Holder { turn: turn.revision, era: turn.token.era() }
        } else {
            self.picture.view().candidates.get(me).filter(|seen| seen.lease == live.id)?;
            Standing::Candidate(me.clone())
        };
        let txn = barrier(self.picture.keys(), &standing);
        let expected = Expectation {
            lease: live.id,
            standing,
            cluster: self.picture.cluster(),
            revision: self.picture.least(),
            min_ttl: self.settings.ttl,
            limit: self.settings.attempt,
        };
        Some((live.id, live.member, txn, expected))
    }

    /// The candidate key as it should be, if it is not.
    ///
    /// # Errors
    /// If it has no stored form.
    pub(super) fn candidate_due(&self, local: &Local, now: &Now) -> Result<Option<Txn>, StoredError> {
        // A store that is not believed, or not yet, shows nothing to compare with.
        let belief = self.picture.belief();
        let believed = belief.trouble().is_none() && belief.doubt().is_none();
        let due = believed && local.put.is_due(now.boot) && local.is_alive() && !local.is_taking_up_work();
        let Some(live) = local.live.as_ref().filter(|_| due) else {
            return Ok(None);
        };
        let me = &local.wanted.owner.instance;
        let stands = self.picture.view().candidates.get(me);
        let rest = stands.map(|seen| seen.value.rest.clone()).unwrap_or_default();
        let mut value = self.candidate(local, live, rest, now.boot);
        let before = stands.map(|seen| &seen.value).filter(|before| before.active == value.active);
        let active_at_ms = before.map_or(Some(now.wall_ms), |before| before.active_at_ms);
        value.active_at_ms = active_at_ms.filter(|_| value.active.is_some());
        if stands.is_some_and(|seen| seen.lease == live.id && seen.value == value) {
            return Ok(None);
        }
        let key = self.picture.keys().candidate(me);
        Ok(Some(Txn {
            // A put that arrives late must not undo a newer one.
            cmp: vec![Cmp::ModRevision(key.clone(), stands.map_or(0, |seen| seen.mod_revision))],
            then: vec![Op::put_with_lease(key.clone(), encode(&value)?, live.id)],
            or_else: vec![Op::Get(key)],
        }))
    }

    fn candidate(&self, local: &Local, live: &LiveLease, rest: Rest, now: Boot) -> Candidate {
        let me = &local.wanted.owner.instance;
        let ready = self.is_ready_candidate(local, now);
        let intent = self.picture.view().open_intent().filter(|intent| ready && intent.value.to.as_ref() == Some(me));
        let token = local.turn.as_ref().map(|turn| turn.token);
        Candidate {
            v: STORED_VERSION,
            owner: local.wanted.owner.clone(),
            lease_id: live.id,
            ttl_s: live.ttl.as_secs(),
            ready,
            serving: local.wanted.serving,
            prepared_for: intent.map(|intent| intent.value.op.clone()),
            declined: local.declined.clone(),
            active: local.service.started.filter(|started| token == Some(*started)),
            active_at_ms: None,
            rank: local.wanted.rank,
            rho_ppm: Some(self.settings.rho_ppm()),
            agent_version: env!("CARGO_PKG_VERSION").to_owned(),
            stored_token: local.service.stored_token,
            rest,
        }
    }

    /// The linearizable read that is due: to learn an outcome, to confirm a loss, or because it is time.
    pub(super) fn read_due(&self, now: Boot) -> Option<Txn> {
        if !self.read.is_due(now) {
            return None;
        }
        let outcome = self.pending.as_ref().is_some_and(|pending| pending.stage == Stage::Answered);
        // The quarantine is counted from a read, so each moment without one makes the dark longer.
        let loss =
            self.picture.held().is_some() && self.picture.view().beat.is_none() && self.picture.beat_gone().is_none();
        let unproven = self.picture.is_unproven() && self.picture.unproven().is_none();
        let due = now >= self.poll_at();
        (outcome || loss || unproven || due).then(|| lease::read(self.picture.keys()))
    }

    /// When the keys are to be read again, if nothing else has done so by then: a watch may fail in silence.
    pub(super) fn poll_at(&self) -> Boot {
        self.picture.confirmed().unwrap_or_default().plus(self.settings.interval)
    }

    /// What the state file has to say, if it does not say so yet.
    pub(super) fn save_due(&self, now: Boot) -> Option<Memory> {
        let starts = self.locals.values().any(Local::is_taking_up_work);
        let waited_for = |(id, local): (&InstanceId, &Local)| {
            local.turn.as_ref().is_some_and(|turn| turn.leaving && !self.leaving_is_saved(id, turn))
        };
        if !self.save.is_due(now) || starts && !self.locals.iter().any(waited_for) {
            return None;
        }
        Some(self.memory()).filter(|memory| *memory != self.saved)
    }

    /// The roster as the holder here should write it, if it is not so.
    pub(super) fn roster_due(&self, now: Boot) -> Option<Txn> {
        if !self.roster_put.is_due(now) || !self.picture.is_known() || self.picture.trouble().is_some() {
            return None;
        }
        let (id, _) = self.locals.iter().find(|(id, local)| {
            let present = local.turn.as_ref().is_some_and(|turn| self.is_present(id, turn));
            present && local.is_alive() && !local.is_taking_up_work()
        })?;
        // A refusal is one of the holder's own transactions' reasons too, and said there.
        lease::list_agents(self.picture.keys(), self.picture.view(), id).ok().flatten()
    }

    /// Whether the members are to be asked for their versions.
    pub(super) fn survey_due(&self, now: Boot) -> bool {
        self.survey.is_due(now) && !self.locals.is_empty() && !self.locals.values().any(Local::is_taking_up_work)
    }

    /// An etcd lease to be revoked.
    pub(super) fn revoke_due(&self, now: Boot) -> Option<LeaseId> {
        self.spent.iter().find(|(_, chore)| chore.is_due(now)).map(|(lease, _)| *lease)
    }

    /// The instances of this host, those that hold first.
    pub(super) fn by_weight(&self) -> impl Iterator<Item = (&InstanceId, &Local)> {
        let holding = self.locals.iter().filter(|(_, local)| local.turn.is_some());
        holding.chain(self.locals.iter().filter(|(_, local)| local.turn.is_none()))
    }
}

impl Local {
    /// Why the last renewal did not count.
    pub(super) fn doubt(&self) -> Option<String> {
        self.live.as_ref().and_then(|live| live.doubt.clone())
    }
}
