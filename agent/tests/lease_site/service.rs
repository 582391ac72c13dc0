//! A tiny service on the other side of the calls. It says it works exactly from ACTIVE to QUIESCED, or to its deadline.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use handover_agent::lease::clock::boot_now;
use handover_agent::lease::record::{Ack, AckState, LeaseRecord, Told};
use http_body_util::{BodyExt, Full};
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::PATIENCE;

/// How it takes QUIESCE.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Manner {
    /// At once.
    Prompt,
    /// Never: a unit that does not end.
    Stubborn,
    /// Does not answer at all, to anything.
    Silent,
}

/// What happened at the service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Done {
    pub(crate) at: Instant,
    pub(crate) told: Told,
    pub(crate) token: i64,
    pub(crate) seq: u64,
}

/// What all services of a test did, in order, to check that never two work at once.
#[derive(Debug, Clone, Default)]
pub(crate) struct Ledger(Arc<Mutex<Vec<String>>>);

impl Ledger {
    fn begin(&self, name: &str) {
        let mut working = self.0.lock().expect("lock");
        if !working.iter().any(|other| other == name) {
            working.push(name.to_owned());
        }
        assert!(working.len() <= 1, "two at once: {working:?}");
    }

    fn end(&self, name: &str) {
        self.0.lock().expect("lock").retain(|other| other != name);
    }
}

struct Inner {
    name: String,
    manner: Mutex<Manner>,
    done: watch::Sender<Vec<Done>>,
    ledger: Ledger,
    /// Until when it may work: CLOCK_BOOTTIME, nanoseconds.
    soft: Mutex<u64>,
    /// Numbers of records seen, to drop late ones. The highest possible one: it is dead.
    seq: Mutex<u64>,
}

pub(crate) struct TestService {
    pub(crate) address: SocketAddr,
    inner: Arc<Inner>,
    tasks: Vec<JoinHandle<()>>,
}

impl TestService {
    pub(crate) async fn start(name: &str, ledger: &Ledger) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let inner = Arc::new(Inner {
            name: name.to_owned(),
            manner: Mutex::new(Manner::Prompt),
            done: watch::Sender::new(Vec::new()),
            ledger: ledger.clone(),
            soft: Mutex::new(0),
            seq: Mutex::new(0),
        });
        let tasks = vec![tokio::spawn(listen(listener, inner.clone())), tokio::spawn(keep_deadline(inner.clone()))];
        Self { address, inner, tasks }
    }

    pub(crate) fn set(&self, manner: Manner) {
        *self.inner.manner.lock().expect("lock") = manner;
    }

    /// Its process dies.
    pub(crate) fn die(&mut self) -> Instant {
        self.tasks.drain(..).for_each(|task| task.abort());
        // A call that it has taken already must not bring it back to work.
        *self.inner.seq.lock().expect("lock") = u64::MAX;
        self.inner.ledger.end(&self.inner.name);
        Instant::now()
    }

    pub(crate) fn done(&self) -> Vec<Done> {
        self.inner.done.borrow().clone()
    }

    /// Forgets what it did so far.
    pub(crate) fn forget(&self) {
        self.inner.done.send_modify(Vec::clear);
    }

    /// Waits until it did what `told` says.
    pub(crate) async fn until(&self, told: Told) -> Done {
        let mut seen = self.inner.done.subscribe();
        let found = tokio::time::timeout(PATIENCE, seen.wait_for(|done| done.iter().any(|d| d.told == told))).await;
        let Ok(Ok(done)) = found else { panic!("{} was never told {told:?}: {:?}", self.inner.name, self.done()) };
        done.iter().rev().find(|d| d.told == told).expect("just seen").clone()
    }
}

impl Drop for TestService {
    fn drop(&mut self) {
        self.die();
    }
}

async fn listen(listener: TcpListener, inner: Arc<Inner>) {
    loop {
        let (stream, _) = listener.accept().await.expect("accept");
        let inner = inner.clone();
        tokio::spawn(async move {
            let service = service_fn(|request| answer(inner.clone(), request));
            drop(hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service).await);
        });
    }
}

async fn answer(
    inner: Arc<Inner>,
    request: Request<hyper::body::Incoming>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    assert_eq!(request.uri().path(), "/handover/lease");
    let body = request.into_body().collect().await.expect("a body").to_bytes();
    let record: LeaseRecord = serde_json::from_slice(&body).expect("a record");
    let manner = *inner.manner.lock().expect("lock");
    if manner == Manner::Silent || (manner == Manner::Stubborn && record.state != Told::Active) {
        std::future::pending::<()>().await;
    }
    let ack = inner.obey(&record);
    Ok(Response::new(Full::new(Bytes::from(serde_json::to_vec(&ack).expect("json")))))
}

impl Inner {
    fn obey(&self, record: &LeaseRecord) -> Ack {
        let mut seq = self.seq.lock().expect("lock");
        let late = record.seq < *seq;
        *seq = record.seq.max(*seq);
        let active = record.state == Told::Active && !late;
        if active {
            *self.soft.lock().expect("lock") = record.soft_deadline_boot_ns;
            self.ledger.begin(&self.name);
        } else if !late {
            *self.soft.lock().expect("lock") = 0;
            self.ledger.end(&self.name);
        }
        let token = record.token.as_ref().map_or(0, |token| token.parse().expect("a number"));
        self.done
            .send_modify(|done| done.push(Done { at: Instant::now(), told: record.state, token, seq: record.seq }));
        let state = if late {
            AckState::Failed
        } else if active {
            AckState::Started
        } else {
            AckState::Quiesced
        };
        Ack { c_unit_ms: Some(500), ..Ack::new(record.token.clone(), record.seq, state) }
    }
}

/// Silence ends the right to work: it stops by itself, without being told.
async fn keep_deadline(inner: Arc<Inner>) {
    loop {
        let soft = *inner.soft.lock().expect("lock");
        let working = inner.ledger.0.lock().expect("lock").contains(&inner.name);
        let stubborn = *inner.manner.lock().expect("lock") != Manner::Prompt;
        if working && !stubborn && boot_now().expect("a clock").ns() >= soft {
            inner.ledger.end(&inner.name);
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}
