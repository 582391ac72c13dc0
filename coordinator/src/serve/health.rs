//! How the store's members are: asked every ten seconds, so that an alarm keeps a hand-over from being begun, and a
//! version that cannot be trusted is seen.

use std::sync::Arc;
use std::time::Duration;

use handover_store::client::{MemberStatus, Store, StoreError};
use tokio::sync::watch;

use crate::cause::chain;
use crate::core::store_health::{Member, Said};
use crate::world::World;

/// Cheap for the members, and soon enough for people.
const EVERY: Duration = Duration::from_secs(10);

/// Asks for ever.
pub(super) async fn watch(store: Store, world: Arc<watch::Sender<World>>) {
    loop {
        let members = ask(&store).await;
        world.send_if_modified(|world| {
            let new = world.members != members;
            if new {
                tracing::debug!(?members, "the store's members");
            }
            world.members = members;
            new
        });
        tokio::time::sleep(EVERY).await;
    }
}

/// What each member says of itself.
pub(crate) async fn ask(store: &Store) -> Vec<Member> {
    let member = |(endpoint, answer): (String, Result<MemberStatus, StoreError>)| {
        let said = |status: MemberStatus| Said {
            embedded: status.is_embedded(),
            version: status.version,
            raft_term: status.raft_term,
            alarms: status.alarms,
        };
        Member { endpoint, answer: answer.map(said).map_err(|error| chain(&error)) }
    };
    store.status().await.into_iter().map(member).collect()
}
