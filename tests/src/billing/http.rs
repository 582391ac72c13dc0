//! Billing's HTTP answers. What needs the ledger goes to the desk, what the agent pushes goes to the scheduler.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::Sender;
use std::time::{Duration, Instant};

use bytes::Bytes;
use handover_proto::ids::Version;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::{Method, Request, Response, StatusCode};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::sync::{oneshot, watch};

use crate::billing::contract::{Ack, Answer, LeaseRecord, Told};
use crate::billing::desk::Desk;
use crate::billing::faults::{Faults, Watched};
use crate::billing::ledger::{Paid, Payment};
use crate::billing::pieces::Pieces;
use crate::billing::pull::Agent;
use crate::billing::scheduler::{Message, Pace, View};
use crate::billing::traffic::jobs::Jobs;
use crate::billing::traffic::{self, Closing};
use crate::chain::chain;

/// The longest body that is read; a charge or a lease record is far below.
const MAX_BODY_BYTES: usize = 64 * 1024;
/// The agent hears after this long that the scheduler is in a unit: well within the second that it waits.
const BUSY: Duration = Duration::from_millis(250);
/// The longest `/slow` answer: longer than any drain deadline in the tests.
const MAX_SLOW: Duration = Duration::from_secs(600);
/// Marks billing's own failures, so that they are not taken for requests that the upgrade lost.
pub const FAULT_HEADER: &str = "billing-fault";
/// Names the version that answered.
pub const VERSION_HEADER: &str = "billing-version";

/// A whole answer, or one in pieces, or one that goes on.
pub(super) type Body = UnsyncBoxBody<Bytes, Box<dyn std::error::Error + Send + Sync>>;

/// Everything that an answer needs.
#[derive(Debug)]
pub struct Billing {
    /// Our version.
    pub version: Version,
    /// The agent beside us, and who we are to it.
    pub agent: Agent,
    /// The ledger's threads.
    pub desk: Desk,
    /// The scheduler.
    pub scheduler: Sender<Message>,
    /// What the scheduler shows.
    pub view: watch::Receiver<View>,
    /// What the agent is told of its units.
    pub pace: Pace,
    /// What is wrong with us.
    pub faults: Watched,
    /// What has been asked so far.
    pub history: History,
    /// Work that goes on without a request.
    pub jobs: Jobs,
    /// How long that may go on after SIGTERM.
    pub finish_jobs: Duration,
    /// Our end.
    pub closing: Closing,
}

