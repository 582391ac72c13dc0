//! The agent's gRPC surface: `Assign`, `Watch` and `Certify`.

use handover_proto::ids::{AgentId, Env};
use handover_proto::keys::EnvKeys;
use handover_proto::keys::ServiceKeys;
use handover_proto::lease::EraValue;
use handover_proto::numbers::{Era, Serial, Term, Token};
use handover_proto::peer::Role;
use handover_proto::stored::decode;
use handover_proto::wire::agent_server::Agent;
use handover_proto::wire::{
    AssignReply, AssignRequest, CertifyReply, CertifyRequest, Report, WatchRequest, kind, refusal,
};
use handover_store::client::{Store, StoreError};
use handover_tls::Parties;
use tokio::sync::{mpsc, oneshot, watch};
use tokio_stream::Stream;
use tokio_stream::StreamExt;
use tokio_stream::wrappers::WatchStream;
use tonic::{Code, Request, Response, Status};

use crate::core::accept::{Offer, Refusal};
use crate::lease::Certifier;

/// An offer on its way to the main loop, which answers what became of it.
#[derive(Debug)]
pub struct Offered {
    /// The assignment.
    pub offer: Offer,
    /// The term that the leader key showed, if it was read.
    pub verified: Option<Term>,
    /// Where the answer goes.
    pub answer: oneshot::Sender<Result<Answer, OfferError>>,
}

/// What became of an offer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    /// It is recorded, and acted on from now on.
    Accepted(Serial),
    /// Read the leader key, then offer it again.
    VerifyTerm,
}

/// Why an offer was not taken.
#[derive(Debug, thiserror::Error)]
pub enum OfferError {
    /// By the rules.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// It could not be made durable.
    #[error("the assignment was not taken, because it could not be recorded: {0}")]
    Disk(String),
}

/// The service.
pub struct AgentService {
    store: Store,
    keys: EnvKeys,
    service: ServiceKeys,
    offers: mpsc::Sender<Offered>,
    reports: watch::Receiver<Report>,
    /// This agent, and its lease keeper; none: the service has no scheduler lease.
    certifier: Option<(AgentId, Certifier)>,
    /// Who calls.
    parties: Parties,
}

impl AgentService {
    /// A service that passes offers on and streams `reports`.
    pub fn new(
        store: Store,
        (env, service): (&Env, ServiceKeys),
        offers: mpsc::Sender<Offered>,
        reports: watch::Receiver<Report>,
    ) -> Self {
        Self { store, keys: EnvKeys::new(env), service, offers, reports, certifier: None, parties: Parties::plain() }
    }

    /// The same, for callers who are recognised by these parties.
    #[must_use]
    pub fn among(self, parties: Parties) -> Self {
        Self { parties, ..self }
    }

    fn for_coordinators<T>(&self, request: &Request<T>) -> Result<(), Status> {
        self.parties.admit(request, "coordinators", |role| *role == Role::Coordinator).map(drop)
    }

    /// The same, answering for this agent's lease keeper.
    #[must_use]
    pub fn certifying(self, certifier: Option<(AgentId, Certifier)>) -> Self {
        Self { certifier, ..self }
    }

    async fn offer(&self, offer: Offer, verified: Option<Term>) -> Result<Answer, Status> {
        let (answer, answered) = oneshot::channel();
        let ended = |_| Status::unavailable("the agent is shutting down; what serves goes on serving");
        self.offers.send(Offered { offer, verified, answer }).await.map_err(|_| ended(()))?;
        answered.await.map_err(|_| ended(()))?.map_err(|error| status(&error))
    }

    /// The present leader's term, by linearizable reads (`SAFETY.md` E2).
    async fn leader_term(&self) -> Result<Option<Term>, Status> {
        let away = |error: StoreError| {
            let sentence = format!("a higher term cannot be believed without a look at the store: {error}");
            refusal(Code::Unavailable, kind::STORE, sentence)
        };
        let garbled = |error: &dyn std::fmt::Display| Status::internal(error.to_string());
        let era_key = self.service.lease().era();
        let leader = self.store.get(&self.keys.leader()).await.map_err(away)?;
        let era = self.store.get(&era_key).await.map_err(away)?;
        let era = era.map(|entry| decode::<EraValue>(&era_key, &entry.value)).transpose();
        let era = era.map_err(|error| garbled(&error))?.map_or(Era(0), |value| value.era);
        leader.map(|entry| Term::new(era, entry.create_revision)).transpose().map_err(|error| garbled(&error))
    }
}

fn status(error: &OfferError) -> Status {
    let (code, kind) = match error {
        OfferError::Refused(Refusal::StaleTerm { .. } | Refusal::StaleSerial { .. }) => {
            (Code::FailedPrecondition, kind::STALE)
        }
        OfferError::Refused(Refusal::Conflict(_)) => (Code::AlreadyExists, kind::CONFLICT),
        OfferError::Refused(Refusal::Garbled(_) | Refusal::Invalid(_)) => (Code::InvalidArgument, kind::INVALID),
        OfferError::Disk(_) => (Code::ResourceExhausted, kind::DISK),
    };
    refusal(code, kind, error.to_string())
}

#[tonic::async_trait]
impl Agent for AgentService {
    type WatchStream = std::pin::Pin<Box<dyn Stream<Item = Result<Report, Status>> + Send>>;

    async fn assign(&self, request: Request<AssignRequest>) -> Result<Response<AssignReply>, Status> {
        self.for_coordinators(&request)?;
        let request = request.into_inner();
        let text = String::from_utf8(request.assignment)
            .map_err(|_| refusal(Code::InvalidArgument, kind::INVALID, "the assignment is not UTF-8 text"))?;
        let offer = Offer { term: Term::from_wire(request.term), serial: Serial(request.serial), text };
        let mut answer = self.offer(offer.clone(), None).await?;
        if answer == Answer::VerifyTerm {
            // Without a leader nobody may speak for it.
            let term = self.leader_term().await?.unwrap_or_default();
            answer = self.offer(offer, Some(term)).await?;
        }
        match answer {
            Answer::Accepted(serial) => Ok(Response::new(AssignReply { accepted: serial.0 })),
            Answer::VerifyTerm => Err(Status::internal("the leader's term was read, and asked for again")),
        }
    }

    async fn certify(&self, request: Request<CertifyRequest>) -> Result<Response<CertifyReply>, Status> {
        self.parties.admit(&request, "agents", |role| matches!(role, Role::Agent(_)))?;
        let token = Token::from_wire(request.into_inner().token);
        let Some((agent, certifier)) = &self.certifier else {
            return Err(refusal(Code::FailedPrecondition, kind::POLICY, "this agent keeps no scheduler lease"));
        };
        let reply = certifier.certify(token).await;
        let reply = reply.ok_or_else(|| Status::unavailable("the agent's lease keeper has ended"))?;
        Ok(Response::new(CertifyReply { agent: agent.to_string(), ..reply }))
    }

    async fn watch(&self, request: Request<WatchRequest>) -> Result<Response<Self::WatchStream>, Status> {
        self.for_coordinators(&request)?;
        // Until the first lap there is nothing to report.
        let reports = WatchStream::new(self.reports.clone()).filter(|report| !report.agent.is_empty());
        Ok(Response::new(Box::pin(reports.map(Ok))))
    }
}
