//! One link to each registered agent: hears its reports, delivers its assignment.
//!
//! Level-triggered: a link compares what the store has assigned with what the agent has accepted, and delivers while
//! they differ. Nothing remembers that something "was sent".

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

use handover_proto::ids::{AgentId, Service};
use handover_proto::numbers::{Serial, Term};
use handover_tls::Parties;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::leader::Leadership;
use super::link::{Delivery, Link};
use crate::world::World;

type Name = (Service, AgentId);

/// All links of a coordinator.
pub struct Links {
    world: Arc<watch::Sender<World>>,
    leadership: watch::Receiver<Leadership>,
    parties: Parties,
    links: BTreeMap<Name, Running>,
}

struct Running {
    endpoint: SocketAddr,
    wanted: watch::Sender<Option<Delivery>>,
    task: JoinHandle<()>,
}

/// What one agent is registered and assigned as.
struct Target {
    endpoint: SocketAddr,
    assigned: Option<(Serial, Vec<u8>)>,
}

impl Links {
    /// Reports go into `world`; assignments are delivered while `leadership` is ours.
    pub fn new(world: Arc<watch::Sender<World>>, leadership: watch::Receiver<Leadership>) -> Self {
        Self { world, leadership, parties: Parties::plain(), links: BTreeMap::new() }
    }

    /// The same, to agents that are reached and recognised by these parties.
    #[must_use]
    pub fn among(mut self, parties: Parties) -> Self {
        self.parties = parties;
        self
    }

    /// Keeps the links as the world says, for ever.
    pub async fn run(mut self) {
        let mut world = self.world.subscribe();
        loop {
            let (targets, edits) = {
                let world = world.borrow_and_update();
                (targets(&world), world.edits)
            };
            let term = self.leadership.borrow_and_update().mandate().map(|mandate| mandate.term);
            self.adjust(targets, term);
            tokio::select! {
                changed = world.wait_for(|world| world.edits != edits) => if changed.is_err() { return },
                changed = self.leadership.changed() => if changed.is_err() { return },
            }
        }
    }

    fn adjust(&mut self, targets: BTreeMap<Name, Target>, term: Option<Term>) {
        self.links.retain(|name, running| {
            let keep = targets.get(name).is_some_and(|target| target.endpoint == running.endpoint);
            if !keep {
                running.task.abort();
            }
            keep
        });
        for (name, target) in targets {
            let delivery = term.zip(target.assigned);
            let delivery = delivery.map(|(term, (serial, bytes))| Delivery { term, serial, bytes: bytes.into() });
            let running = self.links.entry(name).or_insert_with_key(|name| {
                let (wanted, receiver) = watch::channel(None);
                let link =
                    Link::new(name.clone(), (target.endpoint, self.parties.clone()), receiver, Arc::clone(&self.world));
                Running { endpoint: target.endpoint, wanted, task: tokio::spawn(link.run()) }
            });
            running.wanted.send_if_modified(|wanted| {
                let new = *wanted != delivery;
                *wanted = delivery;
                new
            });
        }
    }
}

impl Drop for Links {
    fn drop(&mut self) {
        for running in self.links.values() {
            running.task.abort();
        }
    }
}

/// Agents whose registration or assignment cannot be read are left out: the status names the key.
fn targets(world: &World) -> BTreeMap<Name, Target> {
    let mut targets = BTreeMap::new();
    for service in world.services() {
        for (agent, registration) in world.registrations(&service).unwrap_or_default() {
            let assigned = world.assigned(&service, &agent).ok().flatten();
            let assigned = assigned.map(|assigned| (assigned.serial, assigned.bytes));
            targets.insert((service.clone(), agent), Target { endpoint: registration.endpoint, assigned });
        }
    }
    targets
}
