//! What etcd refuses.

use anyhow::Result;
use handover_proto::ids::{AgentId, InstanceId, RolloutId};
use handover_proto::txn::{Op, Txn};
use handover_store::client::{Store, StoreError};
use handover_tests::pki::Subject;
use tonic::Code;

use crate::site::{Site, env, lease, programs, service};

fn put(key: &str) -> Txn {
    Txn { then: vec![Op::put(key, "x")], ..Txn::default() }
}

fn delete(key: &str) -> Txn {
    Txn { then: vec![Op::Delete(key.to_owned())], ..Txn::default() }
}

async fn is_refused(store: &Store, txn: &Txn) {
    match store.txn(txn).await {
        Err(StoreError::Refused { code: Code::PermissionDenied, message, .. }) => {
            assert!(message.contains("permission denied"), "{message}");
        }
        other => panic!("{txn:?}: {other:?}"),
    }
}

/// Refused here; root may, so that it is the role that refuses and not the key.
async fn only_refused_here(store: &Store, root: &Store, keys: &[String]) -> Result<()> {
    for key in keys {
        is_refused(store, &put(key)).await;
        is_refused(store, &delete(key)).await;
        assert!(root.txn(&put(key)).await?.succeeded, "{key}");
    }
    Ok(())
}

#[tokio::test]
async fn etcd_itself_keeps_the_coordinator_away_from_holder_beat_candidates_roster_and_era() -> Result<()> {
    for program in programs() {
        let site = Site::set_up(&program)?;
        let (coordinator, root) = (site.coordinator()?, site.cluster.store(&site.root)?);
        let (lease, host): (_, AgentId) = (lease(), "app-01".parse()?);
        let candidate = lease.candidate(&InstanceId::random());
        let forbidden = [
            lease.holder(),
            lease.beat(),
            candidate,
            lease.roster(),
            lease.era(),
            env().guard(),
            service().agent(&host),
        ];
        only_refused_here(&coordinator, &root, &forbidden).await?;

        // One forbidden write takes the allowed ones of the same transaction with it.
        let mixed = Txn { then: vec![Op::put(lease.intent(), "x"), Op::put(lease.holder(), "x")], ..Txn::default() };
        is_refused(&coordinator, &mixed).await;
        assert_eq!(coordinator.get(&lease.intent()).await?, None);
        for key in [lease.intent(), lease.freeze(), service().assigned(&host), service().turn(1), service().order(1)] {
            assert!(coordinator.txn(&put(&key)).await?.succeeded, "{key}");
        }
    }
    Ok(())
}

#[tokio::test]
async fn etcd_itself_keeps_agents_away_from_intents_freeze_era_and_assignments() -> Result<()> {
    for program in programs() {
        let site = Site::set_up(&program)?;
        let (agent, root) = (site.agent()?, site.cluster.store(&site.root)?);
        let (lease, host): (_, AgentId) = (lease(), "app-01".parse()?);
        let rollout = env().rollout(&RolloutId::random());
        let forbidden = [
            lease.intent(),
            lease.freeze(),
            lease.era(),
            service().assigned(&host),
            service().rollout(),
            service().turn(1),
            env().leader(),
            env().guard(),
            rollout.event(1),
            env().service(&"mail".parse()?).lease().holder(),
        ];
        only_refused_here(&agent, &root, &forbidden).await?;
        for key in [lease.holder(), lease.roster(), service().agent(&host)] {
            assert!(agent.txn(&put(&key)).await?.succeeded, "{key}");
        }
        for key in [lease.era(), service().assigned(&host), env().leader(), env().guard()] {
            assert!(agent.get(&key).await?.is_some(), "agents read {key}");
        }
    }
    Ok(())
}

#[tokio::test]
async fn the_coordinator_cannot_end_a_holders_etcd_lease_and_the_agent_can() -> Result<()> {
    for program in programs() {
        let site = Site::set_up(&program)?;
        let (agent, coordinator) = (site.agent()?, site.coordinator()?);
        let grant = agent.grant(std::time::Duration::from_secs(10)).await?;
        let beat = Txn { then: vec![Op::put_with_lease(lease().beat(), "x", grant.id)], ..Txn::default() };
        assert!(agent.txn(&beat).await?.succeeded);
        match coordinator.revoke(grant.id).await {
            Err(StoreError::Refused { code: Code::PermissionDenied, .. }) => {}
            other => panic!("{other:?}"),
        }
        assert!(agent.get(&lease().beat()).await?.is_some(), "the beat is still there");
        agent.revoke(grant.id).await?;
        assert_eq!(agent.get(&lease().beat()).await?, None);
    }
    Ok(())
}

#[tokio::test]
async fn a_certificate_without_a_role_can_do_nothing_and_the_message_says_what_to_look_at() -> Result<()> {
    for program in programs() {
        let site = Site::set_up(&program)?;
        for (file, subject) in [("nobody", Subject::named("nobody")), ("nameless", Subject::default())] {
            let store = site.cluster.store(&site.pki.issue(file, &subject)?)?;
            let error = store.get(&lease().holder()).await.expect_err("no role");
            assert!(matches!(error, StoreError::Refused { .. }), "{error:?}");
            assert!(error.to_string().contains("handover store setup --check"), "{error}");
        }
        let holder = site.operator()?.txn(&put(&lease().intent())).await.expect_err("not an operator's").to_string();
        assert!(holder.contains("permission denied") && holder.contains("lease/intent"), "{holder}");
    }
    Ok(())
}
