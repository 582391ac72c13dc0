//! The gate is killed, and somebody else holds its listener.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixDatagram;
use std::sync::atomic::Ordering;
use std::time::Instant;

use nix::sys::signal::Signal;

use crate::bench::{PATIENCE, Service, until};
use crate::program::{Site, route};
use crate::restless::Clients;

fn listener() -> (TcpListener, Site) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let site = Site::at(listener.local_addr().expect("an address"), "");
    (listener, site)
}

/// A connection with a request on it; the kernel takes both while nobody accepts.
fn asked(site: &Site) -> TcpStream {
    let mut stream = TcpStream::connect(site.listen).expect("the kernel's queue takes it");
    stream.write_all(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").expect("written");
    stream.set_read_timeout(Some(PATIENCE)).expect("set");
    stream
}

async fn answer(mut stream: TcpStream) -> String {
    let read = tokio::task::spawn_blocking(move || {
        let mut text = String::new();
        stream.read_to_string(&mut text).expect("an answer");
        text
    });
    read.await.expect("no panic")
}

#[tokio::test]
async fn twenty_times_killed_it_is_back_with_its_routes_and_who_connected_meanwhile_is_answered() {
    let ((held, site), a) = (listener(), Service::start(1).await);
    let mut gate = site.start_given(&held, "handover-gate@s.socket", &[]);
    let link = site.link();
    gate.in_charge(&link).await;
    route(&link, 1, &[a.upstream(1, 1)]).await;
    drop(link);
    let mut back = Vec::new();
    for _ in 0..20 {
        gate.signal(Signal::SIGKILL);
        gate.ended().await;
        let waiting = asked(&site);
        let began = Instant::now();
        gate = site.start_given(&held, "handover-gate@s.socket", &[]);
        let text = answer(waiting).await;
        back.push(began.elapsed());
        assert!(text.starts_with("HTTP/1.1 200") && text.ends_with(&a.name()), "{text:?}");
    }
    back.sort_unstable();
    println!("from start to answer: median {:?}, worst {:?}", back[10], back[19]);
}

#[tokio::test]
async fn a_kill_loses_at_most_what_was_in_flight_and_the_link_learns_that_the_gate_began_anew() {
    let ((held, site), a) = (listener(), Service::start(1).await);
    let mut gate = site.start_given(&held, "x", &[]);
    let link = site.link();
    let mut before = gate.in_charge(&link).await.gate_start_id;
    route(&link, 1, &[a.upstream(1, 1)]).await;
    let clients = Clients::start(site.listen, 32);
    let mut in_flight = 0;
    for _ in 0..20 {
        let answered = clients.answered();
        until("traffic", async || clients.answered() > answered + 100).await;
        // The clients, on this same thread, stand still until its sockets are closed.
        in_flight += clients.tally.on_the_way.load(Ordering::SeqCst);
        gate.kill();
        clients.tally.kills.fetch_add(1, Ordering::SeqCst);
        gate = site.start_given(&held, "x", &[]);
        let report = gate.in_charge(&link).await;
        assert!(report.gate_start_id != before && report.took_over_from.is_none() && report.applied == 1, "{report:?}");
        before = report.gate_start_id;
    }
    let tally = clients.stop().await;
    println!("{tally:?}, in flight at the kills: {in_flight}");
    let lost = tally.lost.load(Ordering::SeqCst);
    assert!(lost > 0 && lost <= in_flight, "lost {lost}, in flight {in_flight}");
    assert_eq!(tally.refused.load(Ordering::SeqCst) + tally.unconnected.load(Ordering::SeqCst), 0, "{tally:?}");
    assert!(a.saw("POST /load") <= tally.answered.load(Ordering::SeqCst) + lost, "nothing was sent twice");
}

#[tokio::test]
async fn a_listener_of_a_socket_unit_for_another_address_is_an_error_that_names_both() {
    let (held, _) = listener();
    let site = Site::new("");
    let mut gate = site.start_given(&held, "handover-gate@s.socket", &[]);
    assert_eq!(gate.ended().await.code(), Some(1));
    let (said, other) = (gate.said(), held.local_addr().expect("an address").to_string());
    assert!(
        said.contains("ListenStream=") && said.contains(&other) && said.contains(&site.listen.to_string()),
        "{said}"
    );
}

/// The service manager's ear.
struct Ear(UnixDatagram, tempfile::TempDir);

impl Ear {
    fn new() -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let ear = UnixDatagram::bind(directory.path().join("notify")).expect("a socket");
        ear.set_read_timeout(Some(PATIENCE)).expect("set");
        Self(ear, directory)
    }

    fn path(&self) -> String {
        self.1.path().join("notify").to_str().expect("text").to_owned()
    }

    /// The next message, and what came along.
    fn hear(&self) -> (String, Vec<OwnedFd>) {
        use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
        let (mut text, mut space) = ([0; 512], [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))]);
        let mut beside = RecvAncillaryBuffer::new(&mut space);
        let into = &mut [std::io::IoSliceMut::new(&mut text)];
        let length = recvmsg(&self.0, into, &mut beside, RecvFlags::CMSG_CLOEXEC).expect("heard").bytes;
        let descriptors = beside.drain().flat_map(|message| match message {
            RecvAncillaryMessage::ScmRights(descriptors) => descriptors.collect(),
            _ => Vec::new(),
        });
        let descriptors = descriptors.collect();
        (String::from_utf8_lossy(&text[..length]).into_owned(), descriptors)
    }
}

