//! What a drain, or the gate's own end, cuts off stands in its log: a line each, in bounds, and the sum.

use std::net::SocketAddr;

use handover_agent::gate::control::{Admission, GateState, Upstream};
use hyper::Method;
use nix::sys::signal::Signal;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::bench::{Service, until};
use crate::http2::Client2;
use crate::program::{Gate, Site, report_when, route};
use crate::visitor::Client;

/// The lines about single requests so far.
fn lines(gate: &mut Gate) -> Vec<String> {
    gate.said().lines().filter(|line| line.contains("a request was cut off")).map(str::to_owned).collect()
}

/// The sums, once there is one.
async fn sums(gate: &mut Gate) -> Vec<String> {
    let mut sums = Vec::new();
    until("a sum in the log", async || {
        let said = gate.said();
        sums = said.lines().filter(|line| line.contains("requests were cut off")).map(str::to_owned).collect();
        !sums.is_empty()
    })
    .await;
    sums
}

/// A connection on which these bytes were sent.
async fn raw(address: SocketAddr, head: &str) -> TcpStream {
    let mut stream = TcpStream::connect(address).await.expect("connected");
    stream.write_all(head.as_bytes()).await.expect("written");
    stream
}

#[track_caller]
fn says(line: &str, all: &[&str]) {
    for one in all {
        assert!(line.contains(one), "{one} is not in: {line}");
    }
}

#[tokio::test]
async fn each_request_that_a_drain_cuts_off_is_named_with_what_is_known_of_it_but_for_its_query() {
    let (site, a, b) = (Site::new(""), Service::start(1).await, Service::start(2).await);
    let mut gate = site.start(&[]);
    let link = site.link();
    gate.in_charge(&link).await;
    route(&link, 1, &[a.upstream(1, 1)]).await;
    // No drain: a service that breaks off is an error, and nothing was cut.
    let broken = Client::connect(site.listen).await.send(Method::GET, "/close", "").await;
    assert_eq!(broken.expect("the gate's answer").status, 502);
    let upload = "POST /wait-1?card=4711 HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\n12345";
    let mut writer = raw(site.listen, upload).await;
    let address = writer.local_addr().expect("an address");
    let mut reader = Client::connect(site.listen).await;
    let download = reader.begin(Method::GET, "/drip-2", "").await.expect("the head");
    let left = raw(site.listen, "GET /wait-3 HTTP/1.1\r\nHost: a\r\n\r\n").await;
    report_when(&link, "three in flight", |report| report.in_flight == 3).await;
    until("all three at the service", async || a.requests() == 4).await;

    route(&link, 2, &[b.upstream(1, 1)]).await;
    // One whose client loses its patience was not cut off by us.
    left.set_zero_linger().expect("set");
    drop(left);
    report_when(&link, "two in flight", |report| report.in_flight == 2).await;
    assert!(lines(&mut gate).is_empty(), "a drain alone cuts nothing off");

    a.kill();
    let sums = sums(&mut gate).await;
    says(&sums[0], &["requests=2", "unnamed=0", "drained"]);
    let lines = lines(&mut gate);
    let of = |what: &str| lines.iter().find(|line| line.contains(what)).unwrap_or_else(|| panic!("{what}: {lines:#?}"));
    let client = format!("client={address}");
    says(
        of("POST /wait-1 "),
        &[&client, "age_ms=", "received_bytes=5", "sent_bytes=0", "class=Write", "version=1.1.0"],
    );
    says(of("GET /drip-2 "), &["received_bytes=0", "sent_bytes=6", "class=Read", "instance=0000000000000001"]);
    assert!(lines.len() == 2 && !lines.concat().contains("4711"), "{lines:#?}");
    let _answer = writer.read(&mut [0; 64]).await;
    drop(download);
}

#[tokio::test]
async fn what_the_gate_cuts_off_at_its_end_has_fifty_lines_and_the_sum_of_all() {
    let site = Site::new("[gate.limits]\nstop_time = '500ms'\nleave_grace = '20ms'\n");
    let a = Service::start(1).await;
    let mut gate = site.start(&[]);
    let link = site.link();
    gate.in_charge(&link).await;
    route(&link, 1, &[a.upstream(1, 1)]).await;
    let mut clients = Vec::new();
    for number in 0..30 {
        clients.push(raw(site.listen, &format!("GET /wait-{number} HTTP/1.1\r\nHost: a\r\n\r\n")).await);
    }
    let (streams, connection) = Client2::at(site.listen).await;
    let asked = (30..60).map(|number| {
        let mut streams = streams.clone();
        tokio::spawn(async move { streams.begin(Method::GET, &format!("/wait-{number}"), &[], "").await })
    });
    let asked: Vec<_> = asked.collect();
    report_when(&link, "sixty in flight", |report| report.in_flight == 60).await;
    gate.signal(Signal::SIGTERM);
    assert!(!gate.ended().await.success(), "it did not end in good order");
    let (sums, lines) = (sums(&mut gate).await, lines(&mut gate));
    says(&sums.concat(), &["requests=60", "unnamed=10", "stop"]);
    assert_eq!((sums.len(), lines.len()), (1, 50));
    for one in asked {
        assert!(one.await.expect("no panic").is_err(), "cut off");
    }
    connection.abort();
}

#[tokio::test]
async fn an_upgraded_connection_that_does_not_leave_when_told_is_named_too() {
    let site = Site::new("[gate.upgraded]\nat_drain = 'close'\nclose_grace = '200ms'\n");
    let (a, b) = (Service::start(1).await, Service::start(2).await);
    let mut gate = site.start(&[]);
    let link = site.link();
    gate.in_charge(&link).await;
    route(&link, 1, &[a.upstream(1, 1)]).await;
    let upgrade = "GET /upgrade HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: chat\r\n\r\n";
    let mut stays = raw(site.listen, upgrade).await;
    report_when(&link, "a tunnel", |report| report.upstreams.iter().any(|one| one.upgraded == 1)).await;
    let upstreams: Vec<Upstream> = vec![b.upstream(1, 1)];
    link.send(GateState { seq: 2, admission: Admission::Open, upstreams });
    let mut rest = Vec::new();
    let _closed = stays.read_to_end(&mut rest).await;
    says(&sums(&mut gate).await[0], &["requests=1"]);
    let lines = lines(&mut gate);
    assert_eq!(lines.len(), 1, "{lines:#?}");
    says(&lines[0], &["GET /upgrade ", "did not close it in time"]);
}
