//! Requests on a shared connection, and what becomes of it when one of them cannot be ended alone.
//!
//! hyper resets a stream of HTTP/2 when both its bodies are let go of. A request body that waits for the service to take more
//! is not asked for anything, so it lets go of nothing, and hyper gives no handle to its stream. Such a request is given up:
//! its connection takes no new ones, and is closed once only such are left on it. Whoever else is on it is not disturbed; a
//! drain waits for those in any case, so that it waits no longer than without.

use std::future::Future;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use tokio_util::sync::CancellationToken;

/// How long hyper may take to let go of a body by itself. Mostly it does so at once.
const LET_GO: Duration = Duration::from_secs(1);

/// The requests on one connection.
#[derive(Debug, Default)]
pub(super) struct Places {
    counts: Mutex<Counts>,
    closed: CancellationToken,
}

#[derive(Debug, Default)]
struct Counts {
    taken: usize,
    given_up: usize,
    closed: bool,
}

impl Counts {
    fn takes_more(&self) -> bool {
        self.given_up == 0 && !self.closed
    }
}

/// One request's place, until its answer and its request body are gone.
#[derive(Debug)]
pub(super) struct Taken {
    on: Arc<Places>,
    given_up: AtomicBool,
}

impl Places {
    /// Takes one; none if the connection is to have no more.
    pub(super) fn take(self: &Arc<Self>) -> Option<Arc<Taken>> {
        let mut counts = self.lock();
        counts.takes_more().then(|| {
            counts.taken += 1;
            Arc::new(Taken { on: Arc::clone(self), given_up: AtomicBool::new(false) })
        })
    }

    /// How many are taken; none if the connection is to have no more.
    pub(super) fn taken(&self) -> Option<usize> {
        let counts = self.lock();
        counts.takes_more().then_some(counts.taken)
    }

    /// Spawns what serves the connection; it is dropped when the connection is to be closed.
    pub(super) fn spawn<F: Future + Send + 'static>(&self, future: F) {
        let closed = self.closed.clone();
        tokio::spawn(async move { drop(closed.run_until_cancelled(future).await) });
    }

    fn change(&self, change: impl FnOnce(&mut Counts)) {
        let mut counts = self.lock();
        change(&mut counts);
        let useless = counts.given_up > 0 && counts.given_up == counts.taken;
        counts.closed |= useless;
        drop(counts);
        if useless {
            tracing::debug!("a shared connection is closed: the service takes nothing of what is left on it");
            self.closed.cancel();
        }
    }

    fn lock(&self) -> MutexGuard<'_, Counts> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Taken {
    fn give_up(&self) {
        if !self.given_up.swap(true, Ordering::Relaxed) {
            self.on.change(|counts| counts.given_up += 1);
        }
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        let given_up = usize::from(*self.given_up.get_mut());
        self.on.change(|counts| {
            counts.taken -= 1;
            counts.given_up -= given_up;
        });
    }
}

/// Gives a request up, unless it is over within a moment.
pub(super) fn give_up(taken: Weak<Taken>) {
    // Outside a runtime the process is ending, and so are its connections.
    if let (true, Ok(runtime)) = (taken.strong_count() > 0, tokio::runtime::Handle::try_current()) {
        runtime.spawn(async move {
            tokio::time::sleep(LET_GO).await;
            if let Some(taken) = taken.upgrade() {
                taken.give_up();
            }
        });
    }
}

/// Runs hyper's own tasks for one connection.
#[derive(Debug, Clone)]
pub(super) struct Runner(pub(super) Arc<Places>);

impl<F: Future + Send + 'static> hyper::rt::Executor<F> for Runner {
    fn execute(&self, future: F) {
        self.0.spawn(future);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn take(places: &Arc<Places>) -> Arc<Taken> {
        places.take().expect("a place")
    }

    #[test]
    fn a_connection_is_closed_when_only_what_was_given_up_is_left_on_it() {
        let places = Arc::new(Places::default());
        let (stuck, other, last) = (take(&places), take(&places), take(&places));
        assert_eq!(places.taken(), Some(3));
        stuck.give_up();
        stuck.give_up();
        assert_eq!(
            (places.taken(), places.closed.is_cancelled()),
            (None, false),
            "nothing new, and nobody is disturbed"
        );
        drop(other);
        assert!(!places.closed.is_cancelled());
        drop(last);
        assert!(places.closed.is_cancelled());
        drop(stuck);
        assert_eq!(places.taken(), None);
    }

    #[test]
    fn a_connection_whose_stuck_request_ended_after_all_is_used_again() {
        let places = Arc::new(Places::default());
        let (stuck, other) = (take(&places), take(&places));
        stuck.give_up();
        drop(stuck);
        assert_eq!((places.taken(), places.closed.is_cancelled()), (Some(1), false));
        drop(other);
        assert_eq!((places.taken(), places.closed.is_cancelled()), (Some(0), false));
    }
}
