//! A hand-over that does not come to its end, or that finds something else than it expects.

use std::net::TcpListener;
use std::os::fd::AsFd;
use std::os::unix::net::UnixListener as StdUnixListener;
use std::path::Path;

use handover_agent::gate::control::{Admission, FromGate, GateState, Offer, ToGate};
use nix::sys::signal::Signal;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};

use crate::bench::{Service, until};
use crate::program::{Site, report_when, route};
use crate::visitor::{Client, get};

async fn say(stream: &mut BufReader<UnixStream>, line: &ToGate) {
    let text = serde_json::to_string(line).expect("json") + "\n";
    stream.write_all(text.as_bytes()).await.expect("written");
}

/// Speaks to the gate as a newer one would, as far as the offer.
async fn ask_for_the_listener(control: &Path) -> BufReader<UnixStream> {
    let mut stream = BufReader::new(UnixStream::connect(control).await.expect("connected"));
    say(&mut stream, &ToGate::TakeOver).await;
    let mut line = String::new();
    while !line.contains("\"offer\"") {
        line.clear();
        assert!(stream.read_line(&mut line).await.expect("a line") > 0, "closed");
    }
    stream
}

#[tokio::test]
async fn a_newer_gate_that_dies_before_it_accepts_has_changed_nothing() {
    let (site, a, b) = (Site::new(""), Service::start(1).await, Service::start(2).await);
    let mut gate = site.start(&[]);
    let link = site.link();
    let start_id = gate.in_charge(&link).await.gate_start_id;
    route(&link, 1, &[a.upstream(1, 1)]).await;
    for round in 0..5 {
        let newer = ask_for_the_listener(&site.control).await;
        // It came as far as to be the one that agents find.
        std::fs::remove_file(&site.control).expect("removed");
        std::os::unix::fs::symlink("gate.sock.00000000", &site.control).expect("linked");
        assert_eq!(Client::connect(site.listen).await.get("/").await.status, 200, "the older one accepts all the time");
        drop(newer);
        until("the link is mended", async || UnixStream::connect(&site.control).await.is_ok()).await;
        let next = if round % 2 == 0 { &b } else { &a };
        route(&link, 2 + round, &[next.upstream(1, 1)]).await;
        assert_eq!(Client::connect(site.listen).await.get("/").await.body, next.name());
    }
    assert_eq!(report_when(&link, "the same gate", |_| true).await.gate_start_id, start_id);
    let mut newer = site.start(&["--replace"]);
    newer.in_charge(&link).await;
    assert_eq!(gate.ended().await.code(), Some(0), "and it can still be replaced");
}

#[tokio::test]
async fn a_gate_that_was_frozen_in_the_middle_of_a_hand_over_does_not_leave_for_a_newer_one_that_has_given_up() {
    let (site, a) = (Site::new(""), Service::start(1).await);
    let mut gate = site.start(&[]);
    let link = site.link();
    gate.in_charge(&link).await;
    route(&link, 1, &[a.upstream(1, 1)]).await;
    let mut newer = ask_for_the_listener(&site.control).await;
    gate.signal(Signal::SIGSTOP);
    say(&mut newer, &ToGate::Accepting { same_listener: true }).await;
    // The subject of the test: longer than the older one may wait.
    tokio::time::sleep(std::time::Duration::from_millis(3200)).await;
    gate.signal(Signal::SIGCONT);
    let mut said = String::new();
    while newer.read_line(&mut said).await.is_ok_and(|count| count > 0) {}
    assert!(!said.contains("left"), "{said}");
    assert_eq!(Client::connect(site.listen).await.get("/").await.status, 200);
    route(&link, 2, &[a.upstream(1, 1)]).await;
}

#[tokio::test]
async fn a_state_that_is_sent_during_a_hand_over_reaches_the_gate_that_is_in_charge_afterwards() {
    let (site, a) = (Site::new(""), Service::start(1).await);
    let mut gate = site.start(&[]);
    let link = site.link();
    gate.in_charge(&link).await;
    route(&link, 1, &[a.upstream(1, 1)]).await;
    let newer = ask_for_the_listener(&site.control).await;
    link.send(GateState { seq: 2, admission: Admission::Open, upstreams: vec![a.upstream(2, 2)] });
    // The offer is out with state 1: were 2 put in force now, the newer gate would not know.
    tokio::time::sleep(std::time::Duration::from_millis(200)).await;
    assert_eq!(link.reports().borrow().as_ref().map(|report| report.applied), Some(1));
    drop(newer);
    report_when(&link, "in force", |report| report.applied == 2).await;
}

