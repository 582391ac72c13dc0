//! Who reaches a real cluster, and what the others are told.

use std::path::PathBuf;

use anyhow::Result;
use handover_proto::txn::{Op, Txn};
use handover_store::client::{Store, StoreError};
use handover_tests::cluster::Cluster;
use handover_tests::pki::{Pki, Subject};
use tempfile::TempDir;

/// Both etcd versions for which there is a program; what is missing is said.
fn programs() -> Vec<PathBuf> {
    let named = ["HANDOVER_TEST_ETCD", "HANDOVER_TEST_ETCD35"].map(|name| (name, std::env::var_os(name)));
    let found = named.into_iter().filter_map(|(name, program)| {
        if program.is_none() {
            eprintln!("SKIPPED on one etcd version: {name} does not name a program (tests/run sets it)");
        }
        program.map(PathBuf::from)
    });
    found.collect()
}

fn writing(key: &str) -> Txn {
    Txn { then: vec![Op::put(key, "v")], ..Txn::default() }
}

async fn refused(store: &Store) -> String {
    match store.txn(&writing("k")).await {
        // Above all it is not `Unknown`: nothing was sent to a member that did not accept us.
        Err(error @ StoreError::Unreachable { .. }) => error.to_string(),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn only_a_certificate_of_the_right_ca_reaches_the_cluster_and_the_others_are_told_why() -> Result<()> {
    for program in programs() {
        let dir = TempDir::new()?;
        let (ours, foreign) = (Pki::new(&dir.path().join("ours"))?, Pki::new(&dir.path().join("foreign"))?);
        let cluster = Cluster::start(&program, Some(&ours))?;
        let good = ours.issue("client", &Subject::named("client"))?;
        let store = cluster.store(&good)?;
        assert!(store.txn(&writing("k")).await?.succeeded, "{program:?}");
        assert!(store.status().await.iter().all(|(_, status)| status.is_ok()));

        let mut stranger = foreign.issue("stranger", &Subject::named("client"))?;
        let error = refused(&cluster.store(&stranger)?).await;
        assert!(error.contains("is not signed by the CA in `store.ca`"), "{error}");
        stranger.ca = ours.ca();
        let error = refused(&cluster.store(&stranger)?).await;
        assert!(error.contains("refuses our certificate, `store.cert`") && error.contains("CA"), "{error}");

        let plain =
            Store::connect(&cluster.endpoints().iter().map(|e| e.replace("https", "http")).collect::<Vec<_>>())?;
        assert!(plain.get("k").await.is_err(), "plain text reads nothing");
    }
    Ok(())
}
