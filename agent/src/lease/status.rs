//! The keeper's state, as the main loop and the service see it.

use std::collections::BTreeMap;

use handover_proto::blocker::Blocker;
use handover_proto::ids::{InstanceId, SlotId};

use super::deadline::Boot;
use super::local::Local;
use super::record::Published;
use super::state::{Core, Order};
use super::waiting::Waiting;
use super::wanted::{HolderStatus, InstanceLease, KeeperStatus, LeaseState, Life};

/// What each living instance's service is told, with its slot.
pub type Board = BTreeMap<InstanceId, (SlotId, Published)>;

impl Core {
    /// What the services are told.
    pub fn board(&self) -> Board {
        let alive = self.locals.iter().filter(|(_, local)| local.is_alive());
        alive.map(|(id, local)| (id.clone(), (local.wanted.slot.clone(), self.published(local)))).collect()
    }

    /// The status for the main loop. Times since which something is so are taken over from `before`, if it still is.
    pub fn status(&self, before: &KeeperStatus, waiting: Option<&Waiting>, now: Boot, wall_ms: u64) -> KeeperStatus {
        let instance = |(id, local): (&InstanceId, &Local)| {
            let state = self.state_of(local);
            let same = before.instances.get(id).filter(|old| old.state == state);
            let turn = local.turn.as_ref();
            let lease = InstanceLease {
                state,
                token: turn.map(|turn| turn.token),
                remaining_soft: turn.and_then(|turn| turn.deadlines).map(|d| d.soft.since(now)),
                since_ms: same.map_or(wall_ms, |old| old.since_ms),
                reason: self.reason_of(local, now),
                may_stop: self.may_stop(local),
            };
            (id.clone(), lease)
        };
        let blocker = |waiting: &Waiting| {
            let same = before.waiting.as_ref().filter(|old| old.kind == waiting.kind());
            let since_ms = same.map_or(wall_ms, |old| old.since_ms);
            Blocker { kind: waiting.kind(), since_ms, waiting_for: waiting.to_string() }
        };
        KeeperStatus {
            instances: self.locals.iter().map(instance).collect(),
            holder: self.holder_status(),
            waiting: waiting.map(blocker),
            quarantine: self.quarantine_text(),
            store_versions: format!("{}: {}", self.trust.gate().word(), self.trust.gate()),
        }
    }

    fn holder_status(&self) -> Option<HolderStatus> {
        let (seen, held) = self.picture.held()?;
        Some(HolderStatus {
            instance: held.owner.instance.clone(),
            agent: held.owner.agent.clone(),
            token: self.picture.view().token().ok().flatten(),
            turn: seen.value.turn,
            beating: self.picture.view().beat_revision() == seen.mod_revision,
        })
    }

    fn state_of(&self, local: &Local) -> LeaseState {
        let Some(turn) = &local.turn else {
            return if local.live.is_some() && local.is_alive() { LeaseState::Candidate } else { LeaseState::None };
        };
        match local.service.order {
            Order::Fenced => LeaseState::Fenced,
            Order::Quiesce(_) if local.is_stopped() => LeaseState::Stopped,
            Order::Quiesce(_) => LeaseState::Quiescing,
            Order::Active if local.service.works(turn.token) => LeaseState::Holder,
            Order::Active | Order::Unknown | Order::Stopped => LeaseState::Starting,
        }
    }

    fn reason_of(&self, local: &Local, now: Boot) -> String {
        match self.move_for(local, now) {
            Err(waiting) => format!("waits for {waiting}"),
            Ok(Some(_)) | Ok(None) => local.service.order.reason(),
        }
    }

    /// Whether nothing of the lease is in the way of the instance's SIGTERM.
    fn may_stop(&self, local: &Local) -> bool {
        let id = &local.wanted.owner.instance;
        let pending = self.pending.as_ref().is_some_and(|pending| pending.instance == *id);
        // A turn ends only when the service has stopped.
        let rests = local.turn.is_none() && !pending;
        let others = !self.is_holder(id) || local.copied;
        local.wanted.life != Life::Running && self.picture.is_known() && others && rests
    }
}

/// Whether `new` says something that `old` did not, apart from time that goes by.
pub(super) fn differs(old: &KeeperStatus, new: &KeeperStatus) -> bool {
    let timeless = |status: &KeeperStatus| {
        let mut status = status.clone();
        status.instances.values_mut().for_each(|lease| lease.remaining_soft = None);
        status
    };
    timeless(old) != timeless(new)
}
