//! Planned restarts: a newer gate takes over from the one that runs.

use std::sync::atomic::Ordering;
use std::time::Duration;

use hyper::Method;
use nix::sys::signal::Signal;

use crate::bench::{Service, until};
use crate::program::{Site, report_when, route};
use crate::restless::Clients;
use crate::visitor::{Client, get, read};

#[tokio::test]
async fn twenty_planned_restarts_under_64_clients_lose_no_request() {
    let (site, a, b) = (Site::new(""), Service::start(1).await, Service::start(2).await);
    let mut gate = site.start(&[]);
    let link = site.link();
    gate.in_charge(&link).await;
    route(&link, 1, &[a.upstream(1, 1), b.upstream(1, 1)]).await;
    let clients = Clients::start(site.listen, 64);
    for round in 0..20 {
        let before = clients.answered();
        until("traffic", async || clients.answered() > before + 200).await;
        let mut newer = site.start(&["--replace"]);
        let report = newer.in_charge(&link).await;
        assert_eq!(report.applied, 1, "round {round}: the state in force came along");
        assert!(report.took_over_from.is_some());
        let mut older = std::mem::replace(&mut gate, newer);
        assert_eq!(older.ended().await.code(), Some(0), "round {round}: {}", older.said());
    }
    let tally = clients.stop().await;
    println!("{tally:?}");
    let count = |what: &std::sync::atomic::AtomicU64| what.load(Ordering::SeqCst);
    let failed = [&tally.lost, &tally.unnoticed, &tally.refused, &tally.unconnected].map(count);
    assert_eq!(failed, [0; 4], "{tally:?}");
    assert!(count(&tally.dismissed) >= 20, "clients were told to leave: {tally:?}");
    assert_eq!(a.saw("POST /load") + b.saw("POST /load"), count(&tally.answered), "each once");
    let all = |report: &handover_agent::gate::control::GateReport| {
        report.upstreams.iter().map(|one| one.writes.requests).sum::<u64>()
    };
    let report = report_when(&link, "all counted", |report| all(report) == count(&tally.answered)).await;
    assert_eq!(report.forerunners.len(), 0, "the counters went on through twenty processes");
}

#[tokio::test]
async fn an_instance_is_not_drained_while_an_older_gate_has_work_for_it() {
    let (site, a, b) = (Site::new(""), Service::start(1).await, Service::start(2).await);
    let mut first = site.start(&[]);
    let link = site.link();
    first.in_charge(&link).await;
    route(&link, 1, &[a.upstream(1, 1)]).await;
    let mut slow = Client::connect(site.listen).await;
    let answer = slow.begin(Method::GET, "/drip", "").await.expect("the head");
    let of_a = |report: &handover_agent::gate::control::GateReport| {
        let instance = a.upstream(0, 0).instance;
        report.upstreams.iter().find(|one| one.instance == instance).cloned().expect("reported")
    };
    // Watched from here on: at no moment may a report say that nothing is in flight.
    report_when(&link, "in flight", |report| of_a(report).in_flight == 1).await;
    let mut reports = link.reports();
    let watch = tokio::spawn({
        let instance = a.upstream(0, 0).instance;
        async move {
            let mut seen = 0_u64;
            while reports.changed().await.is_ok() {
                let report = reports.borrow_and_update().clone().expect("the gate is never away");
                let ours = report.upstreams.iter().find(|one| one.instance == instance);
                seen += 1;
                if ours.is_none_or(|one| one.in_flight == 0) {
                    return (seen, report);
                }
            }
            panic!("the link ended");
        }
    });
    let mut second = site.start(&["--replace"]);
    second.in_charge(&link).await;
    route(&link, 2, &[a.upstream(0, 0), b.upstream(1, 1)]).await;
    let mut third = site.start(&["--replace"]);
    third.in_charge(&link).await;
    assert_eq!(second.ended().await.code(), Some(0), "nothing was in flight there");
    route(&link, 3, &[a.upstream(0, 0), b.upstream(2, 2)]).await;
    let report = report_when(&link, "one older gate", |report| report.forerunners.len() == 1).await;
    assert_eq!((of_a(&report).in_flight, report.forerunners[0].pid), (1, first.pid()), "{report:?}");
    assert_eq!(report.forerunners[0].applied, 3, "the oldest gate has the newest state");
    assert!(first.runs() && !watch.is_finished());
    a.release(1);
    assert_eq!(read(answer).await.expect("the rest").body, format!("first,{}", a.name()));
    let (seen, last) = watch.await.expect("no panic");
    assert!(seen > 1 && last.pid == third.pid() && of_a(&last).reads.requests == 1, "{last:?}");
    // An idle client may stay with the older gate: closing its connection could meet a request on its way.
    assert!(first.runs());
    drop(slow);
    assert_eq!(first.ended().await.code(), Some(0), "{}", first.said());
    let last = report_when(&link, "nobody older", |report| report.forerunners.is_empty()).await;
    assert_eq!((of_a(&last).reads.requests, of_a(&last).in_flight), (1, 0), "what it counted is not forgotten");
}

