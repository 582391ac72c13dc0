//! The link to one agent: connect, hear, deliver; again if it breaks.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use handover_proto::ids::{AgentId, Service};
use handover_proto::numbers::{Serial, Term};
use handover_proto::peer::Role;
use handover_proto::wire::agent_client::AgentClient;
use handover_proto::wire::{AssignRequest, Report, WatchRequest, kind, refusal_kind};
use handover_tls::Parties;
use tokio::sync::watch;
use tonic::Status;
use tonic::transport::Channel;

use crate::cause::root;
use crate::clock::wall_ms;
use crate::world::{Refusal, Silence, World};

/// Rest after a link broke; doubled up to the longest. An agent restarts within about a second.
const FIRST_REST: Duration = Duration::from_millis(50);
const LONGEST_REST: Duration = Duration::from_secs(1);
/// A connection that does not stand after this long is given up.
const CONNECT: Duration = Duration::from_secs(1);
/// An agent answers once the assignment is on its disk.
const ASSIGN: Duration = Duration::from_secs(5);
/// A stream without a report for this long is dead: the agent reports counters once a second, and an observation older
/// than two seconds decides nothing (`SAFETY.md` R1).
const SILENCE: Duration = Duration::from_secs(2);

/// What is to be delivered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Delivery {
    /// Under which term.
    pub term: Term,
    /// Which assignment.
    pub serial: Serial,
    /// The stored bytes.
    pub bytes: Arc<[u8]>,
}

/// What an agent makes of a delivery.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Answer {
    /// Taken, or refused for good: the same delivery would get the same answer.
    Final,
    /// It cannot check our term as long as it cannot read the store, or cannot write to its disk.
    NotNow,
}

/// The link to one agent.
pub(super) struct Link {
    service: Service,
    agent: AgentId,
    endpoint: SocketAddr,
    parties: Parties,
    wanted: watch::Receiver<Option<Delivery>>,
    world: Arc<watch::Sender<World>>,
}

impl Link {
    /// A link that delivers what `wanted` holds and writes what it hears into `world`.
    pub(super) fn new(
        (service, agent): (Service, AgentId),
        (endpoint, parties): (SocketAddr, Parties),
        wanted: watch::Receiver<Option<Delivery>>,
        world: Arc<watch::Sender<World>>,
    ) -> Self {
        Self { service, agent, endpoint, parties, wanted, world }
    }

    /// Keeps the link, for ever.
    pub(super) async fn run(mut self) {
        let mut rest = FIRST_REST;
        loop {
            let mut heard = false;
            let reason = match self.connected(&mut heard).await {
                Ok(never) => match never {},
                Err(reason) => reason,
            };
            self.silent(reason);
            rest = if heard { FIRST_REST } else { LONGEST_REST.min(rest * 2) };
            tokio::time::sleep(rest).await;
        }
    }

    /// One connection, until it breaks.
    async fn connected(&mut self, heard: &mut bool) -> Result<std::convert::Infallible, String> {
        let endpoint = self.parties.endpoint(&self.endpoint.to_string()).map_err(|error| error.to_string())?;
        let endpoint = endpoint.http2_keep_alive_interval(CONNECT).keep_alive_timeout(CONNECT);
        let channel = self.parties.connect(endpoint, Role::Agent(self.agent.clone()), CONNECT).await;
        let channel = channel.map_err(|error| root(&error))?;
        let mut client = AgentClient::new(channel.clone());
        let reports = timely(SILENCE, client.watch(WatchRequest {})).await?.map_err(|status| describe(&status))?;
        let mut reports = reports.into_inner();
        let hear = async {
            loop {
                let report = timely(SILENCE, reports.message()).await?.map_err(|status| describe(&status))?;
                let report = report.ok_or("the agent ended the stream")?;
                *heard = true;
                self.report(report)?;
            }
        };
        tokio::select! {
            broken = hear => broken,
            broken = self.deliver(AgentClient::new(channel), self.wanted.clone()) => broken,
        }
    }

