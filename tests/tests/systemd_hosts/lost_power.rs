//! A host loses its power in the middle of its own step, behind HAProxy and under load: what was in flight on it is all
//! that is lost, and the host joins again in the state that it should be in. About half a minute each.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use handover_tests::booted::front::{ADMIN, Front};
use handover_tests::clock::BootNs;
use handover_tests::fleet::Spec;
use handover_tests::load::request::Mix;
use handover_tests::load::{Load, LoadSpec};
use handover_tests::receipt::verdict::Expect;
use handover_tests::receipt::{Evidence, Receipt};
use serde_json::Value;

use crate::site::{Site, config, until};
use crate::stop_first::{links_to, single_units, spec};

/// How long a slow request takes: longer than it takes to see that it is in flight, shorter than the drain's deadline.
const SLOW: Duration = Duration::from_secs(5);

/// Requests a second.
const RATE_PER_S: f64 = 40.0;

/// How much longer than its own time a request may have been under way on a very busy machine, once it had left.
const MARGIN: Duration = Duration::from_secs(2);

/// A request without its answer after that long is lost: longer than a very busy machine takes.
const PATIENCE: Duration = Duration::from_secs(20);

/// HAProxy's own word on a host.
#[derive(Debug)]
struct Server {
    /// `UP`, `DRAIN`, `DOWN`, ...
    status: String,
    /// Requests that it has there now.
    sessions: u64,
}

impl Server {
    /// HAProxy may add to the word: `DRAIN 1/3`, `MAINT (via ...)`.
    fn is_taken_out(&self) -> bool {
        ["DRAIN", "MAINT"].into_iter().any(|word| self.status.starts_with(word))
    }
}

fn servers() -> BTreeMap<String, Server> {
    let mut stats = String::new();
    let mut socket = TcpStream::connect(ADMIN).expect("HAProxy's socket");
    socket.write_all(b"show stat\n").and_then(|()| socket.read_to_string(&mut stats)).expect("statistics");
    let mut lines = stats.lines().map(|line| line.split(',').collect::<Vec<_>>());
    let names = lines.next().expect("names of the columns");
    let column = |name| names.iter().position(|found| *found == name).expect("a column");
    let [name, status, sessions] = ["svname", "status", "scur"].map(column);
    let servers = lines.filter(|line| line.get(name).is_some_and(|name| name.starts_with("app-")));
    let read = |line: Vec<&str>| {
        let sessions = line[sessions].parse().expect("a number");
        (line[name].to_owned(), Server { status: line[status].to_owned(), sessions })
    };
    servers.map(read).collect()
}

/// Requests through HAProxy, some of them slow.
struct Clients {
    load: Load,
    began: Instant,
}

impl Clients {
    fn start() -> Self {
        let mut spec = LoadSpec::new(vec![Front::address()], RATE_PER_S);
        spec.mix = Mix { write_share: 0.2, slow_share: 0.1, slow: SLOW };
        spec.timeout = PATIENCE;
        let clients = Self { load: Load::start(spec).expect("load"), began: Instant::now() };
        until("the load to be answered", || clients.load.answered_well() > 100);
        clients
    }

    /// Draws up the receipt: requests that were in flight on the host when it was `cut` are its only loss.
    fn lost_only(self, site: &Site, cut: &Cut) -> Receipt {
        let until = BootNs::now();
        let load = self.load.stop().expect("the load's numbers");
        let dir = site.hosts.shared();
        let activity =
            site.hosts.hosts().iter().map(|host| dir.join(format!("activity-{}.jsonl", host.name()))).collect();
        let evidence = Evidence { ledger: dir.join("ledger.db").into(), activity, until };
        let receipt = Receipt::draw_up(load, &evidence, &Expect::default()).expect("a receipt");
        let [first, last] = [cut.from, cut.to].map(|at| at.duration_since(self.began));
        let longest = SLOW + MARGIN + receipt.load.latest_departure;
        for failure in &receipt.load.failures {
            let in_flight = failure.at + longest >= first && failure.at <= last;
            assert!(in_flight, "cut at {first:?} to {last:?}: {failure:?}\n{receipt}{}", site.logs());
        }
        eprintln!("lost {} of {} in flight", receipt.load.total.ours(), cut.in_flight);
        // HAProxy may have sent one more until the last process of the host was gone.
        let lost = receipt.load.total.ours();
        let most = cut.in_flight + (RATE_PER_S * (cut.to - cut.from).as_secs_f64()).ceil() as u64;
        assert!((1..=most).contains(&lost), "{lost} were lost, {} were in flight\n{receipt}", cut.in_flight);
        let broken = receipt.verdict.broken.iter().map(|broken| broken.rule);
        let others: Vec<_> = broken.filter(|rule| !["lost", "service-errors"].contains(rule)).collect();
        assert!(others.is_empty(), "{others:?}\n{receipt}{}", site.logs());
        receipt
    }
}

