//! The fake agent: answers `GET /v1/lease` on a Unix socket with whatever record the test has put there.

use std::convert::Infallible;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use handover_proto::ids::InstanceId;
use handover_tests::billing::contract::{LeaseRecord, Token, Told};
use handover_tests::clock::{BootNs, ClockName};
use http_body_util::Full;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use tokio::net::UnixListener;

/// What the agent answers to a pull.
#[derive(Clone)]
pub(crate) enum Pulls {
    /// This record, with its deadlines counted from the moment of the answer.
    Extend(LeaseRecord, Duration),
    /// Just this record.
    Fixed(LeaseRecord),
    /// An answer that is no record, with status 500.
    Garbage,
    /// Nothing: the request hangs.
    Silence,
}

pub(crate) struct FakeAgent {
    pub(crate) socket: PathBuf,
    answer: Arc<Mutex<(Pulls, u64)>>,
}

impl FakeAgent {
    /// Listens; silent at first.
    pub(crate) fn start(socket: PathBuf) -> Self {
        let listener = UnixListener::bind(&socket).expect("socket");
        let answer = Arc::new(Mutex::new((Pulls::Silence, 0)));
        let shared = Arc::clone(&answer);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let shared = Arc::clone(&shared);
                tokio::spawn(async move {
                    let service = service_fn(move |request| reply(Arc::clone(&shared), request));
                    // The service under test may hang up.
                    let _ = hyper::server::conn::http1::Builder::new()
                        .serve_connection(TokioIo::new(stream), service)
                        .await;
                });
            }
        });
        Self { socket, answer }
    }

    pub(crate) fn answers(&self, pulls: Pulls) {
        self.answer.lock().expect("lock").0 = pulls;
    }

    pub(crate) fn pulled(&self) -> u64 {
        self.answer.lock().expect("lock").1
    }
}

async fn reply(
    shared: Arc<Mutex<(Pulls, u64)>>,
    request: Request<hyper::body::Incoming>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    assert_eq!(request.uri().path(), "/v1/lease");
    let pulls = {
        let mut answer = shared.lock().expect("lock");
        answer.1 += 1;
        answer.0.clone()
    };
    let record = match pulls {
        Pulls::Extend(record, span) => lasting(&record, span),
        Pulls::Fixed(record) => record,
        Pulls::Silence => std::future::pending().await,
        Pulls::Garbage => {
            let mut response = Response::new(Full::from("?"));
            *response.status_mut() = hyper::StatusCode::INTERNAL_SERVER_ERROR;
            return Ok(response);
        }
    };
    Ok(Response::new(Full::from(serde_json::to_string(&record).expect("json"))))
}

/// A record on this host's clock that allows nothing any more.
pub(crate) fn record(instance: &InstanceId, state: Told, seq: u64, token: i64) -> LeaseRecord {
    let clock = ClockName::ours().expect("clock");
    LeaseRecord {
        v: 1,
        instance: instance.clone(),
        state,
        token: Some(Token::try_from(token).expect("token")),
        seq,
        op: None,
        boot_id: clock.boot_id,
        time_ns: clock.time_ns,
        soft_deadline_boot_ns: 0,
        hard_deadline_boot_ns: 0,
        remaining_soft_ms: 0,
        remaining_hard_ms: 0,
        reason: "test".to_owned(),
    }
}

/// The same, with a soft deadline `span` from now and a hard one 2 s after it.
pub(crate) fn lasting(record: &LeaseRecord, span: Duration) -> LeaseRecord {
    let soft = BootNs::now().after(span);
    let hard = soft.after(Duration::from_secs(2));
    let millis = |span: Duration| u64::try_from(span.as_millis()).expect("a span");
    LeaseRecord {
        soft_deadline_boot_ns: soft.0,
        hard_deadline_boot_ns: hard.0,
        remaining_soft_ms: millis(span),
        remaining_hard_ms: millis(span) + 2000,
        ..record.clone()
    }
}

/// ACTIVE for long enough that no test sees its end.
pub(crate) fn active(instance: &InstanceId, seq: u64, token: i64) -> LeaseRecord {
    lasting(&record(instance, Told::Active, seq, token), Duration::from_secs(600))
}

/// A socket path where nobody listens.
pub(crate) fn nobody(dir: &Path) -> PathBuf {
    dir.join("nobody.sock")
}
