//! What a suspicion changes in the core: the service is stopped softly until the store has confirmed the lease anew.

use super::deadline::Boot;
use super::local::{LiveLease, Local};
use super::state::Core;
use super::suspect::Suspicion;

impl Core {
    /// Takes in a suspicion that was found at `at`. A renewal that can dispel it begins at once.
    pub(super) fn suspect(&mut self, what: Suspicion, at: Boot) {
        self.suspected = Some((what, at));
        if what == Suspicion::Copied {
            self.confirmed = None;
        }
        for local in self.locals.values_mut() {
            local.service.pulse.restart(at);
            if let Some(live) = &mut local.live {
                live.renew.not_before = at;
            }
            if what == Suspicion::Copied {
                local.copied = true;
                match &mut local.turn {
                    // Both copies hold the same token, and etcd takes renewals from both. Only one can mint the next.
                    Some(turn) => turn.haunted = true,
                    // Not revoked: it is the other copy's too.
                    None => local.live = None,
                }
            }
        }
    }

    /// Why `local`'s turn is in doubt: this host may have been away since the last accepted renewal began.
    pub(super) fn doubts_host(&self, local: &Local) -> Option<Suspicion> {
        let outdated = local.live.as_ref().is_none_or(|live| self.is_outdated(live));
        self.suspected.filter(|_| outdated).map(|(what, _)| what)
    }

    /// The last accepted renewal began before this host may have been away.
    pub(super) fn is_outdated(&self, live: &LiveLease) -> bool {
        self.suspected.is_some_and(|(_, at)| live.base.is_none_or(|base| base < at))
    }

    /// Whether a pause of this host could do harm: an instance of it holds, or may soon.
    pub fn has_much_to_lose(&self) -> bool {
        self.locals.values().any(|local| local.turn.is_some() || local.live.is_some())
    }
}
