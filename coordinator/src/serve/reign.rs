//! The engine runs while this coordinator leads, and not a moment longer.

use std::sync::Arc;
use std::time::Duration;

use handover_store::client::Store;
use tokio::sync::{mpsc, watch};

use super::engine::Engine;
use super::leader::Leadership;
use super::orders::Request;
use super::turns::Recorder;
use crate::world::World;

/// Requests that wait while the engine is in a lap.
const QUEUE: usize = 16;
/// Pause before an engine that ended by itself is started again, while the leadership is still ours.
const AGAIN: Duration = Duration::from_millis(500);

/// Where requests to the engine are handed in; none while it does not run here.
pub type Desk = Option<mpsc::Sender<Request>>;

/// Runs an engine for each time that this coordinator leads, for ever.
pub async fn reign(
    store: Store,
    world: Arc<watch::Sender<World>>,
    mut leadership: watch::Receiver<Leadership>,
    desk: watch::Sender<Desk>,
) {
    loop {
        let Ok(mandate) = leadership.wait_for(|who| who.mandate().is_some()).await.map(|who| who.mandate().cloned())
        else {
            return;
        };
        let Some(mandate) = mandate else { continue };
        let engine = Engine::new(store.clone(), Arc::clone(&world), mandate.clone());
        let (requests, queue) = mpsc::channel(QUEUE);
        desk.send_replace(Some(requests));
        tokio::select! {
            // Dropped in the middle of whatever it does: what it had in flight is found in the journal.
            _ = leadership.wait_for(|who| who.mandate() != Some(&mandate)) => {}
            () = Recorder::new(store.clone(), Arc::clone(&world), mandate.clone()).run() => {
                tracing::warn!("the lease's history is no longer recorded: another coordinator leads");
            }
            ended = engine.run(queue) => match ended {
                Ok(never) => match never {},
                Err(error) => tracing::warn!(error = crate::cause::chain(&error), "the engine ended"),
            },
        }
        desk.send_replace(None);
        world.send_modify(|world| world.waiting.clear());
        if leadership.borrow().mandate() == Some(&mandate) {
            tokio::time::sleep(AGAIN).await;
        }
    }
}
