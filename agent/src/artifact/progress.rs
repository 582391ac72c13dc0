//! How far a staging is, for whoever looks from beside it.

use std::sync::{Mutex, MutexGuard, PoisonError};

/// Written by the staging, read by anybody.
#[derive(Debug, Default)]
pub struct Progress(Mutex<Inner>);

#[derive(Debug, Default)]
struct Inner {
    waiting: Option<String>,
    verifying: bool,
    total_bytes: u64,
    whole_bytes: u64,
    /// Of the file that comes now: what is here of it, and its size.
    coming: Option<(u64, u64)>,
}

/// How far it is.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Far {
    /// Why it cannot begin, or go on, yet.
    pub waiting: Option<String>,
    /// All files are here, and are being verified.
    pub verifying: bool,
    /// Bytes of the version's files that are here.
    pub done_bytes: u64,
    /// All of them; 0: not known yet.
    pub total_bytes: u64,
}

impl Progress {
    /// How far it was when the staging looked last. Touches no file system, which may hang: the agent's loop asks.
    pub fn now(&self) -> Far {
        let inner = self.held();
        let here = inner.coming.map_or(0, |(here_bytes, _)| here_bytes);
        Far {
            waiting: inner.waiting.clone(),
            verifying: inner.verifying,
            done_bytes: inner.whole_bytes.saturating_add(here),
            total_bytes: inner.total_bytes,
        }
    }

    /// It cannot begin, or go on, yet.
    pub(crate) fn waits(&self, why: String) {
        self.held().waiting = Some(why);
    }

    /// What it waited for is over.
    pub(super) fn goes_on(&self) {
        self.held().waiting = None;
    }

    /// It begins, perhaps not for the first time.
    pub(super) fn begins(&self) {
        *self.held() = Inner::default();
    }

    /// The manifest is believed, and says so much.
    pub(super) fn will_be(&self, total_bytes: u64) {
        self.held().total_bytes = total_bytes;
    }

    /// A file of this size is on its way.
    pub(super) fn comes(&self, size_bytes: u64) {
        self.held().coming = Some((0, size_bytes));
    }

    /// So much of it is here.
    pub(super) fn has(&self, here_bytes: u64) {
        if let Some((here, size_bytes)) = &mut self.held().coming {
            *here = here_bytes.min(*size_bytes);
        }
    }

    /// It is here.
    pub(super) fn came(&self) {
        let mut inner = self.held();
        let size_bytes = inner.coming.take().map_or(0, |(_, size_bytes)| size_bytes);
        inner.whole_bytes = inner.whole_bytes.saturating_add(size_bytes);
    }

    /// Nothing more comes.
    pub(super) fn verifies(&self) {
        self.held().verifying = true;
    }

    fn held(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_here_of_a_file_that_comes_counts_but_never_more_than_it_has() {
        let progress = Progress::default();
        progress.will_be(100);
        progress.comes(40);
        progress.came();
        progress.comes(60);
        let far = |done_bytes| Far { done_bytes, total_bytes: 100, ..Far::default() };
        assert_eq!(progress.now(), far(40), "nobody has looked yet");
        progress.has(10);
        assert_eq!(progress.now(), far(50));
        progress.has(90);
        assert_eq!(progress.now(), far(100));
        progress.begins();
        assert_eq!(progress.now(), Far::default());
    }
}
