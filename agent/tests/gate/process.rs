//! The gate as a process: stopped in good order, and killed.

use std::net::SocketAddr;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::time::Duration;

use handover_agent::gate::client::GateLink;
use handover_agent::gate::control::{Admission, GateState};
use handover_agent::gate::server::{self, Beginning, GateError};
use handover_agent::gate::settings::GateSettings;
use hyper::Method;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::net::TcpStream;

use crate::bench::{PATIENCE, Service, TestGate, until};
use crate::visitor::{Client, get, read};

const SETTINGS: &str = "HANDOVER_TEST_GATE_SETTINGS";

/// Not a test: what [`GateProcess`] runs, this same binary being the program.
#[test]
#[ignore = "run as a process by the other tests"]
fn be_a_gate() {
    let Ok(settings) = std::env::var(SETTINGS) else { return };
    let settings: GateSettings = serde_json::from_str(&settings).expect("settings");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let ended = runtime.block_on(async {
        let mut terminate =
            tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate()).expect("a signal");
        server::run(settings, Beginning::default(), async move {
            terminate.recv().await;
        })
        .await
    });
    std::process::exit(if ended.is_ok() { 0 } else { 7 });
}

pub(crate) struct GateProcess {
    child: Child,
    settings: GateSettings,
}

impl GateProcess {
    pub(crate) async fn start(settings: &GateSettings) -> Self {
        let program = std::env::current_exe().expect("this binary");
        let child = Command::new(program)
            .args(["--exact", "process::be_a_gate", "--ignored", "--nocapture"])
            .env(SETTINGS, serde_json::to_string(settings).expect("json"))
            .stdout(Stdio::null())
            .spawn()
            .expect("started");
        let gate = Self { child, settings: settings.clone() };
        until("it listens", async || TcpStream::connect(gate.settings.listen).await.is_ok()).await;
        gate
    }

    /// The most memory that it has had at one time.
    pub(crate) fn peak_kib(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).expect("it lives");
        let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("a peak");
        peak.trim().trim_end_matches(" kB").parse().expect("a number")
    }

    fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.child.id().try_into().expect("a pid")), signal).expect("sent");
    }

    async fn ended(&mut self) -> ExitStatus {
        let mut status = None;
        until("it ends", async || {
            status = self.child.try_wait().expect("a child");
            status.is_some()
        })
        .await;
        status.expect("a status")
    }
}

impl Drop for GateProcess {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Settings with a port that was free a moment ago: a restarted gate must come back on the same one.
pub(crate) fn settings(directory: &tempfile::TempDir) -> GateSettings {
    let free = std::net::TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a port");
    GateSettings::new(free, directory.path().join("c.sock"), directory.path().join("s.json"))
}

pub(crate) async fn route(link: &GateLink, service: &Service, seq: u64) {
    link.send(GateState { seq, admission: Admission::Open, upstreams: vec![service.upstream(1, 1)] });
    let mut reports = link.reports();
    let saved = reports.wait_for(|report| report.as_ref().is_some_and(|report| report.saved == seq));
    tokio::time::timeout(PATIENCE, saved).await.expect("in time").expect("saved");
}

#[tokio::test]
async fn a_killed_gate_comes_back_with_its_routes_although_no_agent_is_there() {
    let (directory, a) = (tempfile::tempdir().expect("a directory"), Service::start(1).await);
    let settings = settings(&directory);
    let mut gate = GateProcess::start(&settings).await;
    let link = GateLink::connect(&settings.control);
    route(&link, &a, 1).await;
    assert_eq!(Client::connect(settings.listen).await.get("/").await.body, a.name());
    drop(link);
    gate.signal(Signal::SIGKILL);
    gate.ended().await;
    assert!(settings.control.exists(), "its socket file is left behind");
    let _again = GateProcess::start(&settings).await;
    assert_eq!(Client::connect(settings.listen).await.get("/").await.body, a.name());
    let link = GateLink::connect(&settings.control);
    route(&link, &a, 2).await;
}

#[tokio::test]
async fn terminated_it_finishes_what_is_in_flight_and_ends_well() {
    let (directory, a) = (tempfile::tempdir().expect("a directory"), Service::start(1).await);
    let settings = settings(&directory);
    let mut gate = GateProcess::start(&settings).await;
    let link = GateLink::connect(&settings.control);
    route(&link, &a, 1).await;
    let mut client = Client::connect(settings.listen).await;
    let answer = client.begin(Method::GET, "/drip", "").await.expect("the head");
    gate.signal(Signal::SIGTERM);
    until("the listener is closed", async || TcpStream::connect(settings.listen).await.is_err()).await;
    assert!(gate.child.try_wait().expect("a child").is_none(), "it waits for the request");
    a.release(1);
    assert_eq!(read(answer).await.expect("the rest").body, format!("first,{}", a.name()));
    assert_eq!(gate.ended().await.code(), Some(0));
    assert!(!settings.control.exists());
}

#[tokio::test]
async fn a_stopping_gate_serves_the_connections_that_it_has_and_dismisses_them() {
    let gate = TestGate::start_with(|settings| settings.limits.leave_grace = Duration::from_secs(3)).await;
    let a = Service::start(1).await;
    gate.open(&[a.upstream(1, 1)]).await;
    let (mut early, address) = (gate.client().await, gate.address);
    assert_eq!(early.get("/").await.status, 200);
    let stopping = gate.begin_to_stop();
    until("the listener is closed", async || TcpStream::connect(address).await.is_err()).await;
    let answer = early.get("/").await;
    assert_eq!((answer.status, answer.header("connection")), (200, "close"));
    tokio::time::timeout(PATIENCE, stopping).await.expect("in time").expect("no panic").expect("in good order");
}

#[tokio::test]
async fn a_client_that_connected_just_before_the_listener_closed_is_served() {
    for _ in 0..20 {
        let (gate, a) = (TestGate::start().await, Service::start(1).await);
        gate.open(&[a.upstream(1, 1)]).await;
        // Connected for the kernel; the gate, on this same thread, has not had a chance to accept.
        let stream = std::net::TcpStream::connect(gate.address).expect("connected");
        let stopping = gate.begin_to_stop();
        stream.set_nonblocking(true).expect("for tokio");
        let answer = one_request(TcpStream::from_std(stream).expect("a stream")).await;
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer:?}");
        stopping.await.expect("no panic").expect("in good order");
    }
}

