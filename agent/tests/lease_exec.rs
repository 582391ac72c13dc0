//! `handover-agent lease exec`: real keepers in pull mode over the embedded store, the real wrapper, shell commands.
#![allow(clippy::expect_used, clippy::panic, reason = "a test that cannot go on ends")]

mod lease_site;
mod lease_exec {
    pub(crate) mod wrapped;
}

use std::time::Duration;

use handover_agent::lease::clock::boot_now;
use handover_agent::lease::record::LeaseRecord;
use handover_agent::lease::settings::{LeaseSettings, ServiceSide};
use handover_agent::lease::wanted::LeaseState;
use handover_proto::ids::InstanceId;
use lease_exec::wrapped::{Wrapped, output, until};
use lease_site::service::Ledger;
use lease_site::{Agent, StoreSite, TestService, ask, settings, until_view};
use nix::sys::signal::Signal;

const QUIESCE: Duration = Duration::from_secs(10);

/// D_soft is 4.69 s after the base, D_hard 5.19 s.
fn pull() -> LeaseSettings {
    LeaseSettings { service: ServiceSide::Pull, c_unit: Duration::from_millis(500), ..settings() }
}

/// Two agents, each with a wrapped instance that writes into one log; the first one holds.
struct Pair {
    store: StoreSite,
    agents: [Agent; 2],
    ids: [InstanceId; 2],
    wrapped: [Wrapped; 2],
    dir: tempfile::TempDir,
}

impl Pair {
    async fn start(flags: &[&str], script: &str) -> Self {
        let store = StoreSite::start();
        let dir = tempfile::tempdir().expect("a directory");
        let service = TestService::start("never called", &Ledger::default()).await;
        let agents = [Agent::start("app-01", &store, pull()), Agent::start("app-02", &store, pull())];
        let a = agents[0].run(&service);
        let first = Wrapped::start(&agents[0], &a, dir.path(), flags, script);
        agents[0].until_state(&a, LeaseState::Holder).await;
        let b = agents[1].run(&service);
        let second = Wrapped::start(&agents[1], &b, dir.path(), flags, script);
        let pair = Self { store, agents, ids: [a, b], wrapped: [first, second], dir };
        pair.until_ready(1).await;
        pair
    }

    async fn until_ready(&self, index: usize) {
        let client = self.store.client();
        let id = &self.ids[index];
        until_view(&client, "the candidate", |view| view.candidates.get(id).is_some_and(|c| c.value.ready)).await;
    }

    async fn hand_over(&self, from: usize, to: usize) {
        self.until_ready(to).await;
        ask(&self.store.client(), &self.ids[from], &self.ids[to], QUIESCE).await;
        self.agents[to].until_state(&self.ids[to], LeaseState::Holder).await;
    }

    fn log(&self) -> Vec<String> {
        let text = std::fs::read_to_string(self.dir.path().join("log")).unwrap_or_default();
        text.lines().map(str::to_owned).collect()
    }
}

/// Says when it begins and when it ends, as SIGTERM asks.
const POLITE: &str = "echo started $HANDOVER_INSTANCE $HANDOVER_LEASE_TOKEN >> log
    trap 'echo stopped $HANDOVER_INSTANCE >> log; exit 0' TERM
    while :; do sleep 0.02; done";

#[tokio::test]
async fn the_command_runs_under_its_token_and_stops_before_the_successors_starts() {
    let pair = Pair::start(&["--restart"], POLITE).await;
    until("the first start", || pair.log().len() == 1).await;
    let token = pair.agents[0].until_state(&pair.ids[0], LeaseState::Holder).await.token.expect("a token").get();
    assert_eq!(pair.log(), [format!("started {} {token}", pair.ids[0])], "and no second one beside it");
    pair.hand_over(0, 1).await;
    pair.hand_over(1, 0).await;
    until("the third start", || pair.log().len() == 5).await;
    let log = pair.log();
    let words: Vec<Vec<&str>> = log.iter().map(|line| line.split(' ').collect()).collect();
    let whose = |line: &[&str]| (line[0].to_owned(), line[1].to_owned());
    let [a, b] = [pair.ids[0].to_string(), pair.ids[1].to_string()];
    let expected = [("started", &a), ("stopped", &a), ("started", &b), ("stopped", &b), ("started", &a)];
    assert_eq!(
        words.iter().map(|line| whose(line)).collect::<Vec<_>>(),
        expected.map(|(what, who)| (what.to_owned(), who.clone())),
        "with --restart it runs again, and never two at once"
    );
    let tokens: Vec<u64> = words.iter().filter_map(|line| line.get(2)?.parse().ok()).collect();
    assert!(tokens.windows(2).all(|pair| pair[0] < pair[1]), "each life has its own token: {tokens:?}");
}

