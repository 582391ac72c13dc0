//! `handover store setup`: the shell around [`crate::setup`].

use std::collections::BTreeSet;

use anyhow::{Context as _, ensure};
use handover_proto::ids::Service;
use handover_proto::keys::EnvKeys;
use handover_proto::roles::ROOT;
use handover_proto::stored::encode;
use handover_proto::txn::{Op, Txn};
use handover_proto::wire::kind;
use handover_store::client::{AuthChange, Store, StoreError};
use tonic::Code;

use super::args::{self, Global};
use super::out::Out;
use super::outcome::{CliError, Outcome};
use crate::clock::wall_ms;
use crate::setup::{Setup, Stands, Step, command, guard, plan};

/// Prints, applies or checks.
///
/// # Errors
/// [`CliError`]; [`CliError::Refused`] by policy while somebody else may write the lease's keys.
pub(super) async fn run(global: &Global, setup: args::Setup) -> Result<Outcome, CliError> {
    let keys = EnvKeys::new(&global.env);
    let services: BTreeSet<Service> = setup.services.iter().chain(&global.service).cloned().collect();
    if !setup.apply && !setup.check {
        return print(global, &keys, &services);
    }
    let store = root(global)?;
    let found = plan(&global.env, &services, &stands(&store, &keys).await?);
    if setup.check {
        show(global, &keys, &found, "to be done")?;
        return verdict(&found, if found.steps.is_empty() { Outcome::Done } else { Outcome::Changes });
    }
    if found.steps.contains(&Step::Auth(AuthChange::Enable)) {
        lockable(&store)?;
    }
    for step in &found.steps {
        carry_out(&store, &keys, step).await?;
    }
    show(global, &keys, &found, "done")?;
    verdict(&found, Outcome::Done)
}

fn print(global: &Global, keys: &EnvKeys, services: &BTreeSet<Service>) -> Result<Outcome, CliError> {
    if services.is_empty() {
        return Err(anyhow::anyhow!("no service is named; write `handover store setup SERVICE`").into());
    }
    let found = plan(&global.env, services, &Stands::default());
    show(global, keys, &found, "to be done")?;
    Ok(Outcome::Done)
}

fn show(global: &Global, keys: &EnvKeys, found: &Setup, state: &str) -> Result<(), CliError> {
    let commands: Vec<String> = found.steps.iter().map(|step| command(keys, step, wall_ms())).collect();
    if global.json {
        let value = serde_json::json!({ "state": state, "commands": commands, "dangers": found.dangers });
        return Out::new(true).answer(&value, &[]);
    }
    let nothing = ["nothing to do: users, roles and guard are as they should be".to_owned()];
    let nothing = if found.dangers.is_empty() { &nothing[..] } else { &[] };
    Out::new(false).answers(&[()], if commands.is_empty() { nothing } else { &commands })
}

/// While there is a danger, no success is reported.
fn verdict(found: &Setup, outcome: Outcome) -> Result<Outcome, CliError> {
    match &found.dangers[..] {
        [] => Ok(outcome),
        dangers => Err(CliError::Refused {
            kind: kind::POLICY.to_owned(),
            sentence: format!("the lease is not guarded: {}", dangers.join("; ")),
        }),
    }
}

/// The way to the store with root's certificate, without which nothing can be seen once authentication is on.
fn root(global: &Global) -> anyhow::Result<Store> {
    ensure!(
        !global.store.is_empty(),
        "users and roles are etcd's; name its members with --store (the embedded store has none)"
    );
    let access = global.store_access()?;
    ensure!(
        access.tls.is_some(),
        "etcd knows users by their certificates; give --store-ca, --store-cert and --store-key, and https:// endpoints"
    );
    let store = Store::open(&access)?;
    let user = store.user();
    ensure!(
        user.as_deref() == Some(ROOT),
        "the certificate given with --store-cert has the common name {}; this needs one with the common name {ROOT}",
        user.as_deref().unwrap_or("\"\" (none)")
    );
    Ok(store)
}

/// With authentication on and nobody recognised, the cluster would be locked for good.
fn lockable(store: &Store) -> anyhow::Result<()> {
    ensure!(
        store.asks_for_certificates(),
        "etcd does not ask for certificates, so nobody could be recognised and everybody would be locked out; \
         start every member with --client-cert-auth and --trusted-ca-file"
    );
    Ok(())
}

async fn stands(store: &Store, keys: &EnvKeys) -> anyhow::Result<Stands> {
    let read = async {
        let enabled = store.auth_enabled().await?;
        let (access, guard) = (store.access().await?, store.get(&keys.guard()).await?);
        Ok::<_, StoreError>(Stands { enabled, access, guarded: guard.is_some() })
    };
    read.await.context("what stands cannot be read")
}

async fn carry_out(store: &Store, keys: &EnvKeys, step: &Step) -> anyhow::Result<()> {
    let txn = |op| Txn { then: vec![op], ..Txn::default() };
    let done = match step {
        Step::Auth(change) => store.change_access(change).await,
        Step::WriteGuard => store.txn(&txn(Op::put(keys.guard(), encode(&guard(wall_ms()))?))).await.map(drop),
        Step::DeleteGuard => store.txn(&txn(Op::Delete(keys.guard()))).await.map(drop),
    };
    let done = match done {
        // Root's own role needs no adding on some versions, which have it from the start.
        Err(StoreError::Refused { code: Code::FailedPrecondition, message, .. })
            if message.contains("already exists") =>
        {
            Ok(())
        }
        other => other,
    };
    let again = || format!("`{}` failed; what was done before stands, so run this again", command(keys, step, 0));
    done.with_context(again)
}