async fn one_request(mut stream: TcpStream) -> String {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    stream.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").await.expect("written");
    let mut answer = String::new();
    let _ = tokio::time::timeout(PATIENCE, stream.read_to_string(&mut answer)).await.expect("closed");
    answer
}

#[tokio::test]
async fn what_does_not_finish_in_the_stop_time_is_cut_off_and_the_gate_says_so() {
    let gate = TestGate::start_with(|settings| {
        settings.limits.leave_grace = Duration::from_millis(20);
        settings.limits.stop_time = Duration::from_millis(100);
    })
    .await;
    let a = Service::start(1).await;
    gate.open(&[a.upstream(1, 1)]).await;
    let address: SocketAddr = gate.address;
    let cut = tokio::spawn(async move { Client::connect(address).await.send(Method::GET, "/wait", "").await });
    gate.upstream_when(&a, "in flight", |one| one.in_flight == 1).await;
    let error = gate.stop().await.expect_err("not in good order");
    assert!(matches!(error, GateError::CutOff { requests: 1, connections: 1, .. }), "{error}");
    assert!(error.to_string().contains("100ms"), "{error}");
    cut.await.expect("no panic").expect_err("cut off");
}

#[tokio::test]
async fn a_restart_of_the_agent_in_the_middle_of_a_switch_fails_no_request() {
    let (mut gate, a, b) = (TestGate::start().await, Service::start(1).await, Service::start(2).await);
    gate.open(&[a.upstream(1, 1)]).await;
    let (address, going) = (gate.address, Arc::new(std::sync::atomic::AtomicBool::new(true)));
    let still = Arc::clone(&going);
    let load = tokio::spawn(async move {
        let (mut client, mut count) = (Client::connect(address).await, 0_u64);
        while still.load(std::sync::atomic::Ordering::Relaxed) {
            assert_eq!(client.post("/").await.status, 200);
            count += 1;
        }
        count
    });
    let waiting = get(address, "/wait");
    until("work in flight", async || a.saw("GET /wait") == 1 && a.saw("POST /") > 50).await;
    gate.send(Admission::Open, &[a.upstream(1, 1), b.upstream(1, 1)]);
    gate.link = GateLink::connect(&gate.settings.control);
    let seq = gate.report_when("the new agent hears", |_| true).await.applied;
    gate.link.send(GateState { seq: seq + 10, admission: Admission::Open, upstreams: vec![b.upstream(1, 1)] });
    until("the new one serves", async || b.requests() > 100).await;
    a.release(1);
    assert_eq!(waiting.await.expect("no panic").body, a.name());
    going.store(false, std::sync::atomic::Ordering::Relaxed);
    let count = load.await.expect("no failure");
    assert_eq!(a.saw("POST /") + b.saw("POST /"), count, "each request reached one service once");
}
