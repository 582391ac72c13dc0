//! Mode `signal`: no gate; the balancer chooses between the slots of one host.

use std::time::Duration;

use handover_tests::fleet::{Fleet, Options, Spec};

use crate::front::{address, fitted, sample, start};
use crate::haproxy::Site;
use crate::stop_first::{Stranger, load, serve, spec};

fn fleet(balancer: String) -> Fleet {
    let fleet = Fleet::start(Options { hosts: 1, signal: true, balancer, ..Options::default() }).expect("a fleet");
    fleet.install("1.0.0", "").expect("installed");
    fleet.install("1.1.0", "").expect("installed");
    fleet
}

/// What the page says beside `[gate]`.
fn only_balancer(text: &str) -> String {
    text.split_once("\n\n").expect("[gate], then the balancer").1.to_owned()
}

fn upgrades(fleet: &Fleet, front: std::net::SocketAddr, name: &str) {
    let load = load(fleet, front);
    let stranger = Stranger::start(front, 30);
    let spec = Spec { unmeasured: "go-on", ..spec(fleet, "1.1.0") };
    let outcome = fleet.cli().roll(&spec).expect("a command");
    assert_eq!(outcome.code, 0, "{}{}", outcome.out, outcome.err);
    let slots = fleet.hosts[0].status().expect("a report")["slots"].clone();
    let versions: Vec<_> =
        slots.as_array().expect("slots").iter().map(|slot| slot["instance"]["version"].clone()).collect();
    assert!(versions.iter().any(|version| version == "1.1.0"), "{versions:?}");
    let receipt = load.stop().expect("the load's numbers");
    eprintln!(
        "{name}, mode signal, 1.0.0 to 1.1.0 beside it: {} sent, {} lost, by version {:?}; slowest {} ms",
        receipt.total.sent,
        receipt.total.ours(),
        receipt.total.versions,
        receipt.total.slowest.as_millis()
    );
    assert_eq!(receipt.total.ours(), 0, "{:#?}", receipt.failures);
    assert_eq!(receipt.total.versions.len(), 2, "both versions answered");
    stranger.lost_nothing();
}

#[test]
fn haproxy_moves_traffic_between_slots_and_the_old_instance_is_stopped_without_a_connection() {
    let site = Site::new();
    let settings = only_balancer(&site.settings(2)).replace("{name}\"", "app-01\"");
    let fleet = fleet(settings);
    let front = site.start(&fleet, 2);
    serve(&fleet);
    upgrades(&fleet, front.listen, "HAProxy");
}

#[test]
fn envoy_follows_its_file_of_endpoints() {
    let (dir, listen) = (tempfile::tempdir().expect("a directory"), address());
    let file = ("/run/envoy/billing.json", dir.path().join("billing.json").display().to_string());
    let settings = only_balancer(&sample("envoy.md", "toml", 1)).replace(file.0, &file.1);
    let fleet = fleet(settings);
    // A file without endpoints, so that Envoy starts before anything serves.
    std::fs::write(&file.1, "{\"version_info\":\"0\",\"resources\":[]}").expect("written");
    let text = fitted(&sample("envoy.md", "yaml", 1), &fleet, listen, &[file]);
    let config = fleet.dir().join("envoy.yaml");
    std::fs::write(&config, text).expect("written");
    let args = ["-c", &config.display().to_string(), "--use-dynamic-base-id", "--concurrency", "1", "-l", "warning"];
    let front = start(&fleet, "envoy", &args, listen);
    serve(&fleet);
    upgrades(&fleet, front.listen, "Envoy");
}

#[test]
fn nothing_is_promoted_without_data_and_an_instance_with_an_open_connection_is_not_stopped() {
    let site = Site::new();
    let fleet = fleet(only_balancer(&site.settings(2)).replace("{name}\"", "app-01\""));
    let _front = site.start(&fleet, 2);
    serve(&fleet);
    // Somebody is connected to the instance itself, past the balancer, and says nothing.
    let serving = |slot: &std::net::SocketAddr| std::net::TcpStream::connect(slot).ok();
    let held: Vec<_> = fleet.hosts[0].slots.iter().filter_map(serving).collect();
    assert_eq!(held.len(), 1, "one slot is in use");
    let file = fleet.cli().write(&spec(&fleet, "1.1.0")).expect("a spec").display().to_string();
    let start = fleet.cli().run(&["rollout", "start", "--detach", &file]).expect("a command");
    assert_eq!(start.code, 0, "{}{}", start.out, start.err);
    // Nobody counts how the candidate answers: after every soak an operator has to vouch for it.
    let shown = |fleet: &Fleet| anyhow::Ok(fleet.cli().status()?["rollout"].clone());
    let vouch = |soak: &str| {
        let paused = |fleet: &Fleet| Ok(shown(fleet)?["state"] == "paused");
        fleet.wait_within(Duration::from_secs(60), soak, paused).expect("paused");
        let why = fleet.cli().run(&["why"]).expect("a command").out;
        assert!(why.contains("nobody measures how 1.1.0 answers"), "{soak}: {why}");
        let resumed = fleet.cli().run(&["rollout", "resume"]).expect("a command");
        assert_eq!(resumed.code, 0, "{soak}: {}{}", resumed.out, resumed.err);
    };
    vouch("a quarter of the reads");
    vouch("all reads");
    let waits =
        |fleet: &Fleet| Ok(fleet.hosts[0].status()?["blocker"]["waiting_for"].to_string().contains("1 sockets"));
    fleet.wait_within(Duration::from_secs(60), "the agent to wait for it", waits).expect("waited for");
    drop(held);
    vouch("the writes");
    vouch("the last soak");
    let done = |fleet: &Fleet| Ok(shown(fleet)?["state"] == "done");
    fleet.wait_within(Duration::from_secs(60), "the rollout to end", done).expect("done");
}
