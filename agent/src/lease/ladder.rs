//! The kill ladder (`SAFETY.md` §1.10, F4, F5, F14): when an instance's processes are to be ended though it did not ask for
//! it. Begun, it ends only with the proof that no process is left; nothing that the service says later takes it back.

use std::time::Duration;

use handover_proto::ids::InstanceId;

use super::deadline::Boot;
use super::local::Local;
use super::stall::Hang;
use super::state::{Core, Order, Why};
use super::waiting::Waiting;

/// Why an instance must end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Doom {
    /// The hard deadline has come, and the service has not acknowledged that it stopped.
    #[error("its service had not stopped by the hard deadline")]
    Deadline,
    /// It hangs while it holds.
    #[error("{0}")]
    Hang(Hang),
}

impl Core {
    /// Why `local`'s processes are to be ended; none: they are not.
    pub(super) fn doom(&self, local: &Local, now: Boot) -> Option<Doom> {
        let turn = local.turn.as_ref().filter(|_| local.is_alive())?;
        if local.doomed.is_some() || local.is_stopped() {
            return local.doomed;
        }
        let is_over = now >= self.deadlines(turn).hard;
        match &local.service.order {
            Order::Quiesce(_) | Order::Fenced if is_over => Some(Doom::Deadline),
            Order::Active | Order::Quiesce(_) => local.service.pulse.hang(self.stall(local), now).map(Doom::Hang),
            Order::Unknown | Order::Stopped | Order::Fenced => None,
        }
    }

    /// How long a holder's service may show no sign of life.
    pub(super) fn stall(&self, local: &Local) -> Duration {
        let stall = self.settings.stall_of(local.service.c_unit);
        match &local.service.order {
            // Whoever asks for the lease grants the service its own time for the last unit.
            Order::Quiesce(Why::HandOver(_) | Why::Park(_)) => self
                .asked(local)
                .map_or(stall, |intent| stall.max(Duration::from_millis(intent.value.quiesce_timeout_ms))),
            Order::Active | Order::Quiesce(_) | Order::Unknown | Order::Stopped | Order::Fenced => stall,
        }
    }

    /// When the ladder may begin for `local` because it hangs.
    pub(super) fn judged_at(&self, local: &Local) -> Option<Boot> {
        local.turn.as_ref().map(|_| local.service.pulse.judged_at(self.stall(local)))
    }

    /// Takes in how a kill went. What counts as done is the empty process tree, which the main loop reports.
    pub(super) fn killed(&mut self, id: &InstanceId, result: Result<(), String>) {
        if let Some(local) = self.locals.get_mut(id) {
            local.kill_trouble = result.err();
        }
    }

    /// Why `id`'s processes are being ended.
    pub(super) fn doom_of(&self, id: &InstanceId) -> Option<Doom> {
        self.locals.get(id).and_then(|local| local.doomed)
    }

    /// What the ladder waits for.
    pub(super) fn ladder(&self, local: &Local) -> Option<Waiting> {
        let doom = local.doomed.filter(|_| local.is_alive())?;
        Some(Waiting::Kill { doom, trouble: local.kill_trouble.clone() })
    }
}
