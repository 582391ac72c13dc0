//! The handle to the store: sticky rotation over its members, and the calls that go to whichever is current.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use etcd_client::GetOptions;
use handover_proto::txn::{LeaseId, Revision, Txn};
use handover_tls::{Tls, TlsFiles};

use super::convert::{entry, mutates, name, only_lease, txn_reply, txn_request};
use super::error::{Failure, OpenError, StoreError};
use super::member::{CALL_TIMEOUT, Dial, Link, Member};
use super::{Entry, Grant, Listing, TxnReply, Watch};

/// How often each member may be tried for one call.
const ROUNDS: usize = 2;

/// A handle to the store; clones are cheap and share the connections.
///
/// A store belongs to the runtime on which its first call runs: its connections live there. A thread with a runtime of
/// its own (the lease keeper's) makes its own with [`Store::connect`].
#[derive(Clone)]
pub struct Store {
    members: Arc<[Member]>,
    current: Arc<AtomicUsize>,
    tls: Option<Tls>,
}

/// Where the store is, and with which files it is reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Access {
    /// The members, `host:port` or with a scheme.
    pub endpoints: Vec<String>,
    /// For TLS; the certificate's common name is then the user at etcd.
    pub tls: Option<TlsFiles>,
}

impl From<Vec<String>> for Access {
    /// In plain text.
    fn from(endpoints: Vec<String>) -> Self {
        Self { endpoints, tls: None }
    }
}

/// What may be done after an attempt whose outcome is open.
#[derive(Clone, Copy)]
pub(super) enum Repeat {
    /// Ask again: it changes nothing.
    Read,
    /// Ask again: twice is as good as once.
    Idempotent,
    /// Tell the caller. The lease is what an answer "lease not found" is about.
    Never(Option<LeaseId>),
}

impl Store {
    /// A store in plain text at these endpoints, `host:port` or `http://host:port`. Nothing is dialled yet.
    ///
    /// # Errors
    /// [`StoreError::BadEndpoint`] names the endpoint that cannot be one; an empty list is one too.
    pub fn connect(endpoints: &[String]) -> Result<Self, StoreError> {
        Self::at(endpoints, None)
    }

    /// A store that is reached in this way. The files are read at once; nothing is dialled yet.
    ///
    /// # Errors
    /// [`OpenError`] names the endpoint or the file that cannot be used.
    pub fn open(access: &Access) -> Result<Self, OpenError> {
        let tls = access.tls.as_ref().map(TlsFiles::open).transpose()?;
        Ok(Self::at(&access.endpoints, tls.as_ref())?)
    }

    fn at(endpoints: &[String], tls: Option<&Tls>) -> Result<Self, StoreError> {
        if endpoints.is_empty() {
            let rule = "the list of endpoints is empty".to_owned();
            return Err(StoreError::BadEndpoint { endpoint: String::new(), rule });
        }
        let members = endpoints.iter().map(|endpoint| Member::new(endpoint, tls)).collect::<Result<_, _>>()?;
        Ok(Self { members, current: Arc::default(), tls: tls.cloned() })
    }

    /// A store at these endpoints that is not reached by TCP connections of this process: a simulated network.
    ///
    /// # Errors
    /// As [`Store::connect`].
    pub fn dialled(endpoints: &[String], dial: Dial) -> Result<Self, StoreError> {
        let members = endpoints.iter().map(|endpoint| Ok(Member::new(endpoint, None)?.dialled(dial.clone())));
        let members = members.collect::<Result<_, StoreError>>()?;
        Ok(Self { members, current: Arc::default(), tls: None })
    }

    /// How many members are configured.
    pub fn members(&self) -> usize {
        self.members.len()
    }

    /// The files of TLS, if it is reached by that.
    pub fn tls(&self) -> Option<&Tls> {
        self.tls.as_ref()
    }

    /// The user that we are there: the common name of our certificate. `None`: plain text, or a certificate without one.
    pub fn user(&self) -> Option<String> {
        self.tls.as_ref()?.common_name()
    }

    /// Whether a member to which we are connected asks its clients for certificates.
    pub fn asks_for_certificates(&self) -> bool {
        self.tls.as_ref().is_some_and(Tls::was_asked)
    }

    /// The key as it stands now (linearizable), or `None` if there is no such key.
    ///
    /// # Errors
    /// [`StoreError::Unreachable`] if no member answers in two rounds, [`StoreError::Refused`].
    pub async fn get(&self, key: &str) -> Result<Option<Entry>, StoreError> {
        let call = |mut link: Link| {
            let key = key.to_owned();
            async move {
                let reply = link.kv.get(key, None).await.map_err(Failure::of)?;
                Ok(reply.kvs().first().map(entry))
            }
        };
        self.ask(&format!("reading {key}"), Repeat::Read, call).await
    }

    /// Every key that starts with `prefix`, as of one revision (linearizable).
    ///
    /// # Errors
    /// As [`Store::get`].
    pub async fn list(&self, prefix: &str) -> Result<Listing, StoreError> {
        let call = |mut link: Link| {
            let prefix = prefix.to_owned();
            async move {
                let reply = link.kv.get(prefix, Some(GetOptions::new().with_prefix())).await.map_err(Failure::of)?;
                let header = reply.header().ok_or_else(no_header)?;
                let entries = reply.kvs().iter().map(entry).collect();
                Ok(Listing { entries, revision: header.revision(), cluster_id: header.cluster_id() })
            }
        };
        self.ask(&format!("listing {prefix}"), Repeat::Read, call).await
    }

