//! HAProxy, over its Runtime API and over its agent-check.

use std::io::{Read, Write};
use std::net::SocketAddr;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use handover_tests::fleet::Fleet;
use nix::sys::signal::Signal;

use crate::front::{Front, address, fitted, sample, start};
use crate::stop_first::{Stranger, all_hosts, drain, fleet, load, serve};

/// Our agents must know the socket before HAProxy runs.
pub(crate) struct Site {
    pub(crate) dir: tempfile::TempDir,
    pub(crate) listen: SocketAddr,
}

impl Site {
    pub(crate) fn new() -> Self {
        Self { dir: tempfile::tempdir().expect("a directory"), listen: address() }
    }

    fn socket(&self) -> PathBuf {
        self.dir.path().join("admin.sock")
    }

    /// The settings of the page, for each host.
    pub(crate) fn settings(&self, number: usize) -> String {
        let text = sample("haproxy.md", "toml", number);
        let text = text.replace("/run/haproxy/admin.sock", &self.socket().display().to_string());
        text.replace("app-01\"", "{name}\"").replace("0.0.0.0:7001", "{check}")
    }

    pub(crate) fn start(&self, fleet: &Fleet, number: usize) -> Front {
        let places = [
            ("/run/haproxy/admin.sock", self.socket().display().to_string()),
            ("/var/lib/haproxy/state", self.dir.path().join("state").display().to_string()),
        ];
        let text = fitted(&sample("haproxy.md", "haproxy", number), fleet, self.listen, &places);
        let config = self.dir.path().join("haproxy.cfg");
        std::fs::write(&config, text).expect("written");
        // Master and worker, so that it can be reloaded.
        start(fleet, "haproxy", &["-W", "-db", "-f", &config.display().to_string()], self.listen)
    }

    pub(crate) fn say(&self, command: &str) -> anyhow::Result<String> {
        let mut stream = UnixStream::connect(self.socket())?;
        writeln!(stream, "{command}")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer)
    }

    /// `srv_admin_state` of a server.
    fn admin(&self, server: &str) -> anyhow::Result<u32> {
        let all = handover_agent::balancer::haproxy::state::servers(&self.say("show servers state billing")?)?;
        Ok(all.get(server).map_or(0, |server| server.admin))
    }

    /// What HAProxy says of its servers: state, last health check, last agent-check.
    fn servers(&self) -> anyhow::Result<Vec<[String; 3]>> {
        let all = self.say("show stat")?;
        let mut lines = all.lines().map(|line| line.trim_start_matches("# ").split(',').collect::<Vec<_>>());
        let head = lines.next().unwrap_or_default();
        let field = |line: &[&str], name: &str| {
            let at = head.iter().position(|column| *column == name);
            // "* " stands before the last result while the next check is on its way.
            at.and_then(|at| line.get(at)).map_or_else(String::new, |field| field.trim_start_matches("* ").to_owned())
        };
        let is_ours =
            |line: &Vec<&str>| field(line, "pxname") == "billing" && field(line, "svname").starts_with("app-");
        let said = |line: Vec<&str>| ["status", "check_status", "agent_status"].map(|name| field(&line, name));
        Ok(lines.filter(is_ours).map(said).collect())
    }
}

/// All agents are killed at once, for long enough that every server was checked again and again.
fn agents_are_away(fleet: &mut Fleet, site: &Site, front: SocketAddr, asked: bool) {
    let load = load(fleet, front);
    for host in &mut fleet.hosts {
        host.agent.take().expect("an agent").kill().expect("killed");
    }
    let (began, before) = (Instant::now(), load.answered_well());
    // Of the agent-check HAProxy itself says that it was refused.
    let count = fleet.hosts.len();
    let refused =
        |_: &Fleet| Ok(!asked || site.servers()?.iter().filter(|server| server[2] == "L4CON").count() == count);
    fleet.wait_for("HAProxy to find no agent", refused).expect("refused");
    // Several times the time after which a host that does not answer is DOWN: that is the subject here.
    let passed = |_: &Fleet| Ok(began.elapsed() > Duration::from_secs(4) && load.answered_well() > before + 100);
    fleet.wait_for("time to pass, and requests to be answered", passed).expect("answered");
    let servers = site.servers().expect("the servers");
    let up = servers.iter().filter(|server| server[0] == "UP" && server[1] == "L7OK").count();
    assert_eq!(up, count, "nobody's routing has changed: {servers:?}");
    let receipt = load.stop().expect("the load's numbers");
    let (sent, lost, away) = (receipt.total.sent, receipt.total.ours(), began.elapsed().as_millis());
    eprintln!("without agents for {away} ms: {sent} sent, {lost} lost");
    assert_eq!(lost, 0, "{:#?}", receipt.failures);
    // Only now: a holder whose agent was away for too long is ended by it.
    for index in 0..count {
        fleet.start_agent(index).expect("started");
    }
}

#[test]
fn haproxys_runtime_api_loses_nothing() {
    let site = Site::new();
    let mut fleet = fleet(&site.settings(0));
    let front = site.start(&fleet, 0);
    serve(&fleet);
    all_hosts(&mut fleet, front.listen, "HAProxy, Runtime API");
    agents_are_away(&mut fleet, &site, front.listen, false);
}

#[test]
fn haproxys_agent_check_loses_nothing() {
    let site = Site::new();
    let mut fleet = fleet(&site.settings(1));
    let front = site.start(&fleet, 1);
    serve(&fleet);
    all_hosts(&mut fleet, front.listen, "HAProxy, agent-check");
    agents_are_away(&mut fleet, &site, front.listen, true);
}

