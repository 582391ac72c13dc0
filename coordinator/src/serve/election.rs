//! The election: a leader among equals (`DESIGN.md` §8).
//!
//! Whoever creates the leader key leads while it stands; it is bound to the leader's etcd lease. Safety does not rest on
//! time: every journal append compares the key's create revision, so a deposed leader's append writes nothing. The
//! lease only bounds how long nobody leads.

use std::time::Duration;

use handover_proto::keys::EnvKeys;
use handover_proto::numbers::Term;
use handover_proto::stored::{decode, encode};
use handover_proto::txn::{Cmp, LeaseId, Op, Txn};
use handover_store::client::{Entry, Store, StoreError};
use tokio::sync::watch;
use tokio::time::Instant;

use super::leader::{Leader, Leadership, Mandate};
use crate::world::World;

/// How long nobody leads after a leader's death, at most; above an etcd leader change (1.6 s measured), and twice what
/// etcd grants at least.
pub const LEADER_TTL: Duration = Duration::from_secs(5);
/// Two attempts that fail at other members still leave a third before the TTL has passed.
const RENEW_EVERY: Duration = Duration::from_millis(1500);
/// One renewal attempt.
const ATTEMPT: Duration = Duration::from_secs(1);
/// Pause after the store did not answer.
const RETRY: Duration = Duration::from_millis(500);

/// One coordinator's part in the election.
pub struct Election {
    store: Store,
    me: Leader,
    key: String,
    world: watch::Receiver<World>,
    out: watch::Sender<Leadership>,
}

/// The lease that our leader key is bound to.
struct Hold {
    lease: LeaseId,
    ttl: Duration,
    /// The last moment at which a renewal that succeeded was sent.
    renewed: Instant,
}

impl Election {
    /// `world` must be kept up to date by somebody else; `out` tells who leads.
    pub fn new(
        store: Store,
        keys: &EnvKeys,
        me: Leader,
        world: watch::Receiver<World>,
        out: watch::Sender<Leadership>,
    ) -> Self {
        Self { store, me, key: keys.leader(), world, out }
    }

    /// Takes part until `stop` resolves; then gives the leadership up, so that another one leads at once.
    pub async fn run(mut self, stop: impl Future<Output = ()>) {
        tokio::pin!(stop);
        loop {
            tokio::select! {
                () = &mut stop => return,
                () = self.wait_for_vacancy() => {}
            }
            let (hold, mandate) = match self.campaign().await {
                Ok(Some(won)) => won,
                Ok(None) => continue,
                Err(error) => {
                    tracing::warn!(%error, "cannot stand for election, trying again");
                    tokio::time::sleep(RETRY).await;
                    continue;
                }
            };
            tracing::info!(term = %mandate.term, endpoint = self.me.endpoint, "leading");
            let lease = hold.lease;
            self.out.send_replace(Leadership::Leading(mandate.clone()));
            let stopped = tokio::select! {
                () = &mut stop => true,
                reason = self.hold(hold, &mandate) => {
                    tracing::warn!(term = %mandate.term, reason, "no longer leading");
                    false
                }
            };
            self.out.send_replace(Leadership::Unknown);
            if let Err(error) = self.store.revoke(lease).await {
                tracing::debug!(%error, "the leader's lease was not revoked and expires by itself");
            }
            if stopped {
                return;
            }
        }
    }

    /// Returns once the leader key is absent, or names a predecessor of ours that is certainly gone.
    async fn wait_for_vacancy(&mut self) {
        loop {
            let (listed, entry) = {
                let world = self.world.borrow_and_update();
                (world.listed, world.entry(&self.key).cloned())
            };
            match entry {
                None if listed => return,
                None => {}
                Some(entry) => match decode::<Leader>(&self.key, &entry.value) {
                    Ok(leader) if self.replaces(&leader) => {
                        self.clear(&entry).await;
                    }
                    Ok(leader) => self.follow(Leadership::Following(leader)),
                    Err(error) => {
                        tracing::error!(%error, "the leader key cannot be read");
                        self.follow(Leadership::Unknown);
                    }
                },
            }
            if self.world.changed().await.is_err() {
                return std::future::pending().await;
            }
        }
    }

