//! Asks for hand-overs as the coordinator does: the intent key, under the leader's check, and nothing else.

use std::time::Duration;

use anyhow::{Result, bail};
use handover_proto::assignment::Cause;
use handover_proto::ids::{InstanceId, OpId};
use handover_proto::keys::LeaseKeys;
use handover_proto::lease::{self, Intent, IntentKind, LeaseView, RawEntry};
use handover_proto::numbers::Token;
use handover_proto::stored::STORED_VERSION;
use handover_store::client::{Entry, Store, Watch, WatchItem};

use super::site::{Leader, Site};
use crate::clock::BootNs;

/// A turn that takes longer does not come.
const LIMIT: Duration = Duration::from_secs(20);
/// As the fleet's rollouts give it.
const QUIESCE_TIMEOUT_MS: u64 = 5000;

pub(super) struct Asker {
    store: Store,
    keys: LeaseKeys,
    leader: Leader,
    view: LeaseView,
    watch: Watch,
    /// When the view's last change was heard.
    heard: BootNs,
}

/// A turn that we asked for.
#[derive(Debug, Clone, Copy)]
pub(super) struct Moved {
    /// The token of the new turn.
    pub(super) token: Token,
    /// When our own watch told of it.
    pub(super) shown: BootNs,
}

impl Asker {
    pub(super) async fn new(site: &Site) -> Result<Self> {
        let (store, keys) = (site.store.clone(), site.service.lease());
        let watch = store.watch(&keys.prefix(), 0);
        let leader = site.leader().await?;
        Ok(Self { store, keys, leader, view: LeaseView::default(), watch, heard: BootNs::default() })
    }

    /// Waits until the turn before has left nothing to do: its holder works, and `others` are ready to be the next.
    pub(super) async fn rest(&mut self, others: usize) -> Result<()> {
        let rested = |view: &LeaseView| {
            let (from, _) = next_turn(view)?;
            let ready = view.candidates.iter().filter(|(id, seen)| **id != from && seen.value.ready).count();
            (ready >= others).then_some(())
        };
        self.until("a working holder, with all others ready", rested).await
    }

    /// Hands over to the next candidate, and waits until its service works.
    pub(super) async fn hand_over(&mut self) -> Result<Moved> {
        let (from, to) = self.until("a working holder and a ready candidate beside it", next_turn).await?;
        let op = OpId::random();
        let intent = Intent {
            v: STORED_VERSION,
            op: op.clone(),
            kind: IntentKind::Handoff,
            from: from.clone(),
            to: Some(to.clone()),
            quiesce_timeout_ms: QUIESCE_TIMEOUT_MS,
            term: self.leader.term,
            cause: Cause { rollout: None, step: 0, plan_hash: String::new() },
        };
        let leader = (self.leader.key.clone(), self.leader.create_revision);
        let asked = lease::ask(&self.keys, &self.view, &intent, leader)?;
        if !self.store.txn(&asked).await?.succeeded {
            bail!("the intent was refused: the leader or the holder has changed meanwhile");
        }
        let moved = self.until("the holder to hand over", |view| outcome(view, &op, &from)).await?;
        let Some(token) = moved else { bail!("{from} declined to hand over to {to}") };
        let shown = self.heard;
        self.until("the new holder's service to work", |view| is_working(view, token).then_some(())).await?;
        Ok(Moved { token, shown })
    }

    /// Takes changes in until `found` finds what is waited for.
    async fn until<T>(&mut self, what: &str, found: impl Fn(&LeaseView) -> Option<T>) -> Result<T> {
        let end = tokio::time::Instant::now() + LIMIT;
        loop {
            if let Some(found) = found(&self.view) {
                return Ok(found);
            }
            match tokio::time::timeout_at(end, self.watch.next()).await {
                Ok(item) => self.take(item)?,
                Err(_) => bail!("waited {} s for {what}; the lease's keys: {:?}", LIMIT.as_secs(), self.view),
            }
        }
    }

    fn take(&mut self, item: WatchItem) -> Result<()> {
        self.heard = BootNs::now();
        match item {
            WatchItem::Changes { changes, .. } => {
                for change in changes {
                    self.view.put(&self.keys, &change.key, change.value.as_ref().map(raw))?;
                }
            }
            WatchItem::Reset(listing) => {
                self.view = LeaseView::default();
                for entry in &listing.entries {
                    self.view.put(&self.keys, &entry.key, Some(raw(entry)))?;
                }
            }
            WatchItem::Interrupted(error) => return Err(error.into()),
        }
        Ok(())
    }
}

pub(super) fn raw(entry: &Entry) -> RawEntry<'_> {
    let Entry { value, mod_revision, create_revision, lease, .. } = entry;
    RawEntry { value, mod_revision: *mod_revision, create_revision: *create_revision, lease: *lease }
}

fn is_working(view: &LeaseView, token: Token) -> bool {
    let holder = view.holder.as_ref().and_then(|seen| seen.value.held()).map(|held| &held.owner.instance);
    holder.and_then(|holder| view.candidates.get(holder)).is_some_and(|seen| seen.value.active == Some(token))
}

/// The holder, if its service works, and the next ready candidate in the order of instances: all get their turn.
fn next_turn(view: &LeaseView) -> Option<(InstanceId, InstanceId)> {
    view.token().ok().flatten().filter(|token| is_working(view, *token))?;
    let from = &view.holder.as_ref()?.value.held()?.owner.instance;
    let mut ready = view.candidates.iter().filter(|(id, seen)| *id != from && seen.value.ready).map(|(id, _)| id);
    let to = ready.clone().find(|id| *id > from).or_else(|| ready.next())?;
    Some((from.clone(), to.clone()))
}

/// The new turn's token, or nothing if the holder has declined; `None` while neither has happened.
fn outcome(view: &LeaseView, op: &OpId, from: &InstanceId) -> Option<Option<Token>> {
    if view.holder.as_ref().is_some_and(|seen| seen.value.op == *op) {
        return Some(view.token().ok().flatten());
    }
    let declined = view.candidates.get(from).and_then(|seen| seen.value.declined.as_ref());
    (declined == Some(op)).then_some(None)
}