#[test]
fn with_haproxy_down_no_drain_begins_and_why_says_so() {
    let site = Site::new();
    let fleet = fleet(&site.settings(0));
    let mut front = site.start(&fleet, 0);
    serve(&fleet);
    front.process.signal(Signal::SIGTERM).expect("told to stop");
    front.process.wait().expect("its end");
    // The floor itself forbids it: no balancer says that anybody serves.
    let down = |fleet: &Fleet| {
        Ok(fleet.hosts.iter().all(|host| host.status().is_ok_and(|status| status["front"]["confirmed"] == false)))
    };
    fleet.wait_for("the agents to see that HAProxy is away", down).expect("seen");
    let refused = fleet.cli().run(&["--timeout", "20s", "drain", "app-01", "--notice", "0s"]).expect("a command");
    assert_eq!(refused.code, 5, "{}{}", refused.out, refused.err);
    let forced = ["drain", "app-01", "--notice", "0s", "--min-serving", "0", "--detach"];
    let outcome = fleet.cli().run(&forced).expect("a command");
    assert_eq!(outcome.code, 0, "{}{}", outcome.out, outcome.err);
    let says = |fleet: &Fleet| {
        let why = fleet.cli().run(&["why"])?.out;
        Ok(why.contains("balancer-unreachable") && why.contains("admin.sock"))
    };
    fleet.wait_for("why to name HAProxy's socket", says).expect("named");
    let serves_on = |fleet: &Fleet| Ok(fleet.hosts[0].status()?["gate"]["admission"] == "lame-duck");
    fleet.wait_for("the host to serve on as a lame duck", serves_on).expect("it serves on");

    let _again = site.start(&fleet, 0);
    let drained = |_: &Fleet| Ok(site.admin("app-01")? & 0x08 != 0);
    fleet.wait_for("the drain to begin, once HAProxy is back", drained).expect("begun");
}

#[test]
fn a_reload_in_the_middle_of_a_drain_forgets_nothing() {
    let site = Site::new();
    let fleet = fleet(&site.settings(0));
    let front = site.start(&fleet, 0);
    serve(&fleet);
    let load = load(&fleet, front.listen);
    let stranger = Stranger::start(front.listen, 15);
    let drain = ["--timeout", "60s", "drain", "app-01", "--notice", "3s", "--detach"];
    assert_eq!(fleet.cli().run(&drain).expect("a command").code, 0);
    fleet.wait_for("the drain to begin", |_| Ok(site.admin("app-01")? & 0x08 != 0)).expect("begun");
    // As the page says: the state file, then the reload.
    let state = site.say("show servers state").expect("the state");
    std::fs::write(site.dir.path().join("state"), state).expect("written");
    let before = site.say("show info").expect("info");
    front.process.signal(Signal::SIGUSR2).expect("reloaded");
    let pid = |info: &str| info.lines().find(|line| line.starts_with("Pid:")).map(str::to_owned);
    let reloaded = |_: &Fleet| Ok(pid(&site.say("show info")?) != pid(&before));
    fleet.wait_for("the new process to answer", reloaded).expect("reloaded");
    assert_ne!(site.admin("app-01").expect("its state") & 0x08, 0, "the new process knows of the drain");
    let drained = |fleet: &Fleet| {
        let status = fleet.cli().status()?;
        Ok(status["orders"][0]["state"] == "drained")
    };
    fleet.wait_for("the host to be drained", drained).expect("drained");
    let back = fleet.cli().run(&["--timeout", "60s", "undrain", "app-01"]).expect("a command");
    assert_eq!(back.code, 0, "{}{}", back.out, back.err);
    assert_eq!(site.admin("app-01").expect("its state"), 0);
    let receipt = load.stop().expect("the load's numbers");
    eprintln!("reload in a drain: {} sent, {} lost", receipt.total.sent, receipt.total.ours());
    assert_eq!(receipt.total.ours(), 0, "{:#?}", receipt.failures);
    // And h2load sends on few new ones.
    stranger.lost_nothing_of(10);
}

#[test]
fn an_operators_drain_survives_a_rollout_and_a_host_in_it_does_not_count_as_serving() {
    let site = Site::new();
    let fleet = fleet(&site.settings(0));
    let _front = site.start(&fleet, 0);
    serve(&fleet);
    site.say("set server billing/app-02 state drain").expect("an operator");
    let seen = |fleet: &Fleet| Ok(fleet.hosts[1].status()?["front"]["confirmed"] == false);
    fleet.wait_for("the agent to see it", seen).expect("seen");
    let refused = fleet.cli().run(&["--timeout", "20s", "drain", "app-01", "--notice", "0s"]).expect("a command");
    assert!(refused.code == 5, "one of three is out: {}{}", refused.out, refused.err);
    std::thread::sleep(Duration::from_secs(3));
    assert_ne!(site.admin("app-02").expect("its state") & 0x08, 0, "three looks later it stands");
    let reason = fleet.hosts[1].status().expect("a report")["front"]["balancers"][0]["reason"].clone();
    assert!(reason.as_str().is_some_and(|reason| reason.contains("operator")), "{reason}");
    site.say("set server billing/app-02 state ready").expect("an operator");
    let back = |fleet: &Fleet| Ok(fleet.hosts[1].status()?["front"]["confirmed"] == true);
    fleet.wait_for("the agent to see that it is back", back).expect("seen");
    drain(&fleet, 0);
}
