//! The way to a coordinator: the first of the configured ones that answers; for orders, the leader.

use std::time::Duration;

use handover_proto::peer::Role;
use handover_proto::wire::coordinator_client::CoordinatorClient;
use handover_proto::wire::{kind, refusal_kind};
use handover_tls::{Parties, TlsError};
use tokio::time::Instant;
use tonic::transport::Channel;
use tonic::{Response, Status};

use super::outcome::{CliError, is_away};
use crate::cause::root;
use crate::serve::LEADER_HEADER;

/// A connection that does not stand after this long counts as no answer.
const CONNECT: Duration = Duration::from_secs(1);
/// Longest wait for one answer, unless --timeout says otherwise.
const ANSWER: Duration = Duration::from_secs(10);
/// How long an order waits for a leader to be elected: twice the leader key's TTL.
const ELECTION: Duration = Duration::from_secs(10);
/// Pause before the next try while there is no leader.
const RETRY: Duration = Duration::from_millis(200);

/// A client of one coordinator.
pub(super) type Client = CoordinatorClient<Channel>;

/// Whether a call may be made again when its answer was lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Repeat {
    /// It carries an operation id.
    Safe,
    /// It might be carried out twice.
    Unsafe,
}

/// The configured coordinators.
#[derive(Debug, Clone)]
pub(super) struct Coordinators {
    addresses: Vec<String>,
    answer: Duration,
    /// How they are reached; or why the files for it cannot be used.
    parties: Result<Parties, String>,
}

impl Coordinators {
    /// At these addresses, each call bounded by `timeout` (10 s if there is none).
    pub(super) fn new(addresses: &[String], timeout: Option<Duration>) -> Self {
        Self { addresses: addresses.to_vec(), answer: timeout.unwrap_or(ANSWER), parties: Ok(Parties::plain()) }
    }

    /// The same, reached and recognised by these parties.
    pub(super) fn among(mut self, parties: Result<Parties, TlsError>) -> Self {
        self.parties = parties.map_err(|error| error.to_string());
        self
    }

    /// The addresses, for messages.
    pub(super) fn names(&self) -> String {
        self.addresses.join(", ")
    }

    /// The first that answers; its calls have no time limit, for streams.
    ///
    /// # Errors
    /// [`CliError::NoCoordinator`] with what the last one said.
    pub(super) async fn any(&self) -> Result<Client, CliError> {
        let mut reason = "none is configured".to_owned();
        for address in &self.addresses {
            match self.connect(address).await {
                Ok(client) => return Ok(client),
                Err(error) => reason = error,
            }
        }
        Err(self.nobody(reason))
    }

    fn nobody(&self, reason: String) -> CliError {
        CliError::NoCoordinator { addresses: self.names(), reason }
    }

    /// A call that any coordinator answers.
    ///
    /// # Errors
    /// [`CliError::NoCoordinator`] if nobody answers, [`CliError::Refused`].
    pub(super) async fn read<T, F>(&self, call: impl Fn(Client) -> F) -> Result<T, CliError>
    where
        F: Future<Output = Result<Response<T>, Status>>,
    {
        let client = self.any().await?;
        self.bounded(call(client)).await.map_err(|status| self.explain(&status))
    }

    /// A call that only the leader answers: follows its address, and waits while one is being elected.
    ///
    /// # Errors
    /// [`CliError::NoCoordinator`] if nobody answers or nobody leads, [`CliError::Refused`].
    pub(super) async fn lead<T, F>(&self, repeat: Repeat, call: impl Fn(Client) -> F) -> Result<T, CliError>
    where
        F: Future<Output = Result<Response<T>, Status>>,
    {
        let until = Instant::now() + ELECTION;
        let mut client = self.any().await?;
        loop {
            let status = match self.bounded(call(client.clone())).await {
                Ok(reply) => return Ok(reply),
                Err(status) => status,
            };
            let elsewhere = refusal_kind(&status) == Some(kind::NOT_LEADER);
            let again = elsewhere || (is_away(&status) && repeat == Repeat::Safe);
            if !again || Instant::now() > until {
                return Err(self.explain(&status));
            }
            let leader = status.metadata().get(LEADER_HEADER).and_then(|value| value.to_str().ok());
            let next = match leader {
                Some(address) => self.connect(address).await.ok(),
                None => None,
            };
            client = match next {
                Some(client) => client,
                None => {
                    tokio::time::sleep(RETRY).await;
                    self.any().await?
                }
            };
        }
    }

    async fn bounded<T>(&self, call: impl Future<Output = Result<Response<T>, Status>>) -> Result<T, Status> {
        let late = || Status::deadline_exceeded(format!("no answer within {} s", self.answer.as_secs_f32()));
        tokio::time::timeout(self.answer, call).await.unwrap_or_else(|_| Err(late())).map(Response::into_inner)
    }

    fn explain(&self, status: &Status) -> CliError {
        // What plain text hears from a server that waits for a TLS handshake.
        let plain = self.parties.as_ref().is_ok_and(|parties| parties.tls().is_none());
        let message = status.message();
        if plain && (message.starts_with("h2 protocol error") || message == "transport error") {
            let reason = format!("{message}; if it speaks TLS, give --tls-ca, --tls-cert and --tls-key");
            return self.nobody(reason);
        }
        if is_away(status) { self.nobody(status.message().to_owned()) } else { CliError::of(status) }
    }

    async fn connect(&self, address: &str) -> Result<Client, String> {
        let parties = self.parties.as_ref().map_err(Clone::clone)?;
        let endpoint = parties.endpoint(address).map_err(|error| error.to_string())?;
        let endpoint =
            endpoint.http2_keep_alive_interval(CONNECT).keep_alive_timeout(CONNECT).keep_alive_while_idle(true);
        let channel = parties.connect(endpoint, Role::Coordinator, CONNECT).await.map_err(|error| root(&error))?;
        Ok(CoordinatorClient::new(channel))
    }
}
