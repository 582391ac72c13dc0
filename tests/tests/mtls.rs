//! Whole fleets over mutual TLS, on a three-member etcd with roles; and who is not believed.

#![allow(clippy::expect_used, clippy::unwrap_used, clippy::panic)]

mod support;

use std::io::{BufRead as _, BufReader};
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use handover_proto::peer::{PeerName, Role};
use handover_proto::wire::agent_client::AgentClient;
use handover_proto::wire::{AssignRequest, CertifyRequest, WatchRequest};
use handover_tests::fleet::{Fleet, Options, Secure, Spec, StoreKind, variables};
use handover_tests::load::{Load, LoadSpec};
use handover_tests::pki::{Pki, Subject};
use handover_tls::{Parties, TlsFiles};
use support::{receipt, serving, table};
use tokio_stream::StreamExt as _;
use tonic::Code;

fn program(name: &str) -> Option<PathBuf> {
    let program = std::env::var_os(name);
    if program.is_none() {
        eprintln!("SKIPPED: {name} does not name an etcd (tests/run sets it)");
    }
    program.map(PathBuf::from)
}

fn options(etcd: PathBuf) -> Options {
    Options { hosts: 2, store: StoreKind::Secure(etcd), ..Options::default() }
}

fn secure(fleet: &Fleet) -> &Secure {
    fleet.secure.as_ref().expect("a secure fleet")
}

#[test]
fn a_rollout_over_mutual_tls_and_under_roles_loses_nothing_and_hands_the_lease_over() {
    let Some(etcd) = program("HANDOVER_TEST_ETCD") else { return };
    let fleet = serving(options(etcd));
    let staged = fleet.cli().run(&["--timeout", "60s", "stage", "1.1.0"]).expect("a command");
    assert_eq!(staged.code, 0, "agents may read what they are to stage: {}{}", staged.out, staged.err);
    let load = Load::start(LoadSpec::new(fleet.gates(), 100.0)).expect("load");
    fleet.wait_for("the load to be answered", |_| Ok(load.answered_well() > 100)).expect("answers");
    let outcome = fleet.cli().roll(&Spec::to("1.1.0")).expect("a command");
    assert_eq!(outcome.code, 0, "{}{}", outcome.out, outcome.err);
    let receipt = receipt(&fleet, load);
    assert!(receipt.verdict.passed, "{}", table(&receipt));
    let turns = &receipt.holders.turns;
    assert!(turns.len() == 1 && turns[0].planned, "the lease moved otherwise than once: {}", table(&receipt));
}

/// What an agent says to a caller with these files.
async fn asked(fleet: &Fleet, files: &TlsFiles) -> [Result<(), tonic::Status>; 3] {
    let parties = Parties::new("demo".parse().unwrap(), Some(files.open().expect("good files")));
    let address = fleet.hosts[0].agent_listen.to_string();
    let agent = Role::Agent(fleet.hosts[0].name.parse().unwrap());
    let endpoint = parties.endpoint(&address).expect("an address");
    let channel = parties.connect(endpoint, agent, Duration::from_secs(5)).await.expect("the agent answers");
    let mut client = AgentClient::new(channel);
    let assign = client.assign(AssignRequest::default()).await.map(drop);
    let certify = client.certify(CertifyRequest::default()).await.map(drop);
    let watch = client.watch(WatchRequest::default()).await.map(drop);
    [assign, certify, watch]
}

fn forbidden(answer: &Result<(), tonic::Status>) -> bool {
    matches!(answer, Err(status) if status.code() == Code::PermissionDenied)
}

