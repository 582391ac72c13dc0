//! The lease's history, recorded by the leading coordinator.
//!
//! Level by level, like everything else: whatever the holder key shows that is not recorded yet is recorded. Where the
//! view has jumped over turns (no coordinator ran, or two came at once), they are read from the store's own history, if
//! that still has them; if not, the gap stays visible in the turns' numbers.

use std::sync::Arc;
use std::time::Duration;

use handover_proto::ids::Service;
use handover_proto::lease::{Holder, Seen};
use handover_proto::stored::{StoredError, decode, encode};
use handover_proto::txn::{Op, Txn};
use handover_store::client::{Entry, Store, StoreError, WatchItem};
use tokio::sync::watch;

use super::journal::{Appended, insist};
use super::leader::Mandate;
use crate::clock::wall_ms;
use crate::core::turns::{KEPT, TurnRecord};
use crate::world::World;

/// Longest wait for the store's history.
const CATCH_UP: Duration = Duration::from_secs(5);
/// Pause after something went wrong.
const AGAIN: Duration = Duration::from_secs(1);

/// Records turns while this coordinator leads.
pub(super) struct Recorder {
    store: Store,
    world: Arc<watch::Sender<World>>,
    mandate: Mandate,
}

/// Why nothing is recorded.
#[derive(Debug, thiserror::Error)]
enum RecordError {
    #[error("this coordinator no longer leads")]
    Deposed,
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Stored(#[from] StoredError),
}

impl Recorder {
    /// Under `mandate`.
    pub(super) fn new(store: Store, world: Arc<watch::Sender<World>>, mandate: Mandate) -> Self {
        Self { store, world, mandate }
    }

    /// Records until the leadership is lost.
    pub(super) async fn run(self) {
        let mut changes = self.world.subscribe();
        loop {
            let edits = changes.borrow_and_update().edits;
            match self.round().await {
                Ok(()) => {}
                Err(RecordError::Deposed) => return,
                Err(error) => {
                    tracing::warn!(error = crate::cause::chain(&error), "the lease's history is not recorded");
                    tokio::time::sleep(AGAIN).await;
                    continue;
                }
            }
            if changes.wait_for(|world| world.edits != edits).await.is_err() {
                return;
            }
        }
    }

    async fn round(&self) -> Result<(), RecordError> {
        let services = self.world.borrow().services();
        for service in services {
            self.look(&service).await?;
        }
        Ok(())
    }

    async fn look(&self, service: &Service) -> Result<(), RecordError> {
        let (lease, newest, gone, orders) = {
            let world = self.world.borrow();
            let newest = world.turns(service)?.pop();
            (world.lease(service)?, newest, world.beat_gone(service), world.orders(service))
        };
        let Some(holder) = &lease.holder else { return Ok(()) };
        let recorded = newest.as_ref().map_or(0, |newest| newest.revision);
        if recorded < holder.mod_revision {
            let missed = newest.as_ref().is_none_or(|newest| newest.turn.saturating_add(1) < holder.value.turn);
            let between =
                if missed { self.history(service, recorded + 1, holder.mod_revision).await } else { Vec::new() };
            for turn in between.iter().chain([holder]) {
                let record = TurnRecord::of(turn, &orders, self.mandate.term).seen(&lease, wall_ms(), gone);
                self.write(service, &record).await?;
            }
        } else if let Some(newest) = newest {
            let seen = newest.seen(&lease, wall_ms(), gone);
            if seen != newest {
                self.write(service, &seen).await?;
            }
        }
        Ok(())
    }

    /// The holder key's values from one revision on, before another one.
    async fn history(&self, service: &Service, from: i64, until: i64) -> Vec<Seen<Holder>> {
        let key = self.world.borrow().keys.service(service).lease().holder();
        let mut watch = self.store.watch(&key, from);
        let mut turns = Vec::new();
        let reading = async {
            while let WatchItem::Changes { revision, changes } = watch.next().await {
                let values = changes.into_iter().filter_map(|change| change.value).filter(|entry| entry.key == key);
                turns.extend(values.filter(|entry| entry.mod_revision < until).filter_map(|entry| seen(&entry)));
                if revision >= until {
                    return;
                }
            }
            tracing::info!(%service, "the store no longer has the turns that no coordinator saw: a gap stays");
        };
        if tokio::time::timeout(CATCH_UP, reading).await.is_err() {
            tracing::warn!(%service, "the store's history was not read in time: a gap stays in the lease's history");
        }
        turns
    }

    async fn write(&self, service: &Service, record: &TurnRecord) -> Result<(), RecordError> {
        let keys = self.world.borrow().keys.service(service);
        let mut txn = Txn {
            cmp: vec![self.mandate.compare()],
            then: vec![Op::put(keys.turn(record.turn), encode(record)?)],
            or_else: vec![],
        };
        if let Some(old) = record.turn.checked_sub(KEPT) {
            txn.then.push(Op::Delete(keys.turn(old)));
        }
        // Twice the same is as good as once.
        let reply = insist(&self.store, &txn).await?;
        if !reply.succeeded {
            return Err(RecordError::Deposed);
        }
        let Appended { entries, deleted, serial } = Appended::of(&txn, reply.revision);
        self.world.send_modify(|world| world.wrote(entries, &deleted, serial.0));
        Ok(())
    }
}

fn seen(entry: &Entry) -> Option<Seen<Holder>> {
    let value = decode(&entry.key, &entry.value).ok()?;
    let Entry { mod_revision, create_revision, lease, .. } = *entry;
    Some(Seen { value, mod_revision, create_revision, lease })
}
