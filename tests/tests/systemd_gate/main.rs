//! The gate under a real systemd, with the units that are shipped: what `docs/gate-restart.md` promises of `systemctl reload`
//! and `restart`, and of `kill -9`. The host is booted for the test; the service behind the gate and its clients are here.

#![allow(clippy::expect_used, clippy::panic, reason = "tests fail by panicking")]

mod clients;
mod service;
mod site;

use std::sync::atomic::Ordering::SeqCst;
use std::time::Instant;

use clients::{Clients, ask};
use service::Service;
use site::{Listener, Site, until};

/// As many as share a small host's gate; each has a request on its way nearly all the time.
const CLIENTS: usize = 12;
const RELOADS: u32 = 5;
const RESTARTS: u32 = 3;
const KILLS: usize = 5;
/// Requests that are at the service, and stay there, when the gate is killed.
const HELD: usize = 3;

#[test]
fn with_a_socket_unit_reloads_and_restarts_lose_nothing_and_a_kill_what_was_in_flight() {
    run(Listener::SocketUnit);
}

#[test]
fn without_a_socket_unit_the_descriptor_store_keeps_the_listener_through_restarts_and_kills() {
    run(Listener::DescriptorStore);
}

fn run(listener: Listener) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    // Also moves this thread onto the host's network.
    let Some(site) = Site::boot(listener) else { return };
    runtime.block_on(async {
        let (one, two) = (Service::start("one").await, Service::start("two").await);
        site.route(1, &one).await;
        reloads(&site, &one).await;
        restarts(&site, &one).await;
        // The agent says where to go, and is gone: what comes now is out of the gate's own file.
        site.route(2, &two).await;
        kills(&site, &two).await;
    });
}

async fn reloads(site: &Site, service: &Service) {
    let clients = Clients::start(site.gate(), CLIENTS);
    for number in 1..=RELOADS {
        clients.traffic().await;
        let (held, before) = (service.hold(site.gate()).await, site.main_pid());
        let on_the_way = clients.on_the_way();
        assert!(on_the_way > 0 && service.held() == 1, "nothing is in flight");
        site.systemctl("reload").await.expect("no panic").expect("reloaded");
        until("a newer gate is the main process", async || site.main_pid() != before).await;
        assert!(!held.is_finished(), "the request in flight was broken off");
        clients.traffic().await;
        service.release(1);
        assert_eq!(held.await.expect("no panic").expect("an answer"), "one", "answered through the older gate");
        println!("{:?}, reload {number}: {on_the_way} requests on the way, 1 held", site.listener());
    }
    nothing_is_lost(clients, "reloads").await;
}

async fn restarts(site: &Site, service: &Service) {
    let clients = Clients::start(site.gate(), CLIENTS);
    for number in 1..=RESTARTS {
        clients.traffic().await;
        let (held, before) = (service.hold(site.gate()).await, site.main_pid());
        let on_the_way = clients.on_the_way();
        assert!(on_the_way > 0 && service.held() == 1, "nothing is in flight");
        let restarting = site.systemctl("restart");
        until("the gate is told to end", async || site.property("ActiveState") == "deactivating").await;
        let newcomer = ask(site.gate(), "/load");
        assert!(!held.is_finished() && !restarting.is_finished(), "it does not wait for the request in flight");
        service.release(1);
        assert_eq!(held.await.expect("no panic").expect("an answer"), "one", "what was in flight has finished");
        restarting.await.expect("no panic").expect("restarted");
        assert_eq!(newcomer.await.expect("no panic").expect("an answer"), "one", "who came meanwhile is served");
        assert!(site.main_pid() != before, "it is the same process");
        println!("{:?}, restart {number}: {on_the_way} requests on the way, 1 held", site.listener());
    }
    nothing_is_lost(clients, "restarts").await;
}

async fn nothing_is_lost(clients: Clients, what: &str) {
    clients.traffic().await;
    let tally = clients.stop().await;
    println!("{what}: {tally:?}");
    let failed = tally.lost.load(SeqCst) + tally.refused.load(SeqCst) + tally.unconnected.load(SeqCst);
    assert_eq!(failed, 0, "{what}: {tally:?}");
    assert!(tally.dismissed.load(SeqCst) > 0, "nobody had to connect anew, so nothing was tried: {tally:?}");
}

async fn kills(site: &Site, service: &Service) {
    let clients = Clients::start(site.gate(), CLIENTS);
    let (mut back, mut in_flight) = (Vec::new(), 0);
    for _ in 0..KILLS {
        clients.traffic().await;
        let mut held = Vec::new();
        for _ in 0..HELD {
            held.push(service.hold(site.gate()).await);
        }
        let pid = site.gate_process();
        // The clients, on this same thread, stand still until it is dead.
        in_flight += clients.on_the_way();
        clients.tally.kills.fetch_add(1, SeqCst);
        let killed = Instant::now();
        site.kill(pid);
        let newcomer = ask(site.gate(), "/load").await.expect("no panic");
        back.push(killed.elapsed());
        assert_eq!(newcomer.expect("who connects meanwhile is answered"), "two", "by the last routes");
        for one in held {
            one.await.expect("no panic").expect_err("what was in flight is lost, and its client hears of it");
        }
        service.forget_the_held();
        until("systemd says that it is up", async || site.property("ActiveState") == "active").await;
    }
    clients.traffic().await;
    let tally = clients.stop().await;
    let lost = tally.lost.load(SeqCst);
    back.sort_unstable();
    println!("{:?}, kills: back after {back:?}; lost {lost} of {in_flight} in flight; {tally:?}", site.listener());
    assert!(lost > 0 && lost <= in_flight, "lost {lost} of {in_flight} that were in flight");
    assert_eq!(tally.refused.load(SeqCst) + tally.unconnected.load(SeqCst), 0, "{tally:?}");
    let load = service.asked();
    let most = tally.answered.load(SeqCst) + lost + KILLS as u64;
    assert!(load <= most, "{load} requests came to the service, and clients know of {most}: something was sent twice");
    // What a busy machine adds is not the gate's doing; so the best of them counts.
    assert!(back[0] < std::time::Duration::from_millis(200), "{back:?}");
}
