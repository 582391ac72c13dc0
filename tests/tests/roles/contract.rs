//! What everybody can do: a lease's whole life with the agents' certificate, the journal with the coordinator's.

use std::time::Duration;

use anyhow::{Context, Result};
use handover_proto::ids::{InstanceId, OpId, RolloutId};
use handover_proto::lease::{
    Assertion, BreakGlass, Candidate, Intent, IntentKind, LeaseView, Owner, RawEntry, Stamp, StopProof, Turn, acquire,
    ask, break_glass, hand_over, list_agents, mint, raise_era, read, release,
};
use handover_proto::numbers::Era;
use handover_proto::stored::{STORED_VERSION, encode};
use handover_proto::txn::{Cmp, LeaseId, Op, Txn};
use handover_store::client::{Store, StoreError, WatchItem};
use serde_json::json;

use crate::site::{Site, env, lease, programs, service};

const TTL: Duration = Duration::from_secs(10);

/// A candidate with its own etcd lease.
struct Agent {
    store: Store,
    owner: Owner,
    lease: LeaseId,
}

impl Agent {
    async fn new(store: Store, name: &str) -> Result<Self> {
        let owner = json!({
            "instance": InstanceId::random(), "agent": name, "host": name, "boot_id": "b", "version": "1.0.0",
        });
        let lease = store.grant(TTL).await?.id;
        Ok(Self { store, owner: serde_json::from_value(owner)?, lease })
    }

    async fn stand(&self, prepared_for: Option<&OpId>) -> Result<()> {
        let candidate: Candidate = serde_json::from_value(json!({
            "v": STORED_VERSION, "owner": self.owner, "lease_id": self.lease, "ttl_s": TTL.as_secs(), "ready": true,
            "serving": true, "prepared_for": prepared_for, "declined": null, "active": null, "rank": 0, "rho_ppm": 1000,
        }))?;
        let key = lease().candidate(&self.owner.instance);
        let put = Op::put_with_lease(key, encode(&candidate)?, self.lease);
        committed(&self.store, &Txn { then: vec![put], ..Txn::default() }).await
    }

    fn turn(&self) -> Turn<'_> {
        Turn { owner: &self.owner, lease_id: self.lease, ttl_s: TTL.as_secs(), op: OpId::random(), stamp: Stamp::at(1) }
    }

    /// A renewal that counts: TTL, then the barrier through the same member; on every member.
    async fn renew(&self) -> Result<()> {
        for member in 0..self.store.members() {
            let renewal = self.store.renew(member, self.lease, &read(&lease()), Duration::from_secs(2)).await?;
            anyhow::ensure!(renewal.ttl == TTL && renewal.barrier.succeeded, "{renewal:?}");
        }
        Ok(())
    }
}

async fn committed(store: &Store, txn: &Txn) -> Result<()> {
    let reply = store.txn(txn).await?;
    anyhow::ensure!(reply.succeeded, "not committed: {txn:?}");
    Ok(())
}

async fn view(store: &Store) -> Result<LeaseView> {
    let mut view = LeaseView::default();
    for entry in store.list(&lease().prefix()).await?.entries {
        let raw = RawEntry {
            value: &entry.value,
            mod_revision: entry.mod_revision,
            create_revision: entry.create_revision,
            lease: entry.lease,
        };
        view.put(&lease(), &entry.key, Some(raw))?;
    }
    Ok(view)
}

/// The leader key, as the election writes it.
async fn lead(coordinator: &Store) -> Result<(String, i64)> {
    let grant = coordinator.grant(TTL).await?;
    let put = Op::put_with_lease(env().leader(), "me", grant.id);
    let txn = Txn { cmp: vec![Cmp::CreateRevision(env().leader(), 0)], then: vec![put], ..Txn::default() };
    let reply = coordinator.txn(&txn).await?;
    anyhow::ensure!(reply.succeeded);
    coordinator.renew(0, grant.id, &read(&lease()), Duration::from_secs(2)).await?;
    Ok((env().leader(), reply.revision))
}

fn intent(from: &Agent, to: &Agent) -> Result<Intent> {
    Ok(serde_json::from_value(json!({
        "v": STORED_VERSION, "op": OpId::random(), "kind": IntentKind::Handoff, "from": from.owner.instance,
        "to": to.owner.instance, "quiesce_timeout_ms": 1000, "term": 1,
        "cause": { "rollout": RolloutId::random(), "step": 1, "plan_hash": "00" },
    }))?)
}