/// A loss of power.
struct Cut {
    from: Instant,
    to: Instant,
    /// What HAProxy had there right before.
    in_flight: u64,
}

/// Takes the power of a host that has work in flight.
fn cut(site: &Site, index: usize) -> Cut {
    let host = site.hosts.host(index);
    let sessions = || Some(servers()[&host.name()].sessions).filter(|sessions| *sessions > 0);
    let in_flight = found("requests in flight on the host", sessions);
    let (from, gate) = (Instant::now(), (host.address(), 8080));
    site.hosts.cut_power(index).expect("cut");
    until("the host to be gone", || TcpStream::connect(gate).is_err());
    Cut { from, to: Instant::now(), in_flight }
}

#[derive(Default)]
struct Flag(AtomicBool);

/// Raises the flag when it is dropped, by a failed assertion, too.
struct Raised<'a>(&'a Flag);

impl Drop for Raised<'_> {
    fn drop(&mut self) {
        self.0.0.store(true, Ordering::Relaxed);
    }
}

/// As long as HAProxy does not send to the lost host, we may take no other one out: runs `what` under watch.
fn while_no_other_leaves<T>(lost: &str, what: impl FnOnce() -> T) -> T {
    let ended = Flag::default();
    std::thread::scope(|scope| {
        let watch = scope.spawn(|| {
            let mut looks = 0;
            while !ended.0.load(Ordering::Relaxed) {
                let all = servers();
                if !all[lost].status.starts_with("UP") {
                    let left = all.iter().find(|(name, it)| *name != lost && it.is_taken_out());
                    assert!(left.is_none(), "{lost} is lost, and {left:?} was taken out");
                    looks += 1;
                }
                std::thread::sleep(Duration::from_millis(20));
            }
            looks
        });
        let raised = Raised(&ended);
        let done = what();
        drop(raised);
        assert!(watch.join().expect("nobody left") > 10, "it was looked at");
        done
    })
}

fn start(site: &Site, spec: &Spec) {
    let file = site.hosts.shared().join("upgrade.toml");
    std::fs::write(&file, spec.text()).expect("written");
    until("the rollout to start", || {
        let (code, said) = site.cli(&["rollout", "start", "--detach", &file.display().to_string()]);
        assert!(code == 0 || said.contains("no coordinator answers"), "{said}");
        code == 0
    });
}

/// Waits until there is one.
fn found<T>(what: &str, look: impl Fn() -> Option<T>) -> T {
    let seen = RefCell::new(None);
    until(what, || {
        *seen.borrow_mut() = look();
        seen.borrow().is_some()
    });
    seen.into_inner().expect("it was seen")
}

/// The rows of a host.
fn rows(site: &Site, host: &str) -> Vec<Value> {
    site.rows().into_iter().filter(|row| row["agent"] == host).collect()
}

fn is_at(site: &Site, words: &str) -> bool {
    let rollout = &site.status()["rollout"];
    rollout["state"] == "running" && rollout["step_what"].as_str().is_some_and(|what| what.contains(words))
}

fn boots_by_itself(site: &Site) {
    for host in site.hosts.hosts() {
        host.must(&["systemctl", "enable", "handover-gate@billing", "handover-agent@billing"]).expect("enabled");
    }
}

fn why_names(site: &Site, host: &str) {
    let sentence = format!("{host} to be heard again: look at its host");
    until("`why` to name the host", || site.cli(&["why"]).1.contains(&sentence));
}

