//! A watch that resumes by itself: nothing is missed, and whatever could not be followed is listed again.

mod stream;

use std::collections::VecDeque;
use std::time::Duration;

use etcd_client::proto::{PbEvent, PbKeyValue};
use handover_proto::txn::Revision;
use tokio::time::{Instant, sleep_until};

use super::error::{Failure, StoreError};
use super::{Entry, Listing, Store};
use stream::{Heard, Opened, Stream};

/// Rest after the first failure in a row; doubled with each further one.
const FIRST_REST: Duration = Duration::from_millis(50);
/// Longest rest: a store that comes back is noticed within about a second.
const LONGEST_REST: Duration = Duration::from_secs(1);

/// One key that changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// The key.
    pub key: String,
    /// How it stands now; `None`: deleted, or expired with its lease.
    pub value: Option<Entry>,
}

/// What [`Watch::next`] yields.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WatchItem {
    /// Everything under the prefix that changed in one revision. With no changes in it: the watch follows again after an
    /// interruption.
    Changes {
        /// The revision.
        revision: Revision,
        /// The changes of this revision, in key order of the store.
        changes: Vec<Change>,
    },
    /// The changes up to here can no longer be had (compacted, or the store is another one): forget what was known under
    /// the prefix and take this instead. A lower revision or another cluster id than before means a restored or replaced
    /// store.
    Reset(Listing),
    /// The watch is cut off for now and resumes by itself: what is known may be stale until the next item of another kind.
    Interrupted(StoreError),
}

/// An endless watch on a prefix.
pub struct Watch {
    store: Store,
    prefix: String,
    /// The first revision not yet seen.
    next: Revision,
    cluster_id: Option<u64>,
    stage: Stage,
    ready: VecDeque<WatchItem>,
    failures: u32,
}

enum Stage {
    /// The past cannot be followed: take the present.
    Listing,
    /// Ask the current member to watch.
    Opening,
    /// Wait before the next attempt.
    Resting(Instant, Box<Stage>),
    /// A member tells us of changes.
    Following(Box<Stream>),
}

impl Watch {
    pub(super) fn new(store: Store, prefix: &str, from: Revision) -> Self {
        let stage = if from > 0 { Stage::Opening } else { Stage::Listing };
        let prefix = prefix.to_owned();
        Self { store, prefix, next: from, cluster_id: None, stage, ready: VecDeque::new(), failures: 0 }
    }

    /// The next item, waiting as long as it takes. May be dropped and called again without missing anything.
    pub async fn next(&mut self) -> WatchItem {
        loop {
            if let Some(item) = self.ready.pop_front() {
                return item;
            }
            match &mut self.stage {
                Stage::Listing => {
                    let listing = self.store.list(&self.prefix).await;
                    self.listed(listing);
                }
                Stage::Opening => {
                    let at = self.store.current();
                    let opened = Stream::open(&self.store, at, &self.prefix, self.next).await;
                    let opened = self.judge(opened).await;
                    self.opened(at, opened);
                }
                Stage::Resting(until, _) => {
                    sleep_until(*until).await;
                    self.rested();
                }
                Stage::Following(stream) => {
                    let heard = stream.next(&self.store).await;
                    let at = stream.at();
                    self.heard(at, heard);
                }
            }
        }
    }

    fn listed(&mut self, listing: Result<Listing, StoreError>) {
        match listing {
            Ok(listing) => {
                self.next = listing.revision + 1;
                self.cluster_id = Some(listing.cluster_id);
                self.stage = Stage::Opening;
                self.ready.push_back(WatchItem::Reset(listing));
            }
            Err(error) => self.interrupted(error, Stage::Listing),
        }
    }

    /// Whether a stream that was opened goes on where we were, or begins in another past.
    async fn judge(&self, opened: Result<Opened, Failure>) -> Result<Option<Opened>, Failure> {
        let opened = opened?;
        if self.cluster_id.is_some_and(|known| known != opened.cluster_id) {
            return Ok(None);
        }
        if opened.revision + 1 >= self.next {
            return Ok(Some(opened));
        }
        // The member lags, or the store was restored: a linearizable read knows.
        let listing = self.store.list(&self.prefix).await.map_err(|error| Failure::Uncertain(error.to_string()))?;
        Ok((listing.revision + 1 >= self.next).then_some(opened))
    }

    fn opened(&mut self, at: usize, opened: Result<Option<Opened>, Failure>) {
        match opened {
            Err(failure) => self.broke(at, failure),
            Ok(None) => {
                tracing::warn!(prefix = self.prefix, "the store is another one or was restored: listing again");
                self.stage = self.rest(Stage::Listing);
            }
            Ok(Some(opened)) => {
                self.cluster_id = Some(opened.cluster_id);
                if self.failures > 0 {
                    self.failures = 0;
                    self.ready.push_back(WatchItem::Changes { revision: self.next - 1, changes: Vec::new() });
                }
                self.stage = Stage::Following(Box::new(opened.stream));
                self.heard(at, Heard::Response(opened.created));
            }
        }
    }

    fn heard(&mut self, at: usize, heard: Heard) {
        match heard {
            Heard::Response(response) if response.compact_revision() > 0 => self.stage = Stage::Listing,
            Heard::Response(response) if response.canceled() => {
                let reason = format!("the store cancelled the watch: {:?}", response.cancel_reason());
                self.broke(at, Failure::Uncertain(reason));
            }
            Heard::Response(response) => self.take(response.0.events),
            Heard::TooMuch => {
                tracing::warn!(prefix = self.prefix, "too much has changed to be told at once: listing again");
                self.stage = self.rest(Stage::Listing);
            }
            Heard::Lost(failure) => self.broke(at, failure),
        }
    }

    /// Splits a response, which may hold several revisions, into one item each.
    fn take(&mut self, events: Vec<PbEvent>) {
        for event in events {
            let deleted = event.r#type == 1;
            let Some(kv) = event.kv else { continue };
            let revision = kv.mod_revision;
            let change = change(kv, deleted);
            match self.ready.back_mut() {
                Some(WatchItem::Changes { revision: last, changes }) if *last == revision => changes.push(change),
                _ => self.ready.push_back(WatchItem::Changes { revision, changes: vec![change] }),
            }
            self.next = self.next.max(revision + 1);
        }
    }

    fn broke(&mut self, at: usize, failure: Failure) {
        self.store.leave(at);
        let watching = format!("watching {}", self.prefix);
        let error = failure.of_reading().at(&watching, self.store.member(at).endpoint(), None);
        self.interrupted(error, Stage::Opening);
    }

    fn interrupted(&mut self, error: StoreError, then: Stage) {
        tracing::debug!(prefix = self.prefix, next = self.next, %error, "watch interrupted");
        self.stage = self.rest(then);
        self.ready.push_back(WatchItem::Interrupted(error));
    }

    fn rest(&mut self, then: Stage) -> Stage {
        let rest = LONGEST_REST.min(FIRST_REST * 2u32.saturating_pow(self.failures.min(8)));
        self.failures += 1;
        Stage::Resting(Instant::now() + rest, Box::new(then))
    }

    fn rested(&mut self) {
        if let Stage::Resting(_, then) = std::mem::replace(&mut self.stage, Stage::Opening) {
            self.stage = *then;
        }
    }
}

fn change(kv: PbKeyValue, deleted: bool) -> Change {
    let key = String::from_utf8_lossy(&kv.key).into_owned();
    let value = (!deleted).then(|| Entry {
        key: key.clone(),
        value: kv.value,
        mod_revision: kv.mod_revision,
        create_revision: kv.create_revision,
        lease: kv.lease,
    });
    Change { key, value }
}