#[tokio::test]
async fn the_token_is_inherited_with_a_descriptor_too_that_nobody_can_write() {
    let script = "token=$HANDOVER_LEASE_TOKEN; unset HANDOVER_LEASE_TOKEN
        echo read $token $(sh -c 'cat /dev/fd/'$HANDOVER_LEASE_FD) >> log
        (echo 1 > /dev/fd/$HANDOVER_LEASE_FD) 2>/dev/null || echo refused >> log
        echo again $token $(cat /dev/fd/$HANDOVER_LEASE_FD) >> log
        while :; do sleep 0.02; done";
    let pair = Pair::start(&[], script).await;
    let token = pair.agents[0].until_state(&pair.ids[0], LeaseState::Holder).await.token.expect("a token").get();
    until("its words", || pair.log().len() == 3).await;
    assert_eq!(pair.log(), [format!("read {token} {token}"), "refused".to_owned(), format!("again {token} {token}")]);
}

#[tokio::test]
async fn quiesced_is_not_said_while_a_descendant_that_left_the_group_is_alive() {
    let leaver = "echo started >> log
        setsid sh -c \"trap '' TERM; while :; do echo alive $HANDOVER_INSTANCE >> log; sleep 0.02; done\" &
        trap 'exit 0' TERM
        while :; do sleep 0.02; done";
    let pair = Pair::start(&["--restart"], leaver).await;
    let first = format!("alive {}", pair.ids[0]);
    until("the descendant to live", || pair.log().contains(&first)).await;
    pair.hand_over(0, 1).await;
    until("the successor's start", || pair.log().iter().filter(|line| *line == "started").count() == 2).await;
    let log = pair.log();
    let begin = log.iter().rposition(|line| line == "started").expect("started");
    assert!(log[..begin].contains(&first), "precondition");
    assert!(!log[begin..].contains(&first), "it was dead before the successor was told ACTIVE");
}

