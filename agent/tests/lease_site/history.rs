//! Every revision of the lease's keys, as a watch shows them, with the invariants that hang on etcd alone.

use std::time::Instant;

use handover_proto::lease::{LeaseView, RawEntry};
use handover_store::client::{Change, Entry, Store, WatchItem};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::{PATIENCE, keys};

/// The lease's keys as of one revision.
#[derive(Debug, Clone)]
pub(crate) struct Moment {
    pub(crate) at: Instant,
    pub(crate) revision: i64,
    pub(crate) view: LeaseView,
}

pub(crate) struct History {
    seen: watch::Receiver<Vec<Moment>>,
    task: JoinHandle<()>,
}

impl History {
    pub(crate) fn follow(store: Store) -> Self {
        let (sender, seen) = watch::channel(Vec::new());
        let task = tokio::spawn(async move {
            let mut watch = store.watch(&keys().prefix(), 0);
            let mut view = LeaseView::default();
            loop {
                let (revision, changes) = match watch.next().await {
                    WatchItem::Changes { revision, changes } => (revision, changes),
                    WatchItem::Reset(listing) => {
                        view = LeaseView::default();
                        let change = |entry: Entry| Change { key: entry.key.clone(), value: Some(entry) };
                        (listing.revision, listing.entries.into_iter().map(change).collect())
                    }
                    WatchItem::Interrupted(_) => continue,
                };
                for Change { key, value } in &changes {
                    let raw = value.as_ref().map(|entry| RawEntry {
                        value: &entry.value,
                        mod_revision: entry.mod_revision,
                        create_revision: entry.create_revision,
                        lease: entry.lease,
                    });
                    view.put(&keys(), key, raw).expect("readable");
                }
                sender.send_modify(|moments| moments.push(Moment { at: Instant::now(), revision, view: view.clone() }));
            }
        });
        Self { seen, task }
    }

    /// All moments until the first in which `holds` is true, which must come.
    pub(crate) async fn until(&mut self, what: &str, holds: impl Fn(&LeaseView) -> bool) -> Vec<Moment> {
        let found = |moments: &Vec<Moment>| moments.iter().any(|moment| holds(&moment.view));
        let seen = tokio::time::timeout(PATIENCE, self.seen.wait_for(found)).await;
        let moments = seen.ok().and_then(Result::ok).map(|moments| moments.clone());
        moments.unwrap_or_else(|| panic!("never: {what}; {:#?}", self.seen.borrow().last()))
    }
}

impl Drop for History {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// I1 in every moment; tokens grow from turn to turn (I2).
pub(crate) fn assert_sound(moments: &[Moment]) {
    let mut token = None;
    for Moment { revision, view, .. } in moments {
        view.check().expect("holder and beat of one transaction");
        let beat = view.beat.as_ref().map(|beat| &beat.value.instance);
        let holder = view.holder.as_ref().and_then(|holder| holder.value.held()).map(|held| &held.owner.instance);
        assert!(beat.is_none() || beat == holder, "revision {revision}: the beat of another than the holder");
        let now = view.token().expect("a token");
        assert!(now >= token, "revision {revision}: token {now:?} after {token:?}");
        token = now;
    }
}

/// I4: from the first holder on, in every moment somebody holds and beats.
pub(crate) fn assert_never_dark(moments: &[Moment]) {
    let first = moments.iter().position(|moment| moment.view.holder.is_some()).expect("a holder");
    for Moment { revision, view, .. } in &moments[first..] {
        let held = view.holder.as_ref().and_then(|holder| holder.value.held());
        assert!(held.is_some() && view.beat.is_some(), "revision {revision}: nobody holds");
    }
}