#[tokio::test]
async fn a_lease_lives_its_whole_life_under_the_roles() -> Result<()> {
    for program in programs() {
        let site = Site::set_up(&program)?;
        let (a, b) = (Agent::new(site.agent()?, "app-01").await?, Agent::new(site.agent()?, "app-02").await?);
        let (keys, coordinator) = (lease(), site.coordinator()?);
        a.stand(None).await?;
        a.renew().await?;
        committed(&a.store, &acquire(&keys, &view(&a.store).await?, &a.turn())?).await.context("T1")?;
        a.renew().await?;
        b.stand(None).await?;
        let roster = list_agents(&keys, &view(&a.store).await?, &a.owner.instance)?.context("somebody to list")?;
        committed(&a.store, &roster).await.context("the roster")?;

        let leader = lead(&coordinator).await?;
        let asked = intent(&a, &b)?;
        committed(&coordinator, &ask(&keys, &view(&coordinator).await?, &asked, leader)?)
            .await
            .context("the intent")?;
        b.stand(Some(&asked.op)).await?;
        b.renew().await?;
        let before = view(&a.store).await?;
        committed(&a.store, &hand_over(&keys, &before, &a.owner.instance, Stamp::at(2))?).await.context("T3")?;
        let after = view(&b.store).await?;
        assert!(after.token()? > before.token()?, "{program:?}");
        b.renew().await?;
        committed(&b.store, &mint(&keys, &view(&b.store).await?, &b.turn())?).await.context("T5")?;
        let proof = StopProof::Quiesced;
        let free = release(&keys, &view(&b.store).await?, &b.owner.instance, proof, OpId::random(), Stamp::at(3))?;
        committed(&b.store, &free).await.context("T4")?;
        a.store.revoke(a.lease).await.context("revoking")?;
        b.store.revoke(b.lease).await.context("revoking")?;
        assert!(view(&b.store).await?.candidates.is_empty());
    }
    Ok(())
}

#[tokio::test]
async fn two_operators_break_glass_and_raise_the_era_and_the_coordinator_cannot() -> Result<()> {
    for program in programs() {
        let site = Site::set_up(&program)?;
        let (a, b) = (Agent::new(site.agent()?, "app-01").await?, Agent::new(site.agent()?, "app-02").await?);
        let (keys, operator, coordinator) = (lease(), site.operator()?, site.coordinator()?);
        a.stand(None).await?;
        b.stand(None).await?;
        committed(&a.store, &acquire(&keys, &view(&a.store).await?, &a.turn())?).await?;
        let order = BreakGlass {
            by: "alice".into(),
            second: "bob".into(),
            because: "app-01 burns".into(),
            asserting: Some(Assertion::HostPoweredOff),
        };
        let to = Some(&b.owner.instance);
        let broken = break_glass(&keys, &view(&operator).await?, order, to, OpId::random(), Stamp::at(1))?;
        let raised = raise_era(&keys, &view(&operator).await?, Era(1), ("alice", "bob", "restored"))?;
        for txn in [&broken, &raised] {
            let error = coordinator.txn(txn).await.expect_err("not the coordinator's");
            assert!(matches!(error, StoreError::Refused { .. }), "{error:?}");
            committed(&operator, txn).await?;
        }
        assert!(view(&b.store).await?.holder.is_some_and(|seen| seen.value.is_held_by(&b.owner.instance)));
    }
    Ok(())
}

#[tokio::test]
async fn coordinators_watch_their_environment_and_write_the_journal_under_the_leader_key() -> Result<()> {
    for program in programs() {
        let site = Site::set_up(&program)?;
        let coordinator = site.coordinator()?;
        let mut watch = coordinator.watch(&env().prefix(), 0);
        assert!(matches!(watch.next().await, WatchItem::Reset(_)));
        let (key, created) = lead(&coordinator).await?;
        let rollout = env().rollout(&RolloutId::random());
        let assigned = service().assigned(&"app-01".parse()?);
        let written = [service().rollout(), rollout.spec(), rollout.plan(), rollout.event(1), assigned.clone()];
        let then = written.iter().map(|key| Op::put(key.as_str(), "{}")).collect();
        let cmp = vec![Cmp::CreateRevision(key, created), Cmp::ModRevision(rollout.event(1), 0)];
        committed(&coordinator, &Txn { cmp, then, ..Txn::default() }).await?;
        let heard = async {
            loop {
                match watch.next().await {
                    WatchItem::Changes { changes, .. } if changes.iter().any(|change| change.key == assigned) => return,
                    WatchItem::Interrupted(error) => panic!("{error}"),
                    _ => {}
                }
            }
        };
        tokio::time::timeout(Duration::from_secs(20), heard).await?;
        // The agent follows its own assignment, and sees each member's status.
        let agent = site.agent()?;
        assert!(agent.get(&assigned).await?.is_some());
        assert!(agent.status().await.iter().all(|(_, status)| status.is_ok()), "{:?}", agent.status().await);
    }
    Ok(())
}