#[test]
fn an_agent_takes_assignments_from_coordinators_alone_and_certifies_to_agents_alone() {
    let Some(etcd) = program("HANDOVER_TEST_ETCD35") else { return };
    let fleet = Fleet::start(options(etcd)).expect("a fleet");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let ask = |file: &str, env: &str, role: Role| {
        let name = PeerName::new(&env.parse().unwrap(), role);
        let files = secure(&fleet).pki.issue(file, &Subject::default().uri(&name)).expect("a certificate");
        runtime.block_on(asked(&fleet, &files)).map(|answer| forbidden(&answer))
    };
    let (agent, operator) = (Role::Agent("app-02".parse().unwrap()), Role::Operator("bob".parse().unwrap()));
    assert_eq!(ask("c", "demo", Role::Coordinator), [false, true, false]);
    assert_eq!(ask("a", "demo", agent), [true, false, true]);
    assert_eq!(ask("o", "demo", operator), [true, true, true]);
    assert_eq!(
        ask("e", "other", Role::Coordinator),
        [true, true, true],
        "another environment's coordinator is a stranger"
    );

    let nameless = secure(&fleet).pki.issue("n", &Subject::default()).expect("a certificate");
    let [assign, ..] = runtime.block_on(asked(&fleet, &nameless));
    let said = assign.expect_err("no name").message().to_owned();
    assert!(said.contains("coordinators of environment demo alone") && said.contains("no URI name"), "{said}");
}

#[test]
fn nobody_is_believed_with_another_agents_certificate() {
    let Some(etcd) = program("HANDOVER_TEST_ETCD35") else { return };
    let mut fleet = Fleet::start(options(etcd)).expect("a fleet");
    let host = &mut fleet.hosts[0];
    host.agent.as_mut().expect("an agent").kill().expect("killed");
    // Somebody who has taken app-02's files answers at app-01's address.
    let files = secure(&fleet).issue("stolen", "nobody", Role::Agent("app-02".parse().unwrap())).unwrap();
    let listener = std::net::TcpListener::bind(fleet.hosts[0].agent_listen).expect("the address is free");
    listener.set_nonblocking(true).unwrap();
    let (tls, runtime) =
        (files.open().unwrap(), tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap());
    std::thread::spawn(move || {
        runtime.block_on(async move {
            let mut incoming = handover_tls::incoming(tokio::net::TcpListener::from_std(listener).unwrap(), tls);
            while incoming.next().await.is_some() {}
        });
    });
    let wanted = "handover://demo/agent/app-02 answers there, not handover://demo/agent/app-01";
    let seen = fleet
        .wait_for("the coordinator to say who answers", |fleet| Ok(fleet.cli().run(&["why"])?.out.contains(wanted)));
    seen.unwrap_or_else(|error| panic!("{error}: {}", fleet.cli().run(&["why"]).unwrap().out));

    // The agent itself does not start with them.
    let config = std::fs::read_to_string(&fleet.hosts[0].config).unwrap();
    let own = config.lines().map(|line| match line.strip_prefix("tls = ") {
        Some(files) => format!("tls = {}", files.replace("app-01.", "stolen.")),
        None => line.to_owned(),
    });
    let changed = fleet.dir().join("stolen.toml");
    std::fs::write(&changed, own.collect::<Vec<_>>().join("\n")).unwrap();
    let check =
        Command::new(fleet.binaries().path("handover-agent")).arg("check").arg("--config").arg(&changed).output();
    let said = said(&check.unwrap());
    assert!(
        said.contains("it is handover://demo/agent/app-02's certificate, and this is handover://demo/agent/app-01"),
        "{said}"
    );
}

