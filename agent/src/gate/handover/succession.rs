//! Which gate is in charge: this one, or a newer one that took over.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use tokio::net::TcpListener;
use tokio::sync::watch;

use super::merge::Carried;
use crate::gate::control::GateReport;
use crate::gate::control_socket::ControlSocket;

/// Where a gate process stands in its life.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(in crate::gate) enum Phase {
    /// It accepts clients.
    #[default]
    Serving,
    /// It was told to stop: it finishes what it has. Agents still speak to it.
    Stopping,
    /// It finishes what it has, and a newer gate speaks to the agents.
    Replaced,
    /// Nothing is left; its last report goes out.
    Ended,
}

/// What one gate process knows of those before and after it.
pub(in crate::gate) struct Succession {
    phase: watch::Sender<Phase>,
    /// Held while a state is being put in force, and while a newer gate takes over.
    pub(in crate::gate) orders: tokio::sync::Mutex<()>,
    /// Held while the state file is being written, and until an older gate has let go of it.
    pub(in crate::gate) file: Arc<tokio::sync::Mutex<()>>,
    /// The older gates that live, by their last words, and the counts of those that ended.
    older: Mutex<Older>,
    post: Mutex<Option<Post>>,
    queue_is_ours: AtomicBool,
    /// The gate from which this one took over.
    pub(in crate::gate) took_over_from: OnceLock<String>,
}

/// What can be handed over.
#[derive(Clone)]
pub(in crate::gate) struct Post {
    pub(in crate::gate) listener: Arc<TcpListener>,
    pub(in crate::gate) activated: bool,
    pub(in crate::gate) control: Arc<ControlSocket>,
}

/// Older gates as they are known here.
#[derive(Default)]
pub(super) struct Older {
    /// A place for each that was found: none when it has ended, and none inside while it has not said anything yet.
    pub(super) living: Vec<Option<Option<GateReport>>>,
    /// What those have counted that ended.
    pub(super) carried: Carried,
}

impl Default for Succession {
    fn default() -> Self {
        Self {
            phase: watch::Sender::default(),
            orders: tokio::sync::Mutex::default(),
            file: Arc::default(),
            older: Mutex::default(),
            post: Mutex::default(),
            queue_is_ours: AtomicBool::new(true),
            took_over_from: OnceLock::new(),
        }
    }
}

impl Succession {
    pub(in crate::gate) fn phase(&self) -> watch::Receiver<Phase> {
        self.phase.subscribe()
    }

    pub(in crate::gate) fn is_replaced(&self) -> bool {
        matches!(*self.phase.borrow(), Phase::Replaced | Phase::Ended)
    }

    pub(in crate::gate) fn is_leaving(&self) -> bool {
        *self.phase.borrow() != Phase::Serving
    }

    /// SIGTERM.
    pub(in crate::gate) fn stop(&self) {
        self.move_to(Phase::Stopping, |now| now == Phase::Serving);
    }

    /// A newer gate accepts clients now. False: it is too late for that.
    pub(super) fn replace(&self, same_listener: bool) -> bool {
        self.queue_is_ours.store(!same_listener, Ordering::Relaxed);
        self.move_to(Phase::Replaced, |now| now == Phase::Serving)
    }

    /// Whether those who wait in the kernel's queue when this gate leaves would wait in vain.
    pub(in crate::gate) fn queue_is_ours(&self) -> bool {
        self.queue_is_ours.load(Ordering::Relaxed)
    }

    /// Somebody follows: if this gate is stopping, its agents are his.
    pub(in crate::gate) fn is_followed(&self) {
        self.move_to(Phase::Replaced, |now| now == Phase::Stopping);
    }

    pub(in crate::gate) fn end(&self) {
        self.move_to(Phase::Ended, |_| true);
    }

    /// False: it was not to be moved from where it is.
    fn move_to(&self, to: Phase, from: impl FnOnce(Phase) -> bool) -> bool {
        self.phase.send_if_modified(|now| {
            let may = from(*now);
            if may {
                *now = to;
            }
            may
        })
    }

    pub(in crate::gate) fn set_post(&self, post: Post) {
        *self.post.lock().unwrap_or_else(PoisonError::into_inner) = Some(post);
    }

    pub(super) fn post(&self) -> Option<Post> {
        self.post.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Lets go of the listener.
    pub(in crate::gate) fn clear_post(&self) {
        *self.post.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    pub(super) fn older(&self) -> MutexGuard<'_, Older> {
        self.older.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
