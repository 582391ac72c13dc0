//! Which of the lease's transactions may be sent now, by whom, and if none: why not.
//!
//! | rule | where |
//! |---|---|
//! | I5: T3 and T4 only after QUIESCED for this turn, or with no process left | [`Core::holder_move`] |
//! | I11: nobody takes a turn past his own deadline | [`Core::is_fit`] |
//! | §1.4.1: two accepted renewals before anything is received | [`Core::is_fit`] |
//! | F24: no hand-over without a durable record | [`Core::leaving_is_saved`] |

use handover_proto::lease::{self, IntentKind, Refused, Stamp, StopProof, Turn};
use handover_proto::planted::{Mistake, planted};
use handover_proto::txn::Txn;

use super::deadline::{Boot, Deadlines};
use super::local::{LiveLease, Local};
use super::next::Now;
use super::order::Hand;
use super::state::{Core, Move, MyTurn, Order};
use super::waiting::Waiting;
use super::wanted::Life;

/// Accepted renewals before a lease may receive a turn: one shows that it lives, the second that it goes on living.
const TRIAL_RENEWALS: u32 = 2;

impl Core {
    /// The transaction that `local` may send now.
    pub(super) fn move_for(&self, local: &Local, now: Boot) -> Result<Option<Move>, Waiting> {
        if let Some(pending) = &self.pending {
            return Err(Waiting::Outcome(pending.op.clone()));
        }
        if let Some(trouble) = self.picture.trouble() {
            return Err(Waiting::Corrupt(trouble));
        }
        if let Some(doubt) = self.picture.belief().doubt() {
            return Err(Waiting::Store(Some(doubt)));
        }
        if !self.picture.is_known() {
            return Err(Waiting::Store(self.store_trouble.clone()));
        }
        if self.is_holder(&local.wanted.owner.instance) {
            self.holder_move(local, now)
        } else {
            self.taker_move(local, now)
        }
    }

    fn holder_move(&self, local: &Local, now: Boot) -> Result<Option<Move>, Waiting> {
        // F23: somebody else may have held when the store was lost.
        self.proof_stands(now)?;
        match local.wanted.life {
            Life::Dead { proven: true } => return Ok(Some(Move::Release(StopProof::Dead))),
            Life::Dead { proven: false } => return Err(Waiting::DeadUnproven),
            Life::Running | Life::GiveUp => {}
        }
        if let Some(waiting) = self.ladder(local) {
            return Err(waiting);
        }
        if local.copied && local.turn.is_none() {
            return Err(Waiting::Copied);
        }
        let Some(turn) = local.turn.as_ref().filter(|turn| self.is_present(&local.wanted.owner.instance, turn)) else {
            return Ok(None);
        };
        match &local.service.order {
            Order::Active => return self.holding(local, turn),
            Order::Unknown => return Err(Waiting::Renewal(local.doubt())),
            Order::Stopped | Order::Quiesce(_) | Order::Fenced => {}
        }
        if !local.service.idle && !planted(Mistake::HandOverBeforeQuiesced) {
            return Err(Waiting::Quiesce(local.service.trouble.clone()));
        }
        let regression = self.fence_regression(local).filter(|_| self.era() == turn.token.era());
        if let Some(regression) = regression.as_ref().filter(|_| self.below_stored(local).is_some()) {
            return Err(regression.clone());
        }
        let recorded = self.leaving_is_saved(&local.wanted.owner.instance, turn);
        match self.hand(local) {
            // Without the beat T3 would be refused for ever, and the lease stay dark: then T5 comes first.
            Hand::Ready(_) if recorded && self.is_beating(local, turn) => return Ok(Some(Move::HandOver)),
            Hand::Park(_) if recorded => return Ok(Some(Move::Release(StopProof::Quiesced))),
            Hand::None if recorded && self.gives_up(local) => {
                return Ok(Some(Move::Release(StopProof::Quiesced)));
            }
            Hand::Ready(_) | Hand::Waiting(_) | Hand::Park(_) | Hand::None => {}
        }
        // An agent whose state file is of an earlier turn cannot know that this turn's token was installed for its own
        // service; the next one's is above it in any case.
        self.mint_move(local, turn, turn.haunted || regression.is_some(), now)
    }

    /// T5: the service has stopped, so a new turn may begin; nobody else could have worked.
    ///
    /// `anew`: the turn that there is must not be gone on with.
    fn mint_move(&self, local: &Local, turn: &MyTurn, anew: bool, now: Boot) -> Result<Option<Move>, Waiting> {
        let live = local.live.as_ref().ok_or(Waiting::Renewal(None))?;
        if !self.is_beating(local, turn) {
            return if self.is_fit(local, live, now) {
                Ok(Some(Move::Mint))
            } else {
                Err(Waiting::Renewal(local.doubt()))
            };
        }
        // Adopted as a candidate's, before a restored store showed this turn's beat on it: its renewals bring no turn back.
        let strange = !live.used;
        if self.in_time(live, now) && (anew || strange) {
            return Ok(Some(Move::Mint));
        }
        // Else a single accepted renewal brings the same turn back.
        Err(Waiting::Renewal(local.doubt()))
    }

