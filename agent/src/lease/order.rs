//! What each service is to be told, decided anew from everything that is known.
//!
//! The only way to ACTIVE is through every check in [`Core::order_for`]; whatever is not certain ends in another order
//! (I11: unknown is never held).

use std::time::Duration;

use handover_proto::ids::OpId;
use handover_proto::lease::{Intent, IntentKind, Seen};

use super::deadline::Boot;
use super::local::Local;
use super::state::{Core, Move, MyTurn, Order, Why};
use super::wanted::Life;

/// How long a holder waits for the successor to say that it is prepared, before it declines.
pub(super) const PREPARE_LIMIT: Duration = Duration::from_secs(10);

/// How far a hand-over by this holder can go now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Hand {
    /// None is asked for, or it was declined.
    None,
    /// The successor has not said that it is prepared.
    Waiting(OpId),
    /// The successor is prepared.
    Ready(OpId),
    /// There is to be none: the lease is parked.
    Park(OpId),
}

impl Core {
    /// What `local`'s service is to be told now.
    pub(super) fn order_for(&self, local: &Local, now: Boot) -> Order {
        let known = self.picture.is_known();
        let Some(turn) = &local.turn else { return if known { Order::Stopped } else { Order::Unknown } };
        if let Some(trouble) = self.picture.trouble() {
            return Order::Quiesce(Why::Corrupt(trouble));
        }
        let id = &local.wanted.owner.instance;
        if known && !self.is_present(id, turn) {
            return Order::Fenced;
        }
        if known && self.era() != turn.token.era() {
            return Order::Quiesce(Why::EraRaised);
        }
        if known && !self.is_beating(local, turn) {
            return Order::Quiesce(Why::LeaseLost);
        }
        if now >= self.deadlines(turn).soft {
            return Order::Quiesce(Why::Deadline);
        }
        if let Some(doom) = local.doomed {
            return Order::Quiesce(Why::Doomed(doom));
        }
        if let Some(what) = self.doubts_host(local) {
            return Order::Quiesce(Why::Suspect(what));
        }
        if !known || turn.deadlines.is_none() {
            return Order::Unknown;
        }
        if self.fence_regression(local).is_some() {
            return Order::Quiesce(Why::FenceRegression);
        }
        match self.why_leave(local, turn) {
            Some(why) => Order::Quiesce(why),
            None => Order::Active,
        }
    }

    /// Reasons to stop that are our own choice, on a turn that is in order.
    fn why_leave(&self, local: &Local, turn: &MyTurn) -> Option<Why> {
        let id = &local.wanted.owner.instance;
        let under_way = self.pending.as_ref().filter(|pending| pending.instance == *id);
        if under_way.is_some_and(|pending| matches!(pending.kind, Move::HandOver | Move::Release(_) | Move::Mint)) {
            // It may be done already: nothing but a read can bring ACTIVE back.
            return match &local.service.order {
                Order::Quiesce(why) => Some(why.clone()),
                Order::Unknown | Order::Stopped | Order::Active | Order::Fenced => Some(Why::Haunted),
            };
        }
        // F24: nothing that could end the turn begins before the state file says so.
        let recorded = self.leaving_is_saved(id, turn);
        match self.hand(local) {
            Hand::Ready(op) if recorded => return Some(Why::HandOver(op)),
            Hand::Park(op) if recorded => return Some(Why::Park(op)),
            Hand::None if recorded && self.gives_up(local) => return Some(Why::GiveUp),
            Hand::Ready(_) | Hand::Waiting(_) | Hand::Park(_) | Hand::None => {}
        }
        turn.haunted.then_some(Why::Haunted)
    }

    /// Whether the turn may soon end by T3 or T4, so that the state file has to say so.
    pub(super) fn wants_to_leave(&self, local: &Local) -> bool {
        match self.hand(local) {
            Hand::Ready(_) | Hand::Park(_) => true,
            Hand::None => self.gives_up(local),
            Hand::Waiting(_) => false,
        }
    }

    /// Whether `local` is to end its turn for nobody in particular. Not under a freeze: nobody could take the lease then.
    pub(super) fn gives_up(&self, local: &Local) -> bool {
        local.wanted.life == Life::GiveUp && !self.picture.view().frozen
    }