/// What has been asked so far; faults that begin "after" something are measured from here.
#[derive(Debug, Default)]
pub struct History {
    answered_well: AtomicU64,
    first_request: OnceLock<Instant>,
    first_ready: OnceLock<Instant>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Charge {
    account: String,
    cents: i64,
}

pub(super) fn whole(status: StatusCode, value: &Value) -> Response<Body> {
    let text = Full::from(format!("{value}\n"));
    let mut response = Response::new(text.map_err(|never| match never {}).boxed_unsync());
    *response.status_mut() = status;
    let kind = hyper::header::HeaderValue::from_static("application/json");
    response.headers_mut().insert(hyper::header::CONTENT_TYPE, kind);
    response
}

pub(super) fn refused(status: StatusCode, why: impl std::fmt::Display) -> Response<Body> {
    whole(status, &json!({ "error": why.to_string() }))
}

pub(super) fn failed(error: &(dyn std::error::Error + 'static)) -> Response<Body> {
    let why = chain(error);
    tracing::warn!(why, "a request failed");
    refused(StatusCode::SERVICE_UNAVAILABLE, why)
}

async fn read_json<T: for<'de> Deserialize<'de>>(body: Incoming) -> Result<T, Response<Body>> {
    let bytes = Limited::new(body, MAX_BODY_BYTES).collect().await;
    let bytes = bytes.map_err(|error| refused(StatusCode::BAD_REQUEST, error))?.to_bytes();
    serde_json::from_slice(&bytes).map_err(|error| refused(StatusCode::BAD_REQUEST, error))
}

impl Billing {
    /// Answers one request.
    pub(super) async fn answer(&self, request: Request<Incoming>) -> Response<Body> {
        let path = request.uri().path().to_owned();
        let mut response = match (request.method(), path.as_str()) {
            (&Method::GET, "/health") => whole(StatusCode::OK, &json!({ "alive": true })),
            (&Method::GET, "/ready") => self.ready(),
            (&Method::GET, "/version") => {
                whole(StatusCode::OK, &json!({ "version": self.version, "instance": self.agent.instance }))
            }
            (&Method::GET, "/jobs") => whole(StatusCode::OK, &self.jobs.shown()),
            (&Method::POST, "/handover/lease") => self.told(request).await.unwrap_or_else(|refusal| refusal),
            _ => self.production(&path, request).await,
        };
        if let Ok(version) = self.version.as_str().parse() {
            response.headers_mut().insert(VERSION_HEADER, version);
        }
        response
    }

    /// Reads and writes: the requests that faults spoil.
    async fn production(&self, path: &str, request: Request<Incoming>) -> Response<Body> {
        let faults = self.faults.now();
        let first = *self.history.first_request.get_or_init(Instant::now);
        if let Some(slow) = faults.slow {
            tokio::time::sleep(slow).await;
        }
        let answered = self.history.answered_well.load(Ordering::Relaxed);
        if faults.bad_after.is_some_and(|after| first.elapsed() >= after)
            || faults.bad_after_requests.is_some_and(|after| answered >= after)
        {
            let mut response = refused(StatusCode::INTERNAL_SERVER_ERROR, "this version is bad on purpose");
            response.headers_mut().insert(FAULT_HEADER, hyper::header::HeaderValue::from_static("1"));
            return response;
        }
        self.history.answered_well.fetch_add(1, Ordering::Relaxed);
        match (request.method(), path.strip_prefix("/balance/")) {
            (&Method::GET, Some(account)) => self.balance(account).await,
            (&Method::POST, None) if path == "/charges" => self.charge(request).await.unwrap_or_else(|refusal| refusal),
            (&Method::GET, None) if path == "/slow" => slow(request.uri().query().unwrap_or_default()),
            _ => traffic::answer(self, path, request).await,
        }
    }

    fn ready(&self) -> Response<Body> {
        let faults = self.faults.now();
        let unready = faults.unready_after.zip(self.history.first_ready.get());
        let out = faults.never_ready || unready.is_some_and(|(after, first)| first.elapsed() >= after);
        let (gate, clock) = (!faults.schema_gate_closed, !faults.test_clock_running);
        let ok = gate && clock && !out;
        if ok {
            self.history.first_ready.get_or_init(Instant::now);
        }
        let conditions = json!({
            "schema_gate": if gate { "active" } else { "closed" },
            "test_clock": if clock { "stopped" } else { "running" },
            // What one process can know: nobody's token stood against ours. It is reported and takes no traffic away.
            "lease": if self.view.borrow().fenced { "fenced" } else { "single-holder" },
            "holding": self.view.borrow().holding,
            "ok": ok,
        });
        whole(if ok { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE }, &conditions)
    }

    async fn balance(&self, account: &str) -> Response<Body> {
        match self.desk.balance(account.to_owned()).await {
            Ok(cents) => whole(StatusCode::OK, &json!({ "account": account, "cents": cents })),
            Err(error) => failed(&error),
        }
    }

    async fn charge(&self, request: Request<Incoming>) -> Result<Response<Body>, Response<Body>> {
        let key = request.headers().get("idempotency-key").and_then(|key| key.to_str().ok()).unwrap_or_default();
        if key.is_empty() {
            return Err(refused(StatusCode::BAD_REQUEST, "a charge needs an Idempotency-Key header"));
        }
        let key = key.to_owned();
        let Charge { account, cents } = read_json(request.into_body()).await?;
        let paid = self.desk.pay(Payment { key: key.clone(), account, cents }).await;
        match paid.map_err(|error| failed(&error))? {
            Paid::New => Ok(whole(StatusCode::CREATED, &json!({ "key": key, "written": true }))),
            Paid::Again => Ok(whole(StatusCode::OK, &json!({ "key": key, "written": false }))),
            Paid::Conflict => Err(refused(StatusCode::UNPROCESSABLE_ENTITY, "this key was used for another charge")),
        }
    }

    /// The agent's push: answered when the scheduler has done what the record asks.
    async fn told(&self, request: Request<Incoming>) -> Result<Response<Body>, Response<Body>> {
        let mut record: LeaseRecord = read_json(request.into_body()).await?;
        let ours = &self.agent.instance;
        if record.instance != *ours {
            let why = format!("the record is for instance {}, this is {ours}", record.instance);
            return Err(refused(StatusCode::CONFLICT, why));
        }
        if record.state == Told::Quiesce
            && let Some(ack) = spoil_quiesce(&record, &self.faults.now(), &self.pace).await
        {
            return Ok(ack);
        }
        let mut deadline = record.deadline(&self.agent.clock, None);
        if deadline.is_none() && record.state == Told::Active {
            // Another clock: only a request of our own tells from when its spans count.
            let (pulled, sent) = self.agent.pull().await.map_err(|error| failed(&error))?;
            deadline = pulled.deadline(&self.agent.clock, Some(sent));
            record = pulled;
        }
        let at_work = self.pace.ack(&record, Answer::Started, View::default());
        let goes_on = record.state == Told::Active && record.token == self.view.borrow().holding;
        let (reply, mut answer) = oneshot::channel();
        let message =
            Message::Heard { record: Box::new(record), deadline: deadline.unwrap_or_default(), reply: Some(reply) };
        let gone = |_| refused(StatusCode::SERVICE_UNAVAILABLE, "the scheduler has ended");
        self.scheduler.send(message).map_err(|_| gone(()))?;
        let limit = if goes_on { BUSY } else { Duration::MAX };
        let ack = match tokio::time::timeout(limit, &mut answer).await {
            Ok(ack) => ack.map_err(|_| gone(()))?,
            Err(_) if self.view.borrow().in_flight > 0 => {
                // The scheduler hears of the new deadline when its unit has ended.
                let View { in_flight, progress, .. } = *self.view.borrow();
                Ack { in_flight, progress, ..at_work }
            }
            Err(_) => answer.await.map_err(|_| gone(()))?,
        };
        Ok(whole(StatusCode::OK, &json!(ack)))
    }
}

/// The two faults of an app that does not do what QUIESCE asks.
async fn spoil_quiesce(record: &LeaseRecord, faults: &Faults, pace: &Pace) -> Option<Response<Body>> {
    if faults.ignore_quiesce {
        std::future::pending::<()>().await;
    }
    let lie = Ack { detail: "not true".to_owned(), ..pace.ack(record, Answer::Quiesced, View::default()) };
    faults.quiesce_lie.then(|| whole(StatusCode::OK, &json!(lie)))
}

fn slow(query: &str) -> Response<Body> {
    match query.strip_prefix("ms=").and_then(|ms| ms.parse().ok()).map(Duration::from_millis) {
        Some(span) if span <= MAX_SLOW => Response::new(Pieces::over(span).boxed_unsync()),
        _ => refused(StatusCode::BAD_REQUEST, format!("give ?ms=N, at most {}", MAX_SLOW.as_millis())),
    }
}
