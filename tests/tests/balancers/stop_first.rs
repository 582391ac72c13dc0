//! Three hosts, one after the other: drained, stopped, started, given back; under load from h2load and our own.

use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::Context;
use handover_agent::gate::client::GateLink;
use handover_tests::fleet::{Fleet, Options, Spec};
use handover_tests::load::request::Mix;
use handover_tests::load::{Load, LoadSpec};
use nix::sys::signal::Signal;

use crate::front::program;

/// A fleet behind a balancer, before any version runs.
pub(crate) fn fleet(balancer: &str) -> Fleet {
    let fleet = Fleet::start(Options { balancer: balancer.to_owned(), ..Options::default() }).expect("a fleet");
    fleet.install("1.0.0", "").expect("installed");
    fleet.install("1.1.0", "").expect("installed");
    fleet
}

/// To a version, with a floor of one host less than there are.
pub(crate) fn spec(fleet: &Fleet, version: &str) -> Spec {
    let min_serving = fleet.hosts.len().saturating_sub(1).max(1);
    Spec { min_serving, ..Spec::to(version) }
}

/// Serves 1.0.0; the balancer must run.
pub(crate) fn serve(fleet: &Fleet) {
    let leads = |fleet: &Fleet| Ok(fleet.cli().status().is_ok());
    fleet.wait_for("a coordinator to lead", leads).expect("it leads");
    let mut outcome = fleet.cli().roll(&spec(fleet, "1.0.0")).expect("a command");
    // It may lose the lead for a moment on a busy machine, and says so before anything has begun.
    for _ in 0..5 {
        if outcome.err.contains("no coordinator leads") {
            outcome = fleet.cli().roll(&spec(fleet, "1.0.0")).expect("a command");
        }
    }
    assert_eq!(outcome.code, 0, "bring-up: {}{}", outcome.out, outcome.err);
    let held = |fleet: &Fleet| Ok(fleet.cli().status()?["lease"]["state"] == "held");
    fleet.wait_for("the scheduler lease to be held", held).expect("held");
}

pub(crate) fn load(fleet: &Fleet, front: SocketAddr) -> Load {
    let mut spec = LoadSpec::new(vec![front], 60.0);
    spec.mix = Mix { write_share: 0.3, slow_share: 0.02, slow: Duration::from_secs(1) };
    spec.timeout = Duration::from_secs(20);
    let load = Load::start(spec).expect("load");
    fleet.wait_for("the load to be answered", |_| Ok(load.answered_well() > 50)).expect("answers");
    load
}

/// A load that nobody here wrote, at a fixed rate over kept connections, for as long as it takes.
pub(crate) struct Stranger(Child);

impl Stranger {
    pub(crate) fn start(front: SocketAddr, seconds: u64) -> Self {
        let mut command = Command::new(program("h2load"));
        command.args(["--h1", "-c", "8", "-t", "1", "--rps", "10", "-D", &seconds.to_string()]);
        command.arg(format!("http://{front}/balance/acct-1")).stdout(Stdio::piped()).stderr(Stdio::null());
        Self(command.spawn().expect("h2load runs"))
    }

    /// Its own words on what became of its requests.
    pub(crate) fn verdict(mut self) -> String {
        let mut output = String::new();
        std::io::Read::read_to_string(&mut self.0.stdout.take().expect("output"), &mut output).expect("its words");
        self.0.wait().expect("its end");
        let lines = output.lines().filter(|line| line.starts_with("requests:") || line.starts_with("status codes:"));
        lines.collect::<Vec<_>>().join("; ")
    }

    /// Its words, and that nothing failed.
    pub(crate) fn lost_nothing(self) {
        self.lost_nothing_of(100);
    }

    /// The same; it must have sent so many at least.
    pub(crate) fn lost_nothing_of(self, least: u64) {
        let verdict = self.verdict();
        eprintln!("h2load: {verdict}");
        assert!(verdict.contains("0 failed, 0 errored, 0 timeout"), "{verdict}");
        assert!(verdict.contains("0 3xx, 0 4xx, 0 5xx"), "{verdict}");
        let sent: u64 = verdict.split([' ', ',']).nth(1).and_then(|it| it.parse().ok()).expect("a number");
        assert!(sent > least, "it did send: {verdict}");
    }
}