#[test]
fn orders_come_from_operators_and_the_journal_has_the_certificates_name() {
    let Some(etcd) = program("HANDOVER_TEST_ETCD35") else { return };
    let fleet = serving(options(etcd));
    let run = |variables: Vec<(&'static str, String)>, args: &[&str]| {
        let mut command = Command::new(fleet.binaries().path("handover"));
        command.args(["--env", "demo", "--coordinator", &fleet.coordinator().to_string()]).args(args).envs(variables);
        command.output().expect("handover runs")
    };
    let spec = fleet.cli().write(&Spec::to("1.1.0")).unwrap().display().to_string();
    let coordinator = run(secure(&fleet).of_coordinator(), &["rollout", "start", &spec]);
    assert!(said(&coordinator).contains("this is for operators"), "{}", said(&coordinator));
    assert_eq!(run(secure(&fleet).of_coordinator(), &["fleet"]).status.code(), Some(0), "it may look");
    let agent = secure(&fleet).issue("x", "nobody", Role::Agent("app-01".parse().unwrap())).unwrap();
    assert!(said(&run(variables(&agent), &["fleet"])).contains("this is for operators"));
    let foreign = Pki::new(&fleet.dir().join("foreign")).unwrap();
    let name = PeerName::new(&"demo".parse().unwrap(), Role::Operator("alice".parse().unwrap()));
    let mut foreign = foreign.issue("alice", &Subject::default().uri(name)).unwrap();
    foreign.ca = secure(&fleet).pki.ca();
    let refused = said(&run(variables(&foreign), &["rollout", "pause"]));
    assert!(refused.contains("refuses our certificate, `--tls-cert`"), "{refused}");
    let plain = said(&run(Vec::new(), &["rollout", "pause"]));
    assert!(plain.contains("no coordinator answers") && plain.contains("if it speaks TLS, give --tls-ca"), "{plain}");

    assert_eq!(fleet.cli().run(&["rollout", "start", "--detach", &spec]).unwrap().code, 0);
    assert_eq!(fleet.cli().run(&["rollout", "pause", "--reason", "lunch"]).unwrap().code, 0);
    let history = fleet.cli().run(&["--json", "rollout", "history"]).unwrap().out;
    assert!(fleet.cli().run(&["rollout", "history"]).is_ok_and(|outcome| outcome.code == 0), "{history}");
    let rollout = fleet.cli().status().unwrap()["rollout"]["rollout"].as_str().expect("a rollout").to_owned();
    let journal = fleet.cli().run(&["--json", "rollout", "history", &rollout]).unwrap().out;
    assert!(journal.contains("alice") && journal.contains("lunch"), "{journal}");
}

#[test]
fn beyond_loopback_nobody_talks_in_plain_text_and_the_refusal_names_the_fix() {
    let handover = handover_tests::fleet::Binaries::find().unwrap().path("handover");
    let run = |args: &[&str]| said(&Command::new(&handover).args(args).output().unwrap());
    let serve = run(&["--store", "127.0.0.1:1", "serve", "--listen", "10.0.0.1:2791"]);
    assert!(serve.contains("--listen") && serve.contains("--tls-ca, --tls-cert and --tls-key"), "{serve}");
    let ask = run(&["--store", "127.0.0.1:1", "--coordinator", "10.0.0.1:2791", "rollout", "pause"]);
    assert!(ask.contains("10.0.0.1:2791 is not a loopback address") && ask.contains("--tls-ca"), "{ask}");
}

#[test]
fn whoever_has_a_certificate_that_is_about_to_expire_says_so_in_time() {
    let dir = tempfile::TempDir::new().unwrap();
    let pki = Pki::new(dir.path()).unwrap();
    let name = PeerName::new(&"demo".parse().unwrap(), Role::Coordinator);
    let subject = Subject { days: Some((85, 5)), ..Subject::default() }.uri(&name);
    let files = pki.issue("late", &subject).unwrap();
    let mut serve = Command::new(handover_tests::fleet::Binaries::find().unwrap().path("handover"));
    serve.args(["--env", "demo", "--store", "127.0.0.1:1", "--tls-ca"]).arg(&files.ca);
    serve.arg("--tls-cert").arg(&files.cert).arg("--tls-key").arg(&files.key).args([
        "serve",
        "--listen",
        "127.0.0.1:0",
    ]);
    let mut serve = serve.stderr(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
    let alarm = BufReader::new(serve.stderr.take().unwrap()).lines().map_while(Result::ok);
    let alarm = alarm.take(20).find(|line| line.contains("renew it now"));
    serve.kill().unwrap();
    serve.wait().unwrap();
    assert!(alarm.expect("an alarm").contains("late.pem"), "the file is named");
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}