#[test]
fn a_host_that_loses_power_while_it_is_changed_in_place_costs_what_it_had_in_flight_and_is_changed_when_it_boots() {
    let Some((mut site, _front)) = single_units(3) else { return };
    boots_by_itself(&site);
    let (code, said) = site.roll(&spec("1.0.0"));
    assert_eq!(code, 0, "bring-up: {said}{}", site.logs());
    until("the scheduler lease to be held", || site.status()["lease"]["state"] == "held");
    site.install("1.1.0", "");
    let clients = Clients::start();
    start(&site, &spec("1.1.0"));
    let first = found("a host to drain in its own step", || {
        let drains = |row: &Value| row["reported"] == "DRAINING" && row["in_flight"].as_u64() > Some(0);
        let host = site.rows().into_iter().find(drains)?["agent"].as_str()?.to_owned();
        is_at(&site, &format!("on {host} and start 1.1.0 in its place")).then_some(host)
    });
    let index = site.hosts.hosts().iter().position(|host| host.name() == first).expect("a host");
    let cut = cut(&site, index);
    while_no_other_leaves(&first, || {
        why_names(&site, &first);
        until("the floor to be seen", || site.serving_count("1.0.0") == 2);
        site.hosts.boot(index).expect("booted");
        until("it to serve the new version", || {
            rows(&site, &first).iter().any(|row| row["version"] == "1.1.0" && row["reads"] == 100)
        });
    });
    let (code, said) = site.cli(&["--timeout", "60s", "rollout", "watch"]);
    assert_eq!(code, 0, "{said}{}", site.logs());
    until("all to serve the new version", || site.serving_count("1.1.0") == 3);
    links_to(&site, "1.1.0");
    clients.lost_only(&site, &cut);
}

/// Hosts with two slots, whose agents tell HAProxy.
fn two_slots(hosts: u8) -> Option<(Site, Front)> {
    let site = Site::start(hosts)?;
    for host in site.hosts.hosts() {
        host.put("/etc/handover/billing.toml", &config(host, &Front::lines_for(host))).expect("written");
    }
    let front = Front::start(&site.hosts, 8080).expect("HAProxy");
    site.bring_up();
    Some((site, front))
}

#[test]
fn the_holders_host_loses_power_while_its_candidate_starts_the_lease_moves_and_an_abort_takes_everything_back() {
    let Some((mut site, _front)) = two_slots(3) else { return };
    boots_by_itself(&site);
    let holder = found("the scheduler lease to be held", || {
        let lease = &site.status()["lease"];
        (lease["state"] == "held").then(|| lease["agent"].as_str().map(str::to_owned))?
    });
    let index = site.hosts.hosts().iter().position(|host| host.name() == holder).expect("a host");
    site.install("1.1.0", "");
    // Its candidate starts for as long as this stays.
    site.hosts.host(index).put("/builds/billing/1.1.0/behaviour.toml", "never-ready = true").expect("written");
    let clients = Clients::start();
    start(&site, &Spec { start_deadline: "60s", ..site.spec("1.1.0") });
    until("its candidate to start, in its own step", || {
        let starts = |row: &Value| row["version"] == "1.1.0" && row["reported"] != "SERVING";
        is_at(&site, "start 1.1.0") && rows(&site, &holder).iter().any(starts)
    });
    until("its wave to be the last", || site.serving_count("1.1.0") == 2);
    let cut = cut(&site, index);
    while_no_other_leaves(&holder, || {
        why_names(&site, &holder);
        until("the floor to be seen", || site.serving_count("1.1.0") == 2);
        until("another host to take the lease over", || {
            let lease = &site.status()["lease"];
            lease["state"] == "held" && lease["agent"].as_str().is_some_and(|agent| agent != holder)
        });
        until("the rollout to be where it was", || is_at(&site, "start 1.1.0"));
    });
    let (code, said) = site.cli(&["rollout", "abort", "--reason", "a host is lost"]);
    assert_eq!(code, 0, "{said}");
    until("the others to be back", || site.serving_count("1.0.0") == 2);
    site.hosts.boot(index).expect("booted");
    let (code, said) = site.cli(&["--timeout", "60s", "rollout", "watch"]);
    assert_eq!(code, 3, "{said}{}", site.logs());
    until("all to serve the old version alone", || {
        site.serving_count("1.0.0") == 3 && site.rows().iter().all(|row| row["version"] != "1.1.0")
    });
    let receipt = clients.lost_only(&site, &cut);
    let taken = receipt.holders.turns.iter().filter(|turn| !turn.planned).count();
    assert!(taken == 1 && receipt.holders.overlaps.is_empty(), "{receipt}");
}

#[test]
fn a_host_that_haproxy_takes_out_is_seen_whatever_it_adds_to_the_word() {
    let out = |status: &str| Server { status: status.to_owned(), sessions: 0 }.is_taken_out();
    assert!(["DRAIN", "DRAIN 1/3", "MAINT", "MAINT (resolution)"].into_iter().all(out));
    assert!(!["UP", "UP 1/2", "DOWN", "no check"].into_iter().any(out));
}
