//! A billing process, and requests to it.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use bytes::Bytes;
use handover_proto::ids::InstanceId;
use handover_tests::billing::activity::{Event, Line};
use handover_tests::billing::contract::{Ack, LeaseRecord};
use handover_tests::receipt::rows::{self, Commit, LedgerRows, What};
use http_body_util::{BodyExt, Full};
use hyper::{HeaderMap, Method, Request, StatusCode};
use hyper_util::rt::TokioIo;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use tokio::net::TcpStream;

/// Waits for a condition; fails the test if it does not come.
pub(crate) async fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(30);
    while !condition() {
        assert!(Instant::now() < deadline, "never: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// A directory with what the instances share.
pub(crate) struct Place {
    dir: tempfile::TempDir,
}

impl Place {
    pub(crate) fn new() -> Self {
        Self { dir: tempfile::tempdir().expect("dir") }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub(crate) fn ledger(&self) -> LedgerRows {
        rows::ledger(&self.path("ledger.db").into()).expect("ledger")
    }

    pub(crate) fn charges(&self) -> Vec<Commit> {
        let commits = self.ledger().commits.into_iter();
        commits.filter(|commit| matches!(commit.what, What::Charge(_))).collect()
    }

    pub(crate) fn activity(&self) -> Vec<Line> {
        rows::activity(&[&self.path("activity.jsonl")]).expect("activity")
    }

    pub(crate) fn has(&self, wanted: impl Fn(&Line) -> bool) -> bool {
        self.activity().iter().any(wanted)
    }
}

/// A running billing process; killed when dropped.
pub(crate) struct Billing {
    child: Child,
    pub(crate) address: SocketAddr,
    pub(crate) instance: InstanceId,
}

pub(crate) fn command(place: &Place, socket: &Path, flags: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_billing"));
    command
        .args(["--version-name", "1.0.0", "--port", "0", "--ledger"])
        .arg(place.path("ledger.db"))
        .arg("--activity")
        .arg(place.path("activity.jsonl"))
        .arg("--behaviour")
        .arg(place.path("behaviour.toml"))
        .arg("--lease-socket")
        .arg(socket)
        .args(flags);
    if !flags.contains(&"--tick") {
        command.args(["--tick", "20ms"]);
    }
    command
}

impl Billing {
    pub(crate) fn start(place: &Place, socket: &Path, flags: &[&str]) -> Self {
        let instance = InstanceId::random();
        let mut child = command(place, socket, flags)
            .env("HANDOVER_INSTANCE", instance.as_str())
            .stdout(Stdio::piped())
            .spawn()
            .expect("billing");
        let mut line = String::new();
        let out = child.stdout.take().expect("piped");
        BufReader::new(out).read_line(&mut line).expect("its first line");
        let address = line.trim().strip_prefix("listening on ").expect(&line).parse().expect("an address");
        Self { child, address, instance }
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(i32::try_from(self.child.id()).expect("pid")), signal).expect("signal");
    }

    pub(crate) fn wait(&mut self) -> ExitStatus {
        let deadline = Instant::now() + Duration::from_secs(30);
        loop {
            if let Some(status) = self.child.try_wait().expect("its state") {
                return status;
            }
            assert!(Instant::now() < deadline, "it does not end");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    pub(crate) fn running(&mut self) -> bool {
        self.child.try_wait().expect("its state").is_none()
    }

    /// Pushes a record as the agent does.
    pub(crate) async fn push(&self, record: &LeaseRecord) -> Ack {
        let (status, body) = self.post("/handover/lease", &serde_json::to_value(record).expect("json"), None).await;
        assert_eq!(status, StatusCode::OK, "{body}");
        serde_json::from_value(body).expect("an ack")
    }

    pub(crate) async fn get(&self, path: &str) -> (StatusCode, Value) {
        let (status, _, body) = ask(self.address, Request::get(path).body(Full::default()).expect("request")).await;
        (status, json(&body))
    }

    pub(crate) async fn post(&self, path: &str, body: &Value, key: Option<&str>) -> (StatusCode, Value) {
        let mut request = Request::builder().method(Method::POST).uri(path);
        if let Some(key) = key {
            request = request.header("idempotency-key", key);
        }
        let (status, _, body) = ask(self.address, request.body(Full::from(body.to_string())).expect("request")).await;
        (status, json(&body))
    }
}

fn json(body: &Bytes) -> Value {
    serde_json::from_slice(body).unwrap_or_else(|_| panic!("no JSON: {body:?}"))
}

impl Drop for Billing {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// One request on a connection of its own.
pub(crate) async fn ask(address: SocketAddr, request: Request<Full<Bytes>>) -> (StatusCode, HeaderMap, Bytes) {
    let stream = TcpStream::connect(address).await.expect("connect");
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.expect("handshake");
    let driven = tokio::spawn(connection);
    let response = sender.send_request(request).await.expect("an answer");
    let (head, body) = response.into_parts();
    let body = body.collect().await.expect("the whole body").to_bytes();
    drop(sender);
    driven.await.expect("connection task").expect("a clean end");
    (head.status, head.headers, body)
}

pub(crate) fn is_unit_start(line: &Line) -> bool {
    matches!(line.event, Event::UnitStart { .. })
}
