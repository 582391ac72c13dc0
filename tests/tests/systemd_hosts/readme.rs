//! README.md's section "A host", done literally on three hosts that have nothing of ours. Replaced are addresses and names,
//! the build (the packages are made of the programs that the tests run), and the last soak, which is only waiting. 50
//! seconds on a busy machine.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use handover_proto::ids::Env;
use handover_proto::peer::{PeerName, Role};
use handover_tests::booted::{Booted, BootedHost};
use handover_tests::docs::sample;
use handover_tests::fleet::Process;
use handover_tests::load::{Load, LoadSpec};
use handover_tests::pki::{Pki, Subject};

use crate::packages::{build_one, make_clean};
use crate::site::until;

/// Where an operator has cloned it to: the commands are run from here.
const CLONE: &str = "/root/handover";

/// README's store members, and ours.
const MEMBERS: [(&str, &str); 3] = [
    ("10.0.0.11:2379", "10.88.0.254:2379"),
    ("10.0.0.12:2379", "10.88.0.254:2479"),
    ("10.0.0.13:2379", "10.88.0.254:2579"),
];

/// The `number`-th block of that kind, with our members' addresses.
fn block(kind: &str, number: usize) -> String {
    let text = sample("../README.md", kind, number).expect("a block of README.md");
    MEMBERS.iter().fold(text, |text, (theirs, ours)| text.replace(theirs, ours))
}

/// The block that has these words.
fn commands(words: &str) -> String {
    let found = (0..20).map_while(|number| sample("../README.md", "sh", number).is_ok().then(|| block("sh", number)));
    found.into_iter().find(|text| text.contains(words)).expect("a block of README.md with these words")
}

/// The block that begins so.
fn file(beginning: &str) -> String {
    let found =
        (0..20).map_while(|number| sample("../README.md", "toml", number).is_ok().then(|| block("toml", number)));
    found.into_iter().find(|text| text.starts_with(beginning)).expect("a block of README.md that begins so")
}

/// Runs a block as it stands, as root on the host; ends at the first command that fails.
fn does(host: &BootedHost, commands: &str) -> String {
    let said = host.must(&["env", "HOME=/root", "sh", "-ec", &format!("cd {CLONE}\n{commands}")]);
    said.inspect(|said| eprintln!("{said}")).expect("every command succeeds")
}

/// Store members beside us. Dropping it ends them.
struct Store(Vec<Process>);

impl Drop for Store {
    fn drop(&mut self) {
        for member in &mut self.0 {
            let _ended_already = member.kill();
        }
    }
}

impl Store {
    fn start(dir: &Path) -> Self {
        let etcd = std::env::var_os("HANDOVER_TEST_ETCD").map_or_else(|| PathBuf::from("etcd"), PathBuf::from);
        let peer = |index: usize| format!("http://127.0.0.1:{}", 2380 + index);
        let cluster = (0..3).map(|index| format!("etcd-{index}={}", peer(index))).collect::<Vec<_>>().join(",");
        let member = |index: usize| {
            let (name, client) = (format!("etcd-{index}"), format!("http://{}", MEMBERS[index].1));
            let data = dir.join(&name).display().to_string();
            let words = [
                ["--name", &name],
                ["--data-dir", &data],
                ["--listen-client-urls", &client],
                ["--advertise-client-urls", &client],
                ["--listen-peer-urls", &peer(index)],
                ["--initial-advertise-peer-urls", &peer(index)],
                ["--initial-cluster", &cluster],
            ];
            let words = words.concat().into_iter().map(str::to_owned).collect::<Vec<_>>();
            Process::spawn(&name, &etcd, &words, dir, &[]).expect("etcd")
        };
        Self((0..3).map(member).collect())
    }
}

