//! Carries steps out. Each effect is a task that ends in one event; nothing is decided here.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use handover_proto::ids::{InstanceId, OpId};
use handover_proto::keys::{EnvKeys, ServiceKeys};
use handover_store::client::{Store, StoreError, TxnReply, WatchItem};
use handover_tls::Parties;
use tokio::sync::mpsc::UnboundedSender;
use tokio::task::AbortHandle;

use super::acks::Acks;
use super::call::post;
use super::clock::ClockIdentity;
use super::deadline::Boot;
use super::event::Event;
use super::inquiry;
use super::memory::Memory;
use super::record::Published;
use super::step::LeaseStep;

/// Kills an instance's processes, and says what it could not do. It may block.
pub type Kill = Arc<dyn Fn(&InstanceId) -> Result<(), String> + Send + Sync>;

/// What effects are done with.
pub(super) struct Effects {
    pub(super) store: Store,
    /// The other agents.
    pub(super) parties: Parties,
    pub(super) events: UnboundedSender<Event>,
    pub(super) kill: Kill,
    pub(super) clock: ClockIdentity,
    pub(super) call_path: String,
    /// Acknowledgements of services that ask by themselves; none: they are called.
    pub(super) acks: Option<Acks>,
    pub(super) state_file: PathBuf,
    pub(super) env: EnvKeys,
    pub(super) service: ServiceKeys,
    /// The watch under way.
    pub(super) watch: Option<AbortHandle>,
    /// The call under way to each service.
    pub(super) calls: BTreeMap<InstanceId, AbortHandle>,
}

impl Effects {
    /// Begins `step`; `app` is the service's address for a call.
    pub(super) fn start(&mut self, step: LeaseStep, app: Option<SocketAddr>, now: Boot) {
        let store = self.store.clone();
        match step {
            LeaseStep::Tell { instance, record, limit } => self.call(instance, &record, app, limit, now),
            LeaseStep::Kill { instance } => {
                let (events, kill) = (self.events.clone(), self.kill.clone());
                drop(tokio::task::spawn_blocking(move || {
                    let result = kill(&instance);
                    say(&events, Event::Killed { instance, result });
                }));
            }
            LeaseStep::Save(memory) => self.save(memory),
            LeaseStep::Read(asked) => self.then(async move {
                let result = store.txn(&asked).await;
                Event::Read { asked, result }
            }),
            LeaseStep::Move { op, txn, .. } => self.then(async move {
                let result = store.txn(&txn).await;
                log_answer(&op, now, &result);
                Event::Moved { op, asked: txn, result }
            }),
            LeaseStep::Renew { instance, lease, member, barrier, expected } => self.then(async move {
                let result = store.renew(member, lease, &barrier, expected.limit).await;
                Event::Renewed { instance, sent: now, expected, barrier, result }
            }),
            LeaseStep::Grant { instance, ttl } => self.then(async move {
                let result = store.grant(ttl).await;
                Event::Granted { instance, result }
            }),
            LeaseStep::PutCandidate { instance, txn } => self.then(async move {
                let result = store.txn(&txn).await;
                Event::CandidatePut { instance, asked: txn, result }
            }),
            LeaseStep::PutRoster(asked) => self.then(async move {
                let result = store.txn(&asked).await;
                Event::RosterPut { asked, result }
            }),
            LeaseStep::Relist => self.follow(),
            LeaseStep::Survey => {
                let env = self.env.clone();
                self.then(async move { Event::Surveyed(inquiry::survey(&store, &env).await) });
            }
            LeaseStep::AskCertificate { agent, token } => {
                let (service, parties) = (self.service.clone(), self.parties.clone());
                self.then(async move {
                    let result = inquiry::certificate((&store, &parties), &service, &agent, token).await;
                    Event::Certified { token, result }
                });
            }
            LeaseStep::Revoke { lease } => self.then(async move {
                log_revoke(lease, store.revoke(lease).await);
                Event::Revoked { lease }
            }),
            LeaseStep::Forget { instance } => {
                if let Some(call) = self.calls.remove(&instance) {
                    call.abort();
                }
                if let Some(acks) = &self.acks {
                    acks.forget(&instance);
                }
            }
            LeaseStep::Begin { .. }
            | LeaseStep::End { .. }
            | LeaseStep::Leave { .. }
            | LeaseStep::Order { .. }
            | LeaseStep::Decline { .. }
            | LeaseStep::Adopt { .. }
            | LeaseStep::Drop { .. }
            | LeaseStep::Wait { .. } => {}
        }
    }

    /// Begins the watch over the lease's keys, anew if there was one.
    pub(super) fn follow(&mut self) {
        let task = tokio::spawn(follow(self.store.clone(), self.service.lease().prefix(), self.events.clone()));
        if let Some(old) = self.watch.replace(task.abort_handle()) {
            old.abort();
        }
    }

    fn call(&mut self, id: InstanceId, record: &Published, app: Option<SocketAddr>, limit: Duration, now: Boot) {
        let (events, path, seq) = (self.events.clone(), self.call_path.clone(), record.seq);
        let record = record.record(&id, &self.clock, now);
        let (instance, acks) = (id.clone(), self.acks.clone());
        let task = tokio::spawn(async move {
            let result = match (acks, app) {
                // The board shows the record already: here only the answer is waited for.
                (Some(acks), _) => acks.take(&instance, seq, limit).await,
                (None, Some(app)) => post(app, &path, &record, limit).await.map_err(|error| error.to_string()),
                (None, None) => Err("the instance has no address for calls".to_owned()),
            };
            say(&events, Event::Answered { instance, seq, result });
        });
        if let Some(old) = self.calls.insert(id, task.abort_handle()) {
            old.abort();
        }
    }

    fn save(&self, memory: Memory) {
        let (events, path) = (self.events.clone(), self.state_file.clone());
        drop(tokio::task::spawn_blocking(move || {
            let result = crate::durable::save(&path, &memory).map_err(|error| error.to_string());
            say(&events, Event::Saved { memory, result });
        }));
    }

    fn then(&self, effect: impl Future<Output = Event> + Send + 'static) {
        let events = self.events.clone();
        drop(tokio::spawn(async move { say(&events, effect.await) }));
    }
}

/// Passes the watch's news on.
async fn follow(store: Store, prefix: String, events: UnboundedSender<Event>) {
    let mut watch = store.watch(&prefix, 0);
    loop {
        let event = match watch.next().await {
            WatchItem::Changes { revision, changes } => Event::Changed { revision, changes },
            WatchItem::Reset(listing) => Event::Listed(listing),
            WatchItem::Interrupted(error) => Event::CutOff(error.to_string()),
        };
        say(&events, event);
    }
}

/// The receiver is gone only when the keeper ends; nobody is left to tell then.
pub(super) fn say(events: &UnboundedSender<Event>, event: Event) {
    drop(events.send(event));
}

/// For those who hold the log against the store's history: what was told of each transaction that moves the lease.
fn log_answer(op: &OpId, sent: Boot, result: &Result<TxnReply, StoreError>) {
    let (told, revision) = match result {
        Ok(reply) if reply.succeeded => ("committed", reply.revision),
        Ok(_) => ("refused", 0),
        Err(_) => ("open", 0),
    };
    tracing::debug!(%op, sent_boot_ns = sent.ns(), told, revision, "answer");
}

fn log_revoke(lease: i64, result: Result<(), StoreError>) {
    if let Err(error) = result {
        tracing::info!(lease = format!("{lease:x}"), error = %error, "could not revoke a lease; it expires by itself");
    }
}
