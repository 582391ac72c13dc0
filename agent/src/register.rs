//! The agent in the store: its registration, its alive key, and the assignment under its own key.

use std::time::Duration;

use handover_proto::ids::AgentId;
use handover_proto::keys::ServiceKeys;
use handover_proto::numbers::{Serial, Term};
use handover_proto::registration::{ALIVE_TTL, Alive, Registration};
use handover_proto::staging::StagingRequest;
use handover_proto::stored::{STORED_VERSION, StoredError, decode, encode};
use handover_proto::txn::{Cmp, LeaseId, Op, Txn};
use handover_store::client::{Entry, Store, StoreError, WatchItem};
use tokio::sync::{mpsc, watch};
use tracing::{debug, info, warn};

use crate::core::accept::Offer;

/// Three renewals fit into the TTL, so that one lost renewal is not a lost name.
const RENEW_EVERY: Duration = Duration::from_secs(10);
const RENEW_LIMIT: Duration = Duration::from_secs(2);
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// Why a registration failed.
#[derive(Debug, thiserror::Error)]
pub enum RegisterError {
    /// Another live agent has the name.
    #[error(
        "an agent named {agent} is already running on host {host} (state directory {owner}); give this one another name in \
         its config, or stop the other"
    )]
    NameTaken {
        /// The name.
        agent: AgentId,
        /// Where the other one runs.
        host: String,
        /// Its state directory's id.
        owner: String,
    },
    /// The store does not answer.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// What stands there cannot be read.
    #[error(transparent)]
    Garbled(#[from] StoredError),
    /// Somebody else wrote at the same moment.
    #[error("the registration of {0} changed while it was being written; trying again")]
    Raced(AgentId),
}

/// What the store tells the agent's main loop.
#[derive(Debug)]
pub enum FromStore {
    /// The name is ours.
    Registered,
    /// The name is somebody else's.
    Refused(RegisterError),
    /// The assignment as it stands in the store.
    Assigned(Offer),
    /// The store does not answer; the text says what was tried.
    Away(String),
}

/// Registers once.
///
/// # Errors
/// [`RegisterError`]; nothing is registered then.
pub async fn register(store: &Store, keys: &ServiceKeys, me: &Registration) -> Result<LeaseId, RegisterError> {
    let (name, alive_key) = (keys.agent(&me.agent), keys.alive(&me.agent));
    let (found, alive) = (store.get(&name).await?, store.get(&alive_key).await?);
    if let Some(alive) = &alive {
        let owner = decode::<Alive>(&alive_key, &alive.value)?.state_dir_id;
        let other = found.as_ref().and_then(|found| decode::<Registration>(&name, &found.value).ok());
        // We listen where the other one did, in the same boot: it is us, before our state directory was lost.
        let is_us = other.as_ref().is_some_and(|other| other.endpoint == me.endpoint && other.boot_id == me.boot_id);
        if owner != me.state_dir_id && !is_us {
            let host = other;
            let host = host.map_or_else(|| "unknown".into(), |other| other.host);
            return Err(RegisterError::NameTaken { agent: me.agent.clone(), host, owner });
        }
    }
    let grant = store.grant(ALIVE_TTL).await?;
    let value = Alive { v: STORED_VERSION, state_dir_id: me.state_dir_id.clone() };
    let revision = |entry: &Option<Entry>| entry.as_ref().map_or(0, |entry| entry.mod_revision);
    let txn = Txn {
        cmp: vec![
            Cmp::ModRevision(name.clone(), revision(&found)),
            Cmp::ModRevision(alive_key.clone(), revision(&alive)),
        ],
        then: vec![Op::put(name, encode(me)?), Op::put_with_lease(alive_key, encode(&value)?, grant.id)],
        or_else: Vec::new(),
    };
    match store.txn(&txn).await?.succeeded {
        true => Ok(grant.id),
        false => Err(RegisterError::Raced(me.agent.clone())),
    }
}

/// Keeps the registration alive for ever; a lost one is made again.
pub async fn stay_registered(store: Store, keys: ServiceKeys, me: Registration, out: mpsc::Sender<FromStore>) {
    let mut member = 0;
    loop {
        let lease = match register(&store, &keys, &me).await {
            Ok(lease) => lease,
            Err(error) => {
                warn!(%error, "not registered");
                let said = match error {
                    refused @ RegisterError::NameTaken { .. } => FromStore::Refused(refused),
                    other => FromStore::Away(other.to_string()),
                };
                if out.send(said).await.is_err() {
                    return;
                }
                tokio::time::sleep(RETRY_AFTER).await;
                continue;
            }
        };
        info!(agent = %me.agent, "registered");
        if out.send(FromStore::Registered).await.is_err() {
            return;
        }
        keep_alive(&store, &keys, &me.agent, lease, &mut member).await;
    }
}

