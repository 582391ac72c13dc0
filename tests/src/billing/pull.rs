//! The pull side of the lease: asks the agent's Unix socket, every half second while holding.

use std::path::{Path, PathBuf};
use std::sync::mpsc::Sender;
use std::time::Duration;

use bytes::Bytes;
use handover_proto::ids::InstanceId;
use http_body_util::{BodyExt, Empty, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;
use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval, timeout};

use crate::billing::contract::LeaseRecord;
use crate::billing::scheduler::{Message, View};
use crate::chain::chain;
use crate::clock::{BootNs, ClockName};

/// Between two pulls: a tenth of the default preset's span to the soft deadline (6.15 s), so several may fail.
const EVERY: Duration = Duration::from_millis(500);
/// One pull ends before the next is due.
const LIMIT: Duration = Duration::from_millis(400);
/// A record is below 1 KiB; anything much longer is not one.
const MAX_BYTES: usize = 64 * 1024;

/// A pull without an answer; it changes nothing.
#[derive(Debug, thiserror::Error)]
pub enum PullError {
    /// The socket cannot be reached.
    #[error("connecting to the agent at {socket}")]
    Connect {
        /// Its path.
        socket: String,
        /// Why.
        source: std::io::Error,
    },
    /// HTTP failed.
    #[error("asking the agent for the lease: {0}")]
    Http(String),
    /// The answer is not a record for us.
    #[error("the agent's answer is not our lease record: {0}")]
    Answer(String),
    /// No answer in time.
    #[error("the agent did not answer within {LIMIT:?}")]
    Silent,
}

/// Where and for whom to ask.
#[derive(Debug, Clone)]
pub struct Agent {
    /// The agent's Unix socket.
    pub socket: PathBuf,
    /// Us.
    pub instance: InstanceId,
    /// Our clock.
    pub clock: ClockName,
}

impl Agent {
    /// Asks once. The time is when the request was *sent*: spans in the record count from there, never from receipt.
    ///
    /// # Errors
    /// [`PullError`].
    pub async fn pull(&self) -> Result<(LeaseRecord, BootNs), PullError> {
        let sent = BootNs::now();
        let record = timeout(LIMIT, get(&self.socket, &self.instance)).await.map_err(|_| PullError::Silent)??;
        if record.instance != self.instance {
            return Err(PullError::Answer(format!("it is for instance {}", record.instance)));
        }
        Ok((record, sent))
    }
}

async fn get(socket: &Path, instance: &InstanceId) -> Result<LeaseRecord, PullError> {
    let http = |error: hyper::Error| PullError::Http(error.to_string());
    let stream = UnixStream::connect(socket)
        .await
        .map_err(|source| PullError::Connect { socket: socket.display().to_string(), source })?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(http)?;
    let request = hyper::Request::get(format!("/v1/lease?instance={instance}"))
        .header(hyper::header::HOST, "agent")
        .body(Empty::<Bytes>::new())
        .map_err(|error| PullError::Http(error.to_string()))?;
    let ask = async {
        let response = sender.send_request(request).await.map_err(http)?;
        let status = response.status();
        let body = Limited::new(response.into_body(), MAX_BYTES).collect().await;
        let body = body.map_err(|error| PullError::Http(error.to_string()))?.to_bytes();
        if status != hyper::StatusCode::OK {
            return Err(PullError::Answer(format!("status {status}")));
        }
        serde_json::from_slice(&body).map_err(|error| PullError::Answer(error.to_string()))
    };
    // The connection is driven here and not in a task of its own, so that a timeout ends both.
    tokio::pin!(ask);
    tokio::select! {
        answer = &mut ask => answer,
        ended = connection => match ended {
            Ok(()) => ask.await,
            Err(error) => Err(http(error)),
        },
    }
}

/// Pulls for as long as the right is held, and passes what it hears to the scheduler. Ends when the scheduler does.
pub async fn while_holding(agent: Agent, mut view: watch::Receiver<View>, inbox: Sender<Message>) {
    while view.wait_for(|view| view.holding.is_some()).await.is_ok() {
        let mut pace = interval(EVERY);
        pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
        while view.borrow().holding.is_some() {
            pace.tick().await;
            let (record, sent) = match agent.pull().await {
                Ok(pulled) => pulled,
                Err(error) => {
                    tracing::warn!(error = chain(&error), "pull failed: the deadline stays as it is");
                    continue;
                }
            };
            let Some(deadline) = record.deadline(&agent.clock, Some(sent)) else { continue };
            if inbox.send(Message::Heard { record: Box::new(record), deadline, reply: None }).is_err() {
                return;
            }
        }
    }
}