    /// Delivers whenever the store's serial differs from the agent's.
    async fn deliver(
        &self,
        mut client: AgentClient<Channel>,
        mut wanted: watch::Receiver<Option<Delivery>>,
    ) -> Result<std::convert::Infallible, String> {
        loop {
            let delivery = wanted.borrow_and_update().clone();
            let mut later = None;
            if let Some(delivery) = delivery.filter(|delivery| self.accepted() != Some(delivery.serial)) {
                let answer = self.assign(&mut client, delivery).await?;
                later = (answer == Answer::NotNow).then_some(LONGEST_REST);
            }
            let changed = match later {
                None => wanted.changed().await,
                Some(rest) => tokio::time::timeout(rest, wanted.changed()).await.unwrap_or(Ok(())),
            };
            changed.map_err(|_| "the coordinator stops")?;
        }
    }

    async fn assign(&self, client: &mut AgentClient<Channel>, delivery: Delivery) -> Result<Answer, String> {
        let Delivery { term, serial, bytes } = delivery;
        let request = AssignRequest { term: term.get(), serial: serial.0, assignment: bytes.to_vec() };
        let (refused, answer) = match timely(ASSIGN, client.assign(request)).await? {
            Ok(reply) => {
                tracing::debug!(agent = %self.agent, %serial, accepted = reply.into_inner().accepted, "delivered");
                (None, Answer::Final)
            }
            Err(status) if refusal_kind(&status).is_some() => {
                let reason = describe(&status);
                tracing::warn!(agent = %self.agent, %serial, %term, reason, "the agent refused its assignment");
                let passing = matches!(refusal_kind(&status), Some(kind::STORE | kind::DISK));
                let answer = if passing { Answer::NotNow } else { Answer::Final };
                (Some(Refusal { serial, at_ms: wall_ms(), reason }), answer)
            }
            Err(status) => return Err(describe(&status)),
        };
        self.world.send_modify(|world| world.heard_mut(&self.service, &self.agent).refused = refused);
        Ok(answer)
    }

    fn accepted(&self) -> Option<Serial> {
        let world = self.world.borrow();
        let heard = world.heard.get(&(self.service.clone(), self.agent.clone()))?;
        heard.report.as_ref().filter(|_| heard.silent.is_none()).map(|report| Serial(report.accepted))
    }

    fn report(&self, report: Report) -> Result<(), String> {
        if report.agent != self.agent.as_str() || report.service != self.service.as_str() {
            return Err(format!("{} of {} answers there instead", report.agent, report.service));
        }
        self.world.send_modify(|world| {
            let heard = world.heard_mut(&self.service, &self.agent);
            if heard.silent.take().is_some() {
                tracing::info!(agent = %self.agent, "heard again");
            }
            heard.clock_ms = clock_ms(report.sent_ms, wall_ms());
            heard.report = Some(report);
        });
        Ok(())
    }

    fn silent(&self, reason: String) {
        self.world.send_if_modified(|world| {
            let heard = world.heard_mut(&self.service, &self.agent);
            let since_ms = match &heard.silent {
                Some(silence) if silence.reason == reason => return false,
                Some(silence) => silence.since_ms,
                None => {
                    tracing::warn!(agent = %self.agent, endpoint = %self.endpoint, reason, "the agent is not heard");
                    wall_ms()
                }
            };
            heard.silent = Some(Silence { since_ms, reason });
            true
        });
    }
}

/// By how much the sender's clock was ahead; a report is on its way for less than a second. An older agent does not say.
fn clock_ms(sent_ms: u64, now_ms: u64) -> Option<i64> {
    (sent_ms > 0).then(|| i64::try_from(sent_ms).unwrap_or(i64::MAX).saturating_sub_unsigned(now_ms))
}

async fn timely<T>(limit: Duration, call: impl Future<Output = T>) -> Result<T, String> {
    tokio::time::timeout(limit, call).await.map_err(|_| format!("no answer within {} s", limit.as_secs()))
}

fn describe(status: &Status) -> String {
    match status.message() {
        "" => format!("{:?}", status.code()),
        message => message.to_owned(),
    }
}
