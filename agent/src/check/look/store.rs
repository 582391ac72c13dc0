//! The store, with the agent's own certificate and rights.

use std::time::Duration;

use handover_proto::keys::EnvKeys;
use handover_proto::registration::{Alive, Registration};
use handover_proto::stored::decode;
use handover_store::client::{Store, StoreError};
use serde::Deserialize;

use crate::check::facts::{Name, StoreFacts};
use crate::config::Config;
use crate::durable;
use crate::lease::survey;

/// A store that takes longer is away, for a check.
const PATIENCE: Duration = Duration::from_secs(8);

pub(super) async fn look(config: &Config) -> StoreFacts {
    let silent = |reason: String| StoreFacts {
        members: config.store.endpoints.iter().map(|endpoint| (endpoint.clone(), Err(reason.clone()))).collect(),
        ..StoreFacts::default()
    };
    match Store::open(&config.store) {
        Ok(store) => match tokio::time::timeout(PATIENCE, ask(config, &store)).await {
            Ok(facts) => facts,
            Err(_) => silent(format!("no answer within {} s", PATIENCE.as_secs())),
        },
        Err(error) => silent(crate::report::chain(&error)),
    }
}

async fn ask(config: &Config, store: &Store) -> StoreFacts {
    let keys = EnvKeys::new(&config.env);
    let answers = store.status().await;
    let members = answers.into_iter().map(|(endpoint, answer)| {
        (endpoint, answer.map(|status| status.alarms).map_err(|error| crate::report::chain(&error)))
    });
    let members: Vec<_> = members.collect();
    if members.iter().all(|(_, answer)| answer.is_err()) {
        return StoreFacts { members, ..StoreFacts::default() };
    }
    let leader = keys.leader();
    let (survey, name, leader) = tokio::join!(survey(store, &keys), name(config, store), store.get(&leader));
    // An embedded store knows no callers.
    let asks = if survey.embedded { Some(false) } else { store.auth_enabled().await.ok() };
    let name = Some(name.map_err(|error| crate::report::chain(&error)));
    StoreFacts { members, survey, asks, name, led: leader.ok().map(|leader| leader.is_some()) }
}

/// Whose the name is, as the agent's registration would find it.
async fn name(config: &Config, store: &Store) -> Result<Name, StoreError> {
    #[derive(Deserialize)]
    struct Own {
        state_dir_id: String,
    }
    let keys = EnvKeys::new(&config.env).service(&config.service);
    let (at, alive_at) = (keys.agent(&config.agent), keys.alive(&config.agent));
    let Some(alive) = store.get(&alive_at).await? else { return Ok(Name::Free) };
    let registration = store.get(&at).await?.and_then(|entry| decode::<Registration>(&at, &entry.value).ok());
    let owner = decode::<Alive>(&alive_at, &alive.value).map(|alive| alive.state_dir_id).ok();
    let own = durable::load::<Own>(&config.state_dir.join("agent.json")).ok().flatten().map(|own| own.state_dir_id);
    let boot = crate::clock::boot_id().unwrap_or_default();
    let here = registration.as_ref().is_some_and(|found| found.endpoint == config.listen && found.boot_id == boot);
    let host = || registration.as_ref().map_or_else(|| "unknown".to_owned(), |found| found.host.clone());
    Ok(if here || (own.is_some() && own == owner) { Name::Ours } else { Name::Taken(host()) })
}