/// What an operator has before he begins: the packages, certificates, and two versions of the service.
fn prepare(hosts: &Booted) {
    let shared = hosts.shared();
    for package in ["handover", "handover-agent"] {
        build_one(&shared.join("packages"), package, "0.1.0");
    }
    let pki = Pki::new(&shared.join("pki")).expect("a pki");
    let env = Env::default();
    let give = |host: &BootedHost, name: &str, role| {
        pki.issue(name, &Subject::named(name).uri(PeerName::new(&env, role))).expect("a certificate");
        let script = format!(
            "install -m644 /srv/site/pki/ca.pem /srv/site/pki/{name}.pem /etc/handover/tls/ &&
            install -m600 /srv/site/pki/{name}.key /etc/handover/tls/"
        );
        host.must(&["sh", "-ec", &script]).expect("installed");
    };
    for host in hosts.hosts() {
        make_clean(host);
        let place =
            format!("install -d {CLONE}/target /etc/handover/tls && ln -s /srv/site/packages {CLONE}/target/debian");
        host.must(&["sh", "-ec", &place]).expect("placed");
        give(host, "agent", Role::Agent(host.name().parse().expect("a name")));
        for version in ["1.0.0", "1.1.0"] {
            let program = format!("/builds/billing/{version}/billing");
            host.put(&program, &service(version)).expect("written");
            host.must(&["chmod", "755", &program]).expect("made executable");
        }
    }
    give(hosts.host(0), "coordinator", Role::Coordinator);
    give(hosts.host(0), "alice", Role::Operator("alice".parse().expect("a name")));
}

/// The demo service needs more than a port.
fn service(version: &str) -> String {
    format!(
        "#!/bin/sh\nexec /usr/lib/handover/billing --version-name {version} --ledger /srv/site/ledger.db \
         --lease-socket /run/handover/billing/lease.sock \"$@\"\n"
    )
}

fn serving(said: &str, version: &str) -> usize {
    let serves = |line: &&str| line.contains("SERVING  ") && line.contains(version) && line.contains("100 %");
    said.lines().filter(serves).count()
}

#[test]
fn three_clean_hosts_are_installed_brought_up_and_upgraded_by_the_readmes_own_words() {
    let Some(hosts) = Booted::or_skip(3) else { return };
    let _store = Store::start(hosts.shared());
    prepare(&hosts);
    for host in hosts.hosts() {
        let config = file("agent = ");
        assert!(config.contains("\"app-01\"") && config.contains("\"10.0.0.1:7101\""), "{config}");
        let config = config.replace("\"app-01\"", &format!("{:?}", host.name()));
        let config = config.replace("10.0.0.1:7101", &format!("{}:7101", host.address()));
        host.put("/etc/handover/billing.toml", &config).expect("written");
        does(host, &commands("handover-agent check"));
    }
    let first = hosts.host(0);
    does(first, &commands("enable --now handover\n"));
    let upgrade = file("[[service]]");
    assert!(upgrade.contains("version = \"1.1.0\"") && upgrade.contains("\nsoak = \"30s\""), "{upgrade}");
    let upgrade = upgrade.replace("\nsoak = \"30s\"", "\nsoak = \"2s\"");
    let roll = |text: &str| {
        first.put(&format!("{CLONE}/upgrade.toml"), text).expect("written");
        does(first, &commands("handover rollout start"))
    };
    let said = roll(&upgrade.replace("1.1.0", "1.0.0"));
    assert_eq!(serving(&said, "1.0.0"), 3, "{said}");

    let gates = hosts.hosts().iter().map(|host| SocketAddr::new(host.address(), 8080)).collect();
    let load = Load::start(LoadSpec::new(gates, 40.0)).expect("load");
    until("the load to be answered", || load.answered_well() > 50);
    let said = roll(&upgrade);
    assert_eq!(serving(&said, "1.1.0"), 3, "{said}");
    assert!(said.contains("all 3 are heard"), "the doctor's last words: {said}");
    let receipt = load.stop().expect("the load's numbers");
    assert_eq!(receipt.total.ours(), 0, "{:?}", receipt.failures);
}