#[tokio::test]
async fn without_a_socket_unit_the_manager_keeps_the_listener_and_a_kill_loses_no_waiting_connection() {
    let (ear, site, a) = (Ear::new(), Site::new(""), Service::start(1).await);
    let environment = [("NOTIFY_SOCKET", ear.path())];
    let environment: Vec<(&str, &str)> = environment.iter().map(|(name, value)| (*name, value.as_str())).collect();
    let mut gate = site.start_with(&environment);
    let (ready, _) = ear.hear();
    assert!(ready.contains("READY=1") && ready.contains(&format!("MAINPID={}", gate.pid())), "{ready}");
    let (keep, mut kept) = ear.hear();
    assert!(keep.contains("FDSTORE=1") && keep.contains("FDNAME=kept"), "{keep}");
    let kept = TcpListener::from(kept.pop().expect("the listener"));
    let link = site.link();
    route(&link, 1, &[a.upstream(1, 1)]).await;
    gate.signal(Signal::SIGKILL);
    gate.ended().await;
    let waiting = asked(&site);
    gate = site.start_given(&kept, "kept", &environment);
    assert!(answer(waiting).await.starts_with("HTTP/1.1 200"));
    assert!(ear.hear().0.contains("READY=1"));
    assert!(ear.hear().0.contains("FDSTORE=1"), "kept once more: the manager knows that it is the same");
    gate.signal(Signal::SIGTERM);
    assert!(ear.hear().0.contains("STOPPING=1"));
    assert_eq!(gate.ended().await.code(), Some(0));
    // With other settings what was kept is of no use.
    let elsewhere = TcpListener::bind("127.0.0.1:0").and_then(|other| other.local_addr()).expect("a port");
    site.configure(elsewhere, "");
    gate = site.start_given(&kept, "kept", &environment);
    gate.in_charge(&link).await;
    assert!(TcpStream::connect(elsewhere).is_ok(), "{}", gate.said());
}

#[tokio::test]
async fn with_a_socket_unit_the_manager_is_given_nothing_to_keep() {
    let (ear, (held, site)) = (Ear::new(), listener());
    let path = ear.path();
    let gate = site.start_given(&held, "handover-gate@s.socket", &[("NOTIFY_SOCKET", &path)]);
    assert!(ear.hear().0.contains("READY=1"));
    let (said, descriptors) = ear.hear();
    assert!(said.contains("FDSTOREREMOVE=1") && descriptors.is_empty(), "{said}");
    gate.signal(Signal::SIGTERM);
    assert!(ear.hear().0.contains("STOPPING=1"));
}