#[tokio::test]
async fn with_the_agent_gone_everything_is_dead_by_the_hard_deadline() {
    let stubborn = "trap '' TERM
        echo started >> log
        (setsid sh -c \"trap '' TERM; while :; do sleep 0.1; done\" &)
        while :; do sleep 0.1; done";
    let mut pair = Pair::start(&[], stubborn).await;
    until("the start", || pair.log().contains(&"started".to_owned())).await;
    until("the tree of wrapper, command and the one that double-forked", || pair.wrapped[0].tree().len() >= 3).await;
    pair.agents[0].down();
    // The last record that it can have read: what lease.json said when the agent died is no later.
    let file = pair.agents[0].runtime_dir.path().join("a/lease.json");
    let record: LeaseRecord = serde_json::from_slice(&std::fs::read(file).expect("a file")).expect("a record");
    until("the soft deadline", || boot_now().expect("a clock").ns() > record.soft_deadline_boot_ns + 50_000_000).await;
    assert!(pair.wrapped[0].tree().len() >= 3, "precondition: SIGTERM did nothing");
    let code = pair.wrapped[0].wait().await;
    let late = boot_now().expect("a clock").ns().saturating_sub(record.hard_deadline_boot_ns);
    assert_eq!(code, Some(137), "the command's own end, as a shell tells it");
    assert!(late < 500_000_000, "{late} ns after the hard deadline");
    assert_eq!(pair.wrapped[0].tree(), Vec::<i32>::new(), "and with it every descendant");
}

#[tokio::test]
async fn a_wrapper_that_is_killed_takes_the_command_with_it() {
    let mut pair = Pair::start(&[], POLITE).await;
    until("the start", || pair.log().len() == 1).await;
    let command = pair.wrapped[0].command_pid().expect("a command");
    pair.wrapped[0].signal(Signal::SIGKILL);
    pair.wrapped[0].wait().await;
    until("the command's end", || !lease_exec::wrapped::is_alive(command)).await;
    assert!(!pair.log().iter().any(|line| line.starts_with("stopped")), "nobody asked it politely");
}

#[tokio::test]
async fn the_commands_exit_code_is_passed_through() {
    let until_go = "echo started >> log; while [ ! -e go ]; do sleep 0.02; done; exit 7";
    let mut pair = Pair::start(&["--restart"], until_go).await;
    std::fs::write(pair.dir.path().join("go"), "").expect("a file");
    assert_eq!(pair.wrapped[0].wait().await, Some(7));
    let mut pair = Pair::start(&[], "trap 'exit 3' TERM; echo started >> log; while :; do sleep 0.02; done").await;
    until("the start", || pair.log().len() == 1).await;
    pair.hand_over(0, 1).await;
    assert_eq!(pair.wrapped[0].wait().await, Some(3), "asked to stop, and not to run again");
}

#[tokio::test]
async fn an_agent_that_calls_its_service_is_no_agent_for_it() {
    let store = StoreSite::start();
    let dir = tempfile::tempdir().expect("a directory");
    let service = TestService::start("a", &Ledger::default()).await;
    let agent = Agent::start("app-01", &store, settings());
    let id = agent.run(&service);
    agent.until_state(&id, LeaseState::Holder).await;
    // A holder that was told QUIESCE, so that there is something to acknowledge before anything could be started.
    agent.change(&id, |instance| instance.life = handover_agent::lease::wanted::Life::GiveUp);
    let mut wrapped = Wrapped::start(&agent, &id, dir.path(), &[], "echo started >> log; sleep 300");
    assert_eq!(wrapped.wait().await, Some(1));
    assert!(wrapped.said().contains("service = \"pull\""), "{}", wrapped.said());
    assert!(!dir.path().join("log").exists(), "it started nothing");
}

#[tokio::test]
async fn a_program_that_does_not_exist_is_named_before_anything_is_held() {
    let run = |program: &str| {
        output(&["lease", "exec", "--socket", "/nowhere", "--instance", "00000000000000aa", "--", program])
    };
    let (code, said) = run("no-such-program-anywhere");
    assert!(code == Some(127) && said.contains("no-such-program-anywhere"), "{said}");
    let (code, said) = run("/etc/passwd");
    assert!(code == Some(126) && said.contains("/etc/passwd"), "{said}");
}

#[tokio::test]
async fn a_person_on_the_host_can_see_the_record() {
    let store = StoreSite::start();
    let service = TestService::start("a", &Ledger::default()).await;
    let agent = Agent::start("app-01", &store, settings());
    let id = agent.run(&service);
    let token = agent.until_state(&id, LeaseState::Holder).await.token.expect("a token").get().to_string();
    let socket = agent.runtime_dir.path().join("lease.sock").display().to_string();
    let show =
        |more: &[&str]| output(&[&["lease", "show", "--socket", &socket, "--instance", id.as_str()], more].concat());
    let (code, said) = show(&[]);
    assert_eq!(code, Some(0), "{said}");
    for part in ["ACTIVE", &token, id.as_str(), "soft in"] {
        assert!(said.contains(part), "{part}: {said}");
    }
    let record: LeaseRecord = serde_json::from_str(&show(&["--json"]).1).expect("a record");
    assert_eq!(record.token, Some(token));
    let (code, said) = output(&["lease", "show", "--socket", &socket, "--instance", "00000000000000aa"]);
    assert!(code == Some(1) && said.contains("no such instance"), "{said}");
}
