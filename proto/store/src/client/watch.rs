//! A watch that resumes by itself: nothing is missed, and whatever could not be followed is listed again.

use std::collections::VecDeque;
use std::time::Duration;

use etcd_client::proto::PbEvent;
use etcd_client::{Error as EtcdError, WatchOptions, WatchResponse, WatchStream};
use handover_proto::txn::Revision;
use tokio::time::{Instant, sleep_until};
use tonic::Code;

use super::error::{Failure, StoreError};
use super::member::{CALL_TIMEOUT, Link};
use super::store::no_header;
use super::{Entry, Listing, Store};

/// Rest after the first failure in a row; doubled with each further one.
const FIRST_REST: Duration = Duration::from_millis(50);
/// A watch that was told nothing for so long asks for progress; without an answer the member counts as silent.
const QUIET: Duration = Duration::from_secs(1);
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
    /// This member tells us of changes.
    Following(Box<Following>),
}

struct Following {
    at: usize,
    /// Number of the connection.
    link: u64,
    stream: WatchStream,
    /// When it was last heard of.
    heard: Instant,
    /// When it was asked whether it is still there, unless it has answered since.
    asked: Option<Instant>,
}

enum Told {
    Something(Result<Option<WatchResponse>, EtcdError>),
    Nothing,
}

impl Following {
    /// What comes next, or nothing when it is time to ask or to give up. Loses nothing when dropped.
    async fn listen(&mut self) -> Told {
        let patience = self.asked.map_or(self.heard + QUIET, |asked| asked + CALL_TIMEOUT);
        tokio::select! {
            // What has come counts, however late we look.
            biased;
            told = self.stream.message() => {
                (self.heard, self.asked) = (Instant::now(), None);
                Told::Something(told)
            }
            () = sleep_until(patience) => Told::Nothing,
        }
    }
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
                    let opened = self.open(at).await;
                    self.opened(at, opened);
                }
                Stage::Resting(until, _) => {
                    sleep_until(*until).await;
                    self.rested();
                }
                Stage::Following(following) => match following.listen().await {
                    Told::Something(told) => {
                        let at = following.at;
                        self.told(at, told);
                    }
                    Told::Nothing => self.ask_progress().await,
                },
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

    /// Opens a stream and reads the answer to it, which comes before any change.
    async fn open(&self, at: usize) -> Result<Opened, Failure> {
        let (prefix, from) = (self.prefix.clone(), self.next);
        let ask = |mut link: Link| async move {
            let options = WatchOptions::new().with_prefix().with_start_revision(from);
            let mut stream = link.watch.watch(prefix, Some(options)).await.map_err(Failure::of)?;
            let created = stream.message().await.map_err(Failure::of)?;
            let created = created.ok_or_else(|| Failure::Uncertain("the stream ended at once".to_owned()))?;
            let header = created.header().ok_or_else(no_header)?;
            let (cluster_id, revision) = (header.cluster_id(), header.revision());
            Ok(Opened { stream, created, cluster_id, revision, link: link.number() })
        };
        let opened = self.store.member(at).within(CALL_TIMEOUT, ask).await?;
        if opened.revision + 1 < self.next && self.went_back().await? {
            return Ok(Opened { revision: 0, ..opened });
        }
        Ok(opened)
    }

    /// A member that is behind our revision lags, or the store was restored: a linearizable read knows.
    async fn went_back(&self) -> Result<bool, Failure> {
        let listing = self.store.list(&self.prefix).await.map_err(|error| Failure::Uncertain(error.to_string()))?;
        Ok(listing.revision + 1 < self.next)
    }

    fn opened(&mut self, at: usize, opened: Result<Opened, Failure>) {
        let opened = match opened {
            Ok(opened) => opened,
            Err(failure) => return self.broke(at, failure),
        };
        let same = self.cluster_id.is_none_or(|known| known == opened.cluster_id);
        if !same || opened.revision == 0 {
            tracing::warn!(prefix = self.prefix, "the store is another one or was restored: listing again");
            self.stage = self.rest(Stage::Listing);
            return;
        }
        self.cluster_id = Some(opened.cluster_id);
        if opened.created.canceled() {
            return self.told(at, Ok(Some(opened.created)));
        }
        if self.failures > 0 {
            self.failures = 0;
            self.ready.push_back(WatchItem::Changes { revision: self.next - 1, changes: Vec::new() });
        }
        let (link, stream) = (opened.link, opened.stream);
        self.stage = Stage::Following(Box::new(Following { at, link, stream, heard: Instant::now(), asked: None }));
    }

    /// It was quiet: asks whether the member is still there, or gives it up if it was asked before.
    async fn ask_progress(&mut self) {
        let Stage::Following(following) = &mut self.stage else { return };
        let (at, link) = (following.at, following.link);
        let failure = if following.asked.is_some() {
            let silence = following.heard.elapsed();
            Failure::Uncertain(format!("the member is silent since {} ms", silence.as_millis()))
        } else {
            match following.stream.request_progress().await {
                Ok(()) => {
                    following.asked = Some(Instant::now());
                    return;
                }
                Err(error) => Failure::of(error),
            }
        };
        self.store.member(at).abandon(link);
        self.broke(at, failure);
    }

    fn told(&mut self, at: usize, told: Result<Option<WatchResponse>, EtcdError>) {
        match told {
            Ok(Some(response)) if response.compact_revision() > 0 => self.stage = Stage::Listing,
            Ok(Some(response)) if response.canceled() => {
                let reason = format!("the store cancelled the watch: {:?}", response.cancel_reason());
                self.broke(at, Failure::Uncertain(reason));
            }
            Ok(Some(response)) => self.take(response.0.events),
            Ok(None) => self.broke(at, Failure::Uncertain("the stream ended".to_owned())),
            Err(EtcdError::GRpcStatus(status)) if status.code() == Code::OutOfRange => {
                tracing::warn!(prefix = self.prefix, %status, "too much has changed to be told at once: listing again");
                self.stage = self.rest(Stage::Listing);
            }
            Err(error) => self.broke(at, Failure::of(error)),
        }
    }

    /// Splits a response, which may hold several revisions, into one item each.
    fn take(&mut self, events: Vec<PbEvent>) {
        for event in events {
            let deleted = event.r#type == 1;
            let Some(kv) = event.kv else { continue };
            let revision = kv.mod_revision;
            if revision < self.next && !self.is_last(revision) {
                continue;
            }
            let change = change(kv, deleted);
            match self.ready.back_mut() {
                Some(WatchItem::Changes { revision: last, changes }) if *last == revision => changes.push(change),
                _ => self.ready.push_back(WatchItem::Changes { revision, changes: vec![change] }),
            }
            self.next = self.next.max(revision + 1);
        }
    }

    /// Whether the item being filled is the one of this revision.
    fn is_last(&self, revision: Revision) -> bool {
        matches!(self.ready.back(), Some(WatchItem::Changes { revision: last, .. }) if *last == revision)
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

struct Opened {
    link: u64,
    stream: WatchStream,
    created: WatchResponse,
    cluster_id: u64,
    /// The member's revision; 0 stands for "the store went back behind us".
    revision: Revision,
}

fn change(kv: etcd_client::proto::PbKeyValue, deleted: bool) -> Change {
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