/// How long after `from` the host's gate let its last request in.
fn last_request(fleet: &Fleet, index: usize, from: Instant) -> anyhow::Result<Duration> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let link = GateLink::connect(fleet.hosts[index].runtime_dir.join("gate.sock"));
        let mut reports = link.reports();
        let report = tokio::time::timeout(Duration::from_secs(5), reports.wait_for(Option::is_some)).await??;
        let now = from.elapsed();
        let ago = report.iter().flat_map(|it| &it.upstreams).filter_map(|it| it.last_request_ms_ago).min();
        Ok(now.saturating_sub(Duration::from_millis(ago.context("no request was ever let in")?)))
    })
}

fn command(fleet: &Fleet, args: &[&str]) {
    let args: Vec<&str> = ["--timeout", "60s"].iter().chain(args).copied().collect();
    let outcome = fleet.cli().run(&args).expect("a command");
    assert_eq!(outcome.code, 0, "{args:?}: {}{}", outcome.out, outcome.err);
}

/// Drains a host. Returns when that was ordered, and how long it took until its agent was told: before that the scheduler
/// lease moves away. On a busy machine the floor may refuse it, since an agent was not heard for a moment.
pub(crate) fn drain(fleet: &Fleet, index: usize) -> (Instant, Duration) {
    let host = &fleet.hosts[index];
    let args = ["--timeout", "60s", "drain", &host.name, "--notice", "0s", "--because", "stop-first"];
    for _ in 0..10 {
        let (began, over) = (Instant::now(), AtomicBool::new(false));
        let (outcome, told) = std::thread::scope(|scope| {
            let told = scope.spawn(|| {
                while !over.load(Ordering::Acquire) {
                    if host.status().is_ok_and(|status| status["gate"]["admission"] != "open") {
                        break;
                    }
                    std::thread::sleep(Duration::from_millis(5));
                }
                began.elapsed()
            });
            let outcome = fleet.cli().run(&args).expect("a command");
            over.store(true, Ordering::Release);
            (outcome, told.join().expect("a time"))
        });
        if outcome.code == 0 {
            return (began, told);
        }
        let said = format!("{}{}", outcome.out, outcome.err);
        assert!(said.contains("the floor is"), "{args:?}: {said}");
        eprintln!("{}: not yet: {}", host.name, said.lines().last().unwrap_or_default());
    }
    panic!("{} was never let go", host.name)
}

/// Takes one host through it. Returns the time from when it was told to leave to the last request that came to it.
pub(crate) fn change(fleet: &mut Fleet, index: usize) -> Duration {
    let name = fleet.hosts[index].name.clone();
    let (began, told) = drain(fleet, index);
    let last = last_request(fleet, index, began).expect("the gate's word");
    let drained = began.elapsed();
    // Stopped: its listener closes, and its agent is killed.
    let mut gate = fleet.hosts[index].gate.take().expect("a gate");
    gate.signal(Signal::SIGTERM).expect("told to stop");
    fleet.hosts[index].agent.take().expect("an agent").kill().expect("killed");
    gate.wait().expect("its end");
    fleet.start_gate(index).expect("started");
    fleet.start_agent(index).expect("started");
    command(fleet, &["undrain", &name]);
    eprintln!(
        "{name}: told after {} ms, last request {} ms after the order, drained after {} ms, back after {} ms",
        told.as_millis(),
        last.as_millis(),
        drained.as_millis(),
        began.elapsed().as_millis()
    );
    last.saturating_sub(told)
}

/// All hosts, under load; nothing may be lost.
pub(crate) fn all_hosts(fleet: &mut Fleet, front: SocketAddr, balancer: &str) {
    let ours = load(fleet, front);
    let stranger = Stranger::start(front, 35);
    let began = Instant::now();
    let lasts: Vec<_> = (0..fleet.hosts.len()).map(|index| change(fleet, index)).collect();
    let receipt = ours.stop().expect("the load's numbers");
    let worst = lasts.iter().max().expect("three hosts");
    eprintln!(
        "{balancer}: three hosts stop-first in {} s; told to last request at most {} ms; our load: {} sent, {} lost; \
         slowest {} ms",
        began.elapsed().as_secs(),
        worst.as_millis(),
        receipt.total.sent,
        receipt.total.ours(),
        receipt.total.slowest.as_millis()
    );
    assert_eq!(receipt.total.ours(), 0, "{:#?}", receipt.failures);
    stranger.lost_nothing();
}