    fn follow(&self, leadership: Leadership) {
        self.out.send_if_modified(|known| {
            let new = *known != leadership;
            if let (true, Leadership::Following(leader)) = (new, &leadership) {
                tracing::info!(leader = leader.endpoint, host = leader.host, "following");
            }
            *known = leadership;
            new
        });
    }

    /// Whoever listens where we listen now, in the same network namespace since the same boot, has ended.
    fn replaces(&self, leader: &Leader) -> bool {
        leader.endpoint == self.me.endpoint && leader.place == self.me.place
    }

    async fn clear(&self, entry: &Entry) {
        tracing::info!(
            "the leader key is a predecessor's at our own address, which has ended: taking over without waiting"
        );
        let cmp = vec![Cmp::CreateRevision(self.key.clone(), entry.create_revision)];
        let txn = Txn { cmp, then: vec![Op::Delete(self.key.clone())], or_else: vec![] };
        if let Err(error) = self.store.txn(&txn).await {
            tracing::debug!(%error, "the predecessor's leader key was not deleted and expires by itself");
            // The world moves on while the store is away; each of its changes must not be another try.
            tokio::time::sleep(RETRY).await;
        }
    }

    /// Tries to create the leader key; `None`: another one was faster.
    async fn campaign(&self) -> Result<Option<(Hold, Mandate)>, CampaignError> {
        let era = self.world.borrow().era()?;
        let sent = Instant::now();
        let grant = self.store.grant(LEADER_TTL).await?;
        let put = Op::put_with_lease(self.key.clone(), encode(&self.me)?, grant.id);
        let txn = Txn { cmp: vec![Cmp::CreateRevision(self.key.clone(), 0)], then: vec![put], or_else: vec![] };
        let created = match self.store.txn(&txn).await {
            Ok(reply) => reply.succeeded.then_some(reply.revision),
            // The key says whether it was ours: only our lease is on ours.
            Err(StoreError::Unknown { .. }) => {
                let entry = self.store.get(&self.key).await?;
                entry.filter(|entry| entry.lease == grant.id).map(|entry| entry.create_revision)
            }
            Err(error) => return Err(error.into()),
        };
        let Some(create_revision) = created else {
            self.store.revoke(grant.id).await?;
            return Ok(None);
        };
        let term = Term::new(era, create_revision)?;
        let endpoint = self.me.endpoint.clone();
        let mandate = Mandate { key: self.key.clone(), create_revision, term, endpoint };
        Ok(Some((Hold { lease: grant.id, ttl: grant.ttl, renewed: sent }, mandate)))
    }

    /// Renews until the leadership is lost; says why.
    async fn hold(&mut self, mut hold: Hold, mandate: &Mandate) -> String {
        let barrier = Txn { then: vec![Op::Get(self.key.clone())], ..Txn::default() };
        let mut member = 0;
        loop {
            tokio::select! {
                () = self.deposed(mandate) => return "another coordinator leads, or the leader key was deleted".into(),
                () = tokio::time::sleep(RENEW_EVERY) => {}
            }
            let sent = Instant::now();
            match self.store.renew(member, hold.lease, &barrier, ATTEMPT).await {
                Ok(renewal) if renewal.ttl.is_zero() => return "the leader's lease has expired".into(),
                Ok(renewal) if !renewal.barrier.reads.iter().flatten().any(|key| mandate.is_of(key)) => {
                    return "the leader key is no longer ours".into();
                }
                Ok(_) => hold.renewed = sent,
                Err(error) => {
                    tracing::warn!(%error, "the leader's lease was not renewed, trying another member");
                    member += 1;
                    if hold.renewed.elapsed() >= hold.ttl {
                        return format!("the store has not answered for {} s", hold.ttl.as_secs());
                    }
                }
            }
        }
    }

    /// Resolves once the world shows that our leader key is gone or another's.
    async fn deposed(&mut self, mandate: &Mandate) {
        let ours = |world: &World| match world.entry(&mandate.key) {
            Some(entry) => entry.create_revision <= mandate.create_revision,
            None => world.followed() < mandate.create_revision,
        };
        if self.world.wait_for(|world| !ours(world)).await.is_err() {
            std::future::pending().await
        }
    }
}

/// Why a campaign could not be held.
#[derive(Debug, thiserror::Error)]
enum CampaignError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Stored(#[from] handover_proto::stored::StoredError),
    #[error(transparent)]
    Number(#[from] handover_proto::numbers::NumberError),
}