#[tokio::test]
async fn clients_of_an_older_gate_are_sent_where_the_newest_state_says_and_told_to_leave() {
    let (site, a, b) =
        (Site::new("[gate.limits]\nleave_grace = '10s'"), Service::start(1).await, Service::start(2).await);
    let mut first = site.start(&[]);
    let link = site.link();
    first.in_charge(&link).await;
    route(&link, 1, &[a.upstream(1, 1)]).await;
    let mut client = Client::connect(site.listen).await;
    assert_eq!(client.get("/").await.body, a.name());
    let mut second = site.start(&["--replace"]);
    second.in_charge(&link).await;
    route(&link, 2, &[b.upstream(1, 1)]).await;
    // Confirmed means: also by the older gate, on whose connection this is.
    let answer = client.get("/").await;
    assert_eq!((answer.body.as_str(), answer.header("connection")), (b.name().as_str(), "close"));
    assert_eq!(a.requests(), 1);
    assert_eq!(first.ended().await.code(), Some(0));
}

#[tokio::test]
async fn an_older_gate_is_heard_again_by_the_successor_of_a_killed_newer_one() {
    let (site, a) = (Site::new(""), Service::start(1).await);
    let mut first = site.start(&[]);
    let link = site.link();
    first.in_charge(&link).await;
    route(&link, 1, &[a.upstream(1, 1)]).await;
    let waiting = get(site.listen, "/wait");
    until("in flight", async || a.saw("GET /wait") == 1).await;
    let mut second = site.start(&["--replace"]);
    second.in_charge(&link).await;
    second.signal(Signal::SIGKILL);
    second.ended().await;
    let mut third = site.start(&[]);
    let report = third.in_charge(&link).await;
    assert_eq!((report.in_flight, report.forerunners.len()), (1, 1), "in its very first report: {report:?}");
    a.release(1);
    assert_eq!(waiting.await.expect("no panic").status, 200);
    report_when(&link, "nobody older", |report| report.forerunners.is_empty()).await;
}

#[tokio::test]
async fn a_gate_that_was_replaced_outlasts_the_stop_time_unless_it_is_told_to_stop() {
    let (site, a) = (Site::new("[gate.limits]\nstop_time = '1s'"), Service::start(1).await);
    let mut first = site.start(&[]);
    let link = site.link();
    first.in_charge(&link).await;
    route(&link, 1, &[a.upstream(1, 1)]).await;
    let address = site.listen;
    let cut = tokio::spawn(async move { Client::connect(address).await.send(Method::GET, "/wait", "").await });
    until("in flight", async || a.saw("GET /wait") == 1).await;
    let mut second = site.start(&["--replace"]);
    second.in_charge(&link).await;
    // Nothing may happen here, so there is nothing to wait for.
    tokio::time::sleep(Duration::from_millis(1500)).await;
    assert!(first.runs(), "{}", first.said());
    first.signal(Signal::SIGTERM);
    let began = std::time::Instant::now();
    assert_eq!(first.ended().await.code(), Some(1), "{}", first.said());
    assert!(began.elapsed() > Duration::from_millis(900), "{:?}", began.elapsed());
    cut.await.expect("no panic").expect_err("cut off");
    report_when(&link, "nobody older", |report| report.forerunners.is_empty() && report.in_flight == 0).await;
}

#[tokio::test]
async fn without_replace_a_second_gate_is_refused_and_with_it_a_first_one_starts() {
    let site = Site::new("");
    let mut first = site.start(&["--replace"]);
    let link = site.link();
    assert_eq!(first.in_charge(&link).await.took_over_from, None);
    let mut second = site.start(&[]);
    assert_eq!(second.ended().await.code(), Some(1));
    assert!(second.said().contains("--replace"), "{}", second.said());
    assert!(first.runs());
    first.signal(Signal::SIGTERM);
    assert_eq!(first.ended().await.code(), Some(0));
    let left = std::fs::read_dir(site.control.parent().expect("a directory")).expect("listed").count();
    assert_eq!(left, 0, "no socket files are left");
}