    /// One transaction. One that can write goes on to another member only if the one before certainly did nothing; one
    /// that only reads may be asked again anywhere.
    ///
    /// # Errors
    /// [`StoreError::Unknown`]: it may have been committed, read back first. [`StoreError::LeaseGone`]: a put named a
    /// dead lease, and the whole transaction did nothing. [`StoreError::Unreachable`], [`StoreError::Refused`].
    pub async fn txn(&self, txn: &Txn) -> Result<TxnReply, StoreError> {
        let call = |link: Link| commit(link, txn_request(txn));
        if mutates(txn) {
            self.ask(&name(txn), Repeat::Never(only_lease(txn)), call).await
        } else {
            self.ask(&name(txn), Repeat::Read, call).await
        }
    }

    /// A new etcd lease of at least `ttl` (rounded up to whole seconds). Tried anew if an answer is lost: the lease that
    /// may be left over has no keys and expires by itself.
    ///
    /// # Errors
    /// [`StoreError::Unreachable`], [`StoreError::Unknown`], [`StoreError::Refused`].
    pub async fn grant(&self, ttl: Duration) -> Result<Grant, StoreError> {
        let seconds = i64::try_from(ttl.as_millis().div_ceil(1000)).unwrap_or(i64::MAX);
        let call = |mut link: Link| async move {
            let reply = link.client.lease_grant(seconds, None).await.map_err(Failure::of)?;
            Ok(Grant { id: reply.id(), ttl: seconds_of(reply.ttl()) })
        };
        self.ask("granting a lease", Repeat::Idempotent, call).await
    }

    /// Ends a lease and deletes its keys. One that is gone already is a success.
    ///
    /// # Errors
    /// [`StoreError::Unreachable`], [`StoreError::Unknown`] (it may or may not be gone), [`StoreError::Refused`].
    pub async fn revoke(&self, lease: LeaseId) -> Result<(), StoreError> {
        let call = |mut link: Link| async move {
            match link.client.lease_revoke(lease).await.map_err(Failure::of) {
                Ok(_) | Err(Failure::LeaseGone) => Ok(()),
                Err(failure) => Err(failure),
            }
        };
        self.ask(&format!("revoking lease {lease:x}"), Repeat::Idempotent, call).await
    }

    /// Changes under `prefix` from revision `from` on; see [`Watch`]. With `from` 0 it begins with a listing.
    pub fn watch(&self, prefix: &str, from: Revision) -> Watch {
        Watch::new(self.clone(), prefix, from)
    }

    pub(super) fn member(&self, index: usize) -> &Member {
        &self.members[index % self.members.len()]
    }

    /// The member in use, as an index.
    pub(super) fn current(&self) -> usize {
        self.current.load(Ordering::Relaxed)
    }

    /// Leaves the member that failed, unless somebody else did so already.
    pub(super) fn leave(&self, failed: usize) {
        let next = (failed + 1) % self.members.len();
        let moved = self.current.compare_exchange(failed, next, Ordering::Relaxed, Ordering::Relaxed).is_ok();
        if moved && next != failed {
            tracing::info!(
                from = self.member(failed).endpoint(),
                to = self.member(next).endpoint(),
                "left a store member"
            );
        }
    }

    pub(super) fn endpoints(&self) -> String {
        self.members.iter().map(Member::endpoint).collect::<Vec<_>>().join(", ")
    }

    /// Asks member after member until one answers, as far as `repeat` allows it.
    pub(super) async fn ask<T, F, C>(&self, operation: &str, repeat: Repeat, call: C) -> Result<T, StoreError>
    where
        C: Fn(Link) -> F,
        F: Future<Output = Result<T, Failure>>,
    {
        let mut doubt = None;
        let mut silence = String::new();
        for _ in 0..ROUNDS * self.members.len() {
            let at = self.current();
            let endpoint = self.member(at).endpoint();
            match (self.member(at).within(CALL_TIMEOUT, &call).await, repeat) {
                (Ok(value), _) => return Ok(value),
                (Err(Failure::NotDone(reason)), _) | (Err(Failure::Uncertain(reason)), Repeat::Read) => {
                    silence = reason
                }
                (Err(Failure::Uncertain(reason)), Repeat::Idempotent) => doubt = Some((endpoint, reason)),
                (Err(failure @ Failure::Uncertain(_)), Repeat::Never(lease)) => {
                    self.leave(at);
                    return Err(failure.at(operation, endpoint, lease));
                }
                (Err(refusal), Repeat::Never(lease)) => return Err(refusal.at(operation, endpoint, lease)),
                (Err(refusal), _) => return Err(refusal.at(operation, endpoint, None)),
            }
            self.leave(at);
        }
        Err(match doubt {
            Some((endpoint, reason)) => Failure::Uncertain(reason).at(operation, endpoint, None),
            None => Failure::NotDone(silence).at(operation, &self.endpoints(), None),
        })
    }
}

pub(super) async fn commit(mut link: Link, txn: etcd_client::Txn) -> Result<TxnReply, Failure> {
    let reply = link.kv.txn(txn).await.map_err(Failure::of)?;
    txn_reply(&reply).ok_or_else(no_header)
}

pub(super) fn no_header() -> Failure {
    Failure::Uncertain("the reply has no header".to_owned())
}

/// etcd's TTLs are whole seconds; 0 and below mean that the lease is gone.
pub(super) fn seconds_of(ttl: i64) -> Duration {
    Duration::from_secs(u64::try_from(ttl).unwrap_or(0))
}
