//! The floor of everything that goes through the store: one transaction, until another client's watch tells of it.

use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use handover_proto::txn::{Cmp, Op, Revision, Txn};
use handover_store::client::{Store, Watch, WatchItem};

/// Outside of every environment that a fleet here uses, so that nobody but us hears of it.
const PREFIX: &str = "/handover/v1/bench-floor/";
/// About the bytes of a holder key.
const VALUE: [u8; 450] = [b'x'; 450];

pub(super) struct Floor {
    writer: Store,
    watch: Watch,
    last: Revision,
}

impl Floor {
    /// Two clients of the store, with connections of their own.
    pub(super) async fn new(endpoints: &[String]) -> Result<Self> {
        let (writer, reader) = (Store::connect(endpoints)?, Store::connect(endpoints)?);
        let watch = reader.watch(PREFIX, 0);
        let mut floor = Self { writer, watch, last: 0 };
        // Opens the connections and the watch.
        floor.sample().await?;
        Ok(floor)
    }

    /// One transaction of the shape of a hand-over: it compares a key and writes two. From sending until the other client
    /// has heard of it.
    pub(super) async fn sample(&mut self) -> Result<Duration> {
        let keys = ["holder", "beat"].map(|name| format!("{PREFIX}{name}"));
        let txn = Txn {
            cmp: vec![Cmp::ModRevision(keys[0].clone(), self.last)],
            then: keys.into_iter().map(|key| Op::put(key, VALUE)).collect(),
            or_else: Vec::new(),
        };
        let sent = Instant::now();
        let (reply, heard) = tokio::join!(self.writer.txn(&txn), hears(&mut self.watch, self.last));
        let reply = reply?;
        if !reply.succeeded {
            bail!("somebody else writes under {PREFIX}");
        }
        self.last = reply.revision;
        Ok(heard?.duration_since(sent))
    }
}

/// When the watch tells of a revision above `last`.
async fn hears(watch: &mut Watch, last: Revision) -> Result<Instant> {
    loop {
        match watch.next().await {
            WatchItem::Changes { revision, changes } if revision > last && !changes.is_empty() => {
                return Ok(Instant::now());
            }
            // Before the first sample there is nothing, or our own of an earlier run.
            WatchItem::Changes { .. } => {}
            WatchItem::Reset(listing) if listing.entries.iter().any(|entry| entry.mod_revision > last) => {
                return Ok(Instant::now());
            }
            WatchItem::Reset(_) => {}
            WatchItem::Interrupted(error) => return Err(error.into()),
        }
    }
}