/// Returns when the etcd lease is gone.
async fn keep_alive(store: &Store, keys: &ServiceKeys, agent: &AgentId, lease: LeaseId, member: &mut usize) {
    let look = Txn { then: vec![Op::Get(keys.alive(agent))], ..Txn::default() };
    let mut wait = RENEW_EVERY;
    loop {
        tokio::time::sleep(wait).await;
        wait = RENEW_EVERY;
        match store.renew(*member, lease, &look, RENEW_LIMIT).await {
            Ok(renewal) if renewal.ttl.is_zero() => return,
            Ok(renewal) if !matches!(&renewal.barrier.reads[..], [Some(entry)] if entry.lease == lease) => return,
            Ok(_) => {}
            Err(StoreError::LeaseGone { .. }) => return,
            Err(error) => {
                warn!(%error, "the registration was not renewed");
                (*member, wait) = (member.wrapping_add(1), RETRY_AFTER);
            }
        }
    }
}

/// Follows the agent's own assignment: as it stands at the start, then every change.
pub async fn follow_assignment(store: Store, keys: ServiceKeys, agent: AgentId, out: mpsc::Sender<FromStore>) {
    let key = keys.assigned(&agent);
    let listing = loop {
        match store.list(&key).await {
            Ok(listing) => break listing,
            Err(error) => {
                if out.send(FromStore::Away(error.to_string())).await.is_err() {
                    return;
                }
                tokio::time::sleep(RETRY_AFTER).await;
            }
        }
    };
    let from = listing.revision + 1;
    let mut entries = listing.entries;
    let mut watch = store.watch(&key, from);
    loop {
        // The prefix also covers names that begin with ours.
        for entry in entries.drain(..).filter(|entry| entry.key == key) {
            let said = match offer(entry) {
                Ok(offer) => FromStore::Assigned(offer),
                Err(error) => FromStore::Away(error.to_string()),
            };
            if out.send(said).await.is_err() {
                return;
            }
        }
        entries = match watch.next().await {
            WatchItem::Changes { changes, .. } => changes.into_iter().filter_map(|change| change.value).collect(),
            WatchItem::Reset(listing) => listing.entries,
            WatchItem::Interrupted(error) => {
                if out.send(FromStore::Away(error.to_string())).await.is_err() {
                    return;
                }
                Vec::new()
            }
        };
    }
}

/// What the staging key says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Requested {
    /// It has not been read, for this reason.
    Unread(String),
    /// As it stands; none: nothing is asked for.
    Known(Option<(Serial, StagingRequest)>),
}

/// Follows what is to be staged. With the store away, what was asked for last still is.
pub async fn follow_staging(store: Store, keys: ServiceKeys, out: watch::Sender<Requested>) {
    let (prefix, key) = (keys.stagings(), keys.staging());
    let tell = |said: Requested| {
        out.send_if_modified(|before| {
            let changed = *before != said;
            *before = said;
            changed
        });
    };
    let listing = loop {
        match store.list(&prefix).await {
            Ok(listing) => break listing,
            Err(error) => tell(Requested::Unread(crate::report::chain(&error))),
        }
        tokio::time::sleep(RETRY_AFTER).await;
    };
    let of_listing = |entries: Vec<Entry>| requested(entries.into_iter().find(|entry| entry.key == key));
    let mut watch = store.watch(&prefix, listing.revision + 1);
    tell(of_listing(listing.entries));
    while !out.is_closed() {
        match watch.next().await {
            WatchItem::Changes { changes, .. } => {
                changes.into_iter().filter(|change| change.key == key).for_each(|change| tell(requested(change.value)));
            }
            WatchItem::Reset(listing) => tell(of_listing(listing.entries)),
            WatchItem::Interrupted(error) => debug!(%error, "the staging key is not followed for now"),
        }
    }
}

fn requested(entry: Option<Entry>) -> Requested {
    let Some(entry) = entry else { return Requested::Known(None) };
    match decode::<StagingRequest>(&entry.key, &entry.value) {
        Ok(request) if request.v != STORED_VERSION => {
            Requested::Unread(format!("the request to stage has the stored form {}; upgrade this agent", request.v))
        }
        Ok(request) => Requested::Known(Some((Serial(entry.mod_revision), request))),
        Err(error) => Requested::Unread(crate::report::chain(&error)),
    }
}

fn offer(entry: Entry) -> Result<Offer, StoredError> {
    /// Only the term is needed to judge it; the rest is parsed once it is judged.
    #[derive(serde::Deserialize)]
    struct Head {
        term: Term,
    }
    let head: Head = decode(&entry.key, &entry.value)?;
    let text = String::from_utf8_lossy(&entry.value).into_owned();
    Ok(Offer { term: head.term, serial: Serial(entry.mod_revision), text })
}