    fn holding(&self, local: &Local, turn: &MyTurn) -> Result<Option<Move>, Waiting> {
        if let Hand::Waiting(op) = self.hand(local) {
            return Err(Waiting::Successor(op));
        }
        if local.wanted.life == Life::GiveUp && !self.gives_up(local) {
            return Err(Waiting::Frozen);
        }
        if turn.leaving && !self.leaving_is_saved(&local.wanted.owner.instance, turn) {
            return Err(Waiting::Disk(self.disk_trouble.clone()));
        }
        if let Some(unfit) = self.unfit(local) {
            return Err(Waiting::Unfit(unfit));
        }
        if !local.service.works(turn.token) || local.service.trouble.is_some() {
            return Err(Waiting::Start(local.service.trouble.clone()));
        }
        Ok(None)
    }

    /// The service has answered a call, and it and the host fit the lease's numbers.
    pub(super) fn greeting(&self, local: &Local) -> Result<(), Waiting> {
        if let Some(c_unit) = local.service.c_unit.filter(|c_unit| *c_unit > self.settings.c_unit) {
            return Err(Waiting::UnitTooLong { declared: c_unit, configured: self.settings.c_unit });
        }
        if let Some(unfit) = self.unfit(local) {
            return Err(Waiting::Unfit(unfit));
        }
        if local.service.idle { Ok(()) } else { Err(Waiting::Greeting(local.service.trouble.clone())) }
    }

    /// Everything that makes `local` a candidate that may receive a turn, apart from the store's state.
    pub(super) fn is_ready_candidate(&self, local: &Local, now: Boot) -> bool {
        let wanted = &local.wanted;
        let picture = &self.picture;
        let troubled = picture.trouble().is_some() || picture.takers_trouble().is_some() || self.unsaved().is_some();
        let asks = wanted.life == Life::Running
            && wanted.eligible
            && wanted.ready
            && local.turn.is_none()
            && !troubled
            && !local.copied;
        asks && self.greeting(local).is_ok()
            && self.fits_in(local).is_ok()
            && local.live.as_ref().is_some_and(|live| self.is_tried(live, now))
    }

    /// `live` may receive a turn.
    pub(super) fn is_fit(&self, local: &Local, live: &LiveLease, now: Boot) -> bool {
        let stands = self.picture.view().candidates.get(&local.wanted.owner.instance);
        self.is_tried(live, now) && stands.is_some_and(|seen| seen.lease == live.id)
    }

    fn is_tried(&self, live: &LiveLease, now: Boot) -> bool {
        !live.used && live.accepted >= TRIAL_RENEWALS && self.in_time(live, now)
    }

    fn in_time(&self, live: &LiveLease, now: Boot) -> bool {
        self.fit_until(live).is_some_and(|end| now < end) && !self.is_outdated(live)
    }

    /// The soft deadline that a turn on `live` would have.
    pub(super) fn fit_until(&self, live: &LiveLease) -> Option<Boot> {
        live.base.map(|base| Deadlines::of(base, live.ttl, &self.settings).soft)
    }

    /// Builds the transaction. It compares every revision that the view showed.
    pub(super) fn build(
        &self,
        local: &Local,
        kind: Move,
        now: &Now,
    ) -> Result<(handover_proto::ids::OpId, Txn), Refused> {
        let (keys, view, me) = (self.picture.keys(), self.picture.view(), &local.wanted.owner.instance);
        // T1 and T2 by the one that the intent names fulfil it.
        let asked = view.open_intent().filter(|intent| match kind {
            Move::Acquire | Move::TakeOver => intent.value.to.as_ref() == Some(me),
            Move::HandOver => true,
            Move::Release(StopProof::Quiesced) => intent.value.kind == IntentKind::Park && intent.value.from == *me,
            Move::Release(_) | Move::Mint => false,
        });
        let op = asked.map_or_else(|| now.op.clone(), |intent| intent.value.op.clone());
        let stamp = self.stamp(local, kind, now);
        let (lease_id, ttl_s) = local.live.as_ref().map_or((0, 0), |live| (live.id, live.ttl.as_secs()));
        let turn = Turn { owner: &local.wanted.owner, lease_id, ttl_s, op: op.clone(), stamp };
        let txn = match kind {
            Move::Acquire => lease::acquire(keys, view, &turn),
            Move::TakeOver => lease::take_over(keys, view, &turn),
            Move::HandOver => lease::hand_over(keys, view, me, stamp),
            Move::Release(proof) => lease::release(keys, view, me, proof, op.clone(), stamp),
            Move::Mint => lease::mint(keys, view, &turn),
        };
        txn.map(|txn| (op, txn))
    }

    /// When, and since when the service of whoever held before is known to have stopped.
    fn stamp(&self, local: &Local, kind: Move, now: &Now) -> Stamp {
        let holder = self.picture.view().holder.as_ref();
        let ago = |since: Boot| u64::try_from(now.boot.since(since).as_millis()).unwrap_or(u64::MAX);
        let token = self.picture.view().token().ok().flatten();
        let stopped_at_ms = match kind {
            Move::Acquire => holder.and_then(|seen| seen.value.stopped_at_ms),
            Move::TakeOver => token.and_then(|token| self.certificate_for(token)?.stopped_at_ms),
            Move::HandOver | Move::Release(_) | Move::Mint => {
                local.stopped_since.map(|since| now.wall_ms.saturating_sub(ago(since)))
            }
        };
        Stamp { at_ms: now.wall_ms, stopped_at_ms }
    }
}