#[tokio::test]
async fn if_the_older_gate_dies_in_the_middle_the_newer_one_goes_on_with_the_listener() {
    let (a, held) = (Service::start(1).await, TcpListener::bind("127.0.0.1:0").expect("a port"));
    held.set_nonblocking(true).expect("set");
    let site = Site::at(held.local_addr().expect("an address"), "");
    let run = site.control.parent().expect("a directory").to_owned();
    std::fs::create_dir_all(&run).expect("made");
    let own = run.join("gate.sock.0000dead");
    let control = StdUnixListener::bind(&own).expect("bound");
    control.set_nonblocking(true).expect("set");
    std::os::unix::fs::symlink("gate.sock.0000dead", &site.control).expect("linked");
    let control = UnixListener::from_std(control).expect("for tokio");
    let state = GateState { seq: 7, admission: Admission::Open, upstreams: vec![a.upstream(1, 1)] };
    let mut newer = site.start(&["--replace"]);
    let older = tokio::spawn(async move {
        let mut others = Vec::new();
        loop {
            let (stream, _) = control.accept().await.expect("a visitor");
            let mut stream = BufReader::new(stream);
            let mut line = String::new();
            // Lookers say nothing: they are let go by and by.
            let read = tokio::time::timeout(std::time::Duration::from_millis(1500), stream.read_line(&mut line)).await;
            match read {
                Ok(Ok(count)) if count > 0 && line.contains("take_over") => {
                    offer(&mut stream, &state, &held).await;
                    let accept = async {
                        loop {
                            others.push(control.accept().await.expect("a visitor"));
                        }
                    };
                    let mut said = String::new();
                    tokio::select! {
                        _ = accept => {}
                        read = stream.read_line(&mut said) => drop(read.expect("a line")),
                    }
                    assert!(said.contains("accepting"), "{said}");
                    // Dies here: socket, listener and all.
                    drop(std::fs::remove_file(&own));
                    return;
                }
                _ => others.push((stream.into_inner(), control.local_addr().expect("an address"))),
            }
        }
    });
    older.await.expect("the older one did its part");
    let answer = get(site.listen, "/").await.expect("no panic");
    assert_eq!(answer.body, a.name(), "{}", newer.said());
    let link = site.link();
    newer.in_charge(&link).await;
    report_when(&link, "the state came along", |report| report.applied == 7 && report.forerunners.is_empty()).await;
    route(&link, 8, &[a.upstream(2, 2)]).await;
}

async fn offer(stream: &mut BufReader<UnixStream>, state: &GateState, listener: &TcpListener) {
    use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
    let offer = Offer { start_id: "0000dead".into(), state: state.clone(), saved: 7, activated: false };
    let line = serde_json::to_string(&FromGate::Offer(offer)).expect("json") + "\n";
    let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut beside = SendAncillaryBuffer::new(&mut space);
    let descriptors = [listener.as_fd()];
    assert!(beside.push(SendAncillaryMessage::ScmRights(&descriptors)));
    let stream = stream.get_ref();
    let sent = sendmsg(stream, &[std::io::IoSlice::new(line.as_bytes())], &mut beside, SendFlags::NOSIGNAL);
    assert_eq!(sent.expect("sent"), line.len());
}

#[tokio::test]
async fn a_newer_gate_with_another_address_leaves_nobody_waiting_at_the_old_one() {
    let (site, a) = (Site::new(""), Service::start(1).await);
    let mut first = site.start(&[]);
    let link = site.link();
    first.in_charge(&link).await;
    route(&link, 1, &[a.upstream(1, 1)]).await;
    let elsewhere = TcpListener::bind("127.0.0.1:0").and_then(|other| other.local_addr()).expect("a port");
    site.configure(elsewhere, "");
    let mut second = site.start(&["--replace"]);
    second.in_charge(&link).await;
    assert_eq!(get(elsewhere, "/").await.expect("no panic").body, a.name());
    assert_eq!(first.ended().await.code(), Some(0));
    until("the old address is closed", async || UnixStream::connect(&site.control).await.is_ok()).await;
    assert!(std::net::TcpStream::connect(site.listen).is_err());
}

#[tokio::test]
async fn reload_replaces_the_gate_and_says_so_and_without_a_gate_or_with_a_bad_config_it_fails() {
    let (site, a) = (Site::new(""), Service::start(1).await);
    let mut none = site.start(&["--reload"]);
    assert_eq!(none.ended().await.code(), Some(1));
    assert!(none.said().contains("no gate answers"), "{}", none.said());
    let mut first = site.start(&[]);
    let link = site.link();
    first.in_charge(&link).await;
    route(&link, 1, &[a.upstream(1, 1)]).await;
    let mut reload = site.start(&["--reload"]);
    assert_eq!(reload.ended().await.code(), Some(0), "{}", reload.said());
    let report = report_when(&link, "another process", |report| report.pid != first.pid()).await;
    assert_eq!(first.ended().await.code(), Some(0));
    assert_eq!(get(site.listen, "/").await.expect("no panic").body, a.name());
    site.configure(([203, 0, 113, 7], 80).into(), "");
    let mut cannot = site.start(&["--reload"]);
    assert_eq!(cannot.ended().await.code(), Some(1));
    assert!(cannot.said().contains("the one before goes on"), "{}", cannot.said());
    assert_eq!(get(site.listen, "/").await.expect("it does").body, a.name());
    let pid = nix::unistd::Pid::from_raw(report.pid.try_into().expect("a pid"));
    nix::sys::signal::kill(pid, Signal::SIGTERM).expect("sent");
    until("it ends", async || nix::sys::signal::kill(pid, None).is_err()).await;
}