    /// The open intent that asks `local` to hand over or to park, unless it declined.
    pub(super) fn asked(&self, local: &Local) -> Option<&Seen<Intent>> {
        let me = &local.wanted.owner.instance;
        let intent = self.picture.view().open_intent()?;
        let parks = intent.value.kind == IntentKind::Park;
        let asks = intent.value.from == *me && (parks || intent.value.is_for_other(me));
        (asks && local.declined.as_ref() != Some(&intent.value.op)).then_some(intent)
    }

    /// How far a hand-over by `local` can go.
    pub(super) fn hand(&self, local: &Local) -> Hand {
        let view = self.picture.view();
        let Some(intent) = self.asked(local) else { return Hand::None };
        let op = &intent.value.op;
        match intent.value.kind {
            // Freezing keeps others from taking it, which is what whoever parks it wants.
            IntentKind::Park => return Hand::Park(op.clone()),
            IntentKind::Handoff | IntentKind::Return if view.frozen => return Hand::None,
            IntentKind::Handoff | IntentKind::Return => {}
        }
        let heir = intent.value.to.as_ref().and_then(|to| view.candidates.get(to)).map(|seen| &seen.value);
        if heir.is_some_and(|heir| heir.ready && heir.prepared_for.as_ref() == Some(op)) {
            Hand::Ready(op.clone())
        } else {
            Hand::Waiting(op.clone())
        }
    }

    /// The intent that `local` has to decline now: the successor or its own service has not come up to it in time.
    pub(super) fn declines(&self, local: &Local, now: Boot) -> Option<OpId> {
        let turn = local.turn.as_ref()?;
        let at_once = matches!(&local.service.order, Order::Quiesce(Why::HandOver(_)));
        if self.pending.is_some() || !self.is_present(&local.wanted.owner.instance, turn) {
            return None;
        }
        match self.hand(local) {
            Hand::None => None,
            // It was prepared, and is gone.
            Hand::Waiting(op) if at_once => Some(op),
            Hand::Waiting(op) => (now >= self.intent_deadline(PREPARE_LIMIT)?).then_some(op),
            Hand::Ready(op) | Hand::Park(op) => {
                (now >= self.quiesce_deadline(local)? && !local.is_stopped()).then_some(op)
            }
        }
    }

    /// Until when the service may finish its unit for a hand-over; none: it has not been asked.
    pub(super) fn quiesce_deadline(&self, local: &Local) -> Option<Boot> {
        let Order::Quiesce(Why::HandOver(_) | Why::Park(_)) = &local.service.order else { return None };
        let limit = Duration::from_millis(self.asked(local)?.value.quiesce_timeout_ms);
        Some(local.service.ordered_at.plus(limit))
    }

    /// `limit` after the open intent was first seen.
    pub(super) fn intent_deadline(&self, limit: Duration) -> Option<Boot> {
        self.intent_since.as_ref().map(|(_, since)| since.plus(limit))
    }
}

impl Order {
    /// The sentence that goes into the record.
    pub(super) fn reason(&self) -> String {
        match self {
            Self::Unknown => "the agent has just started and is asking the store".to_owned(),
            Self::Stopped => "this instance does not hold the lease".to_owned(),
            Self::Active => "this instance holds the lease".to_owned(),
            Self::Quiesce(why) => why.reason(),
            Self::Fenced => "the lease has gone to somebody else".to_owned(),
        }
    }
}

impl Why {
    fn reason(&self) -> String {
        match self {
            Self::HandOver(op) => format!("the lease is handed over (operation {op})"),
            Self::Park(op) => format!("the lease is given up without a successor (operation {op})"),
            Self::FenceRegression => "the database has seen a higher token than this turn's".to_owned(),
            Self::GiveUp => "this instance is to be stopped".to_owned(),
            Self::Deadline => "no renewal was accepted before the soft deadline; the store may be away".to_owned(),
            Self::LeaseLost => "the etcd lease was lost; a new turn is being asked for".to_owned(),
            Self::Haunted => {
                "the outcome of an earlier transaction is not certain; a new turn is being asked for".to_owned()
            }
            Self::EraRaised => "the era was raised; the turn of the old era has ended".to_owned(),
            Self::Corrupt(what) => what.clone(),
            Self::Doomed(doom) => format!("{doom}: the instance is being ended"),
            Self::Suspect(what) => format!("{what}; the lease is being confirmed"),
        }
    }
}
