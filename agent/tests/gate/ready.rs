//! What the gate itself tells a balancer that asks whether to send here.

use handover_agent::gate::control::Admission;
use hyper::Method;

use crate::bench::{Service, TestGate};
use crate::http2::Client2;
use crate::program::{Site, route};
use crate::visitor::{Client, get, raw};

/// Status for both classes, for reads and for writes.
async fn told(gate: &TestGate) -> [u16; 3] {
    let mut said = [0; 3];
    for (said, path) in said.iter_mut().zip(["/handover/ready", "/handover/ready/read", "/handover/ready/write"]) {
        *said = get(gate.address, path).await.expect("no panic").status;
    }
    said
}

#[tokio::test]
async fn a_balancer_hears_of_each_class_whether_somebody_ready_takes_it() {
    let gate = TestGate::start().await;
    let (a, b) = (Service::start(1).await, Service::start(2).await);
    assert_eq!(told(&gate).await, [503, 503, 503], "it has not heard of any upstream");
    gate.open(&[a.upstream(1, 0)]).await;
    assert_eq!(told(&gate).await, [503, 200, 503]);
    gate.open(&[a.upstream(1, 0), b.upstream(0, 1)]).await;
    assert_eq!(told(&gate).await, [200, 200, 200]);
    let mut sick = b.upstream(0, 1);
    sick.ready = false;
    gate.open(&[a.upstream(1, 0), sick]).await;
    assert_eq!(told(&gate).await, [503, 200, 503]);
    let answer = get(gate.address, "/handover/ready").await.expect("no panic");
    assert_eq!(answer.body, "{\"ready\":false,\"reasons\":[\"no ready instance takes writes\"]}");
    assert_eq!((a.requests(), b.requests()), (0, 0), "no service was asked, and none counts a request");
    let report = gate.report_when("a report", |_| true).await;
    assert!(report.own_answers.is_empty(), "it is no refusal either: {report:?}");
}

#[tokio::test]
async fn a_host_that_leaves_says_so_at_once_and_serves_on() {
    let (gate, a) = (TestGate::start().await, Service::start(1).await);
    gate.open(&[a.upstream(1, 1)]).await;
    let (mut streams, connection) = Client2::connect(&gate).await;
    assert_eq!(streams.send(Method::HEAD, "/handover/ready", "").await.expect("an answer").status, 200);
    gate.put(Admission::LameDuck, &[a.upstream(1, 1)]).await;
    let said = raw(gate.address, "GET /handover/ready HTTP/1.1\r\nHost: a\r\n\r\n").await;
    assert!(said.starts_with("HTTP/1.1 503") && said.contains("this host leaves"), "{said}");
    assert!(said.to_ascii_lowercase().contains("connection: close"), "{said}");
    assert_eq!(get(gate.address, "/").await.expect("no panic").status, 200, "what comes is served");
    for admission in [Admission::Hold, Admission::Shut] {
        gate.put(admission, &[a.upstream(1, 1)]).await;
        assert_eq!(told(&gate).await, [503, 503, 503]);
    }
    connection.abort();
}

#[tokio::test]
async fn what_is_not_that_question_goes_to_the_service_and_an_empty_path_asks_nothing() {
    let a = Service::start(1).await;
    let gate = TestGate::start_with(|settings| settings.ready_path = String::new()).await;
    gate.open(&[a.upstream(1, 1)]).await;
    assert_eq!(get(gate.address, "/handover/ready").await.expect("no panic").body, a.name());
    let gate = TestGate::start().await;
    gate.open(&[a.upstream(1, 1)]).await;
    assert_eq!(gate.client().await.post("/handover/ready").await.body, a.name());
    assert_eq!(a.requests(), 2);
}

#[tokio::test]
async fn without_an_agent_it_answers_on_and_notices_by_itself_that_the_instance_is_gone() {
    let (site, a) = (Site::new("[gate.hold]\ntime = '10ms'\n"), Service::start(1).await);
    let mut gate = site.start(&[]);
    let link = site.link();
    gate.in_charge(&link).await;
    route(&link, 1, &[a.upstream(1, 1)]).await;
    drop(link);
    gate.kill();
    let mut again = site.start(&[]);
    let ready = async || Client::connect(site.listen).await.get("/handover/ready").await.status;
    crate::bench::until("it listens", async || tokio::net::TcpStream::connect(site.listen).await.is_ok()).await;
    assert_eq!(ready().await, 200, "from its state file");
    a.kill();
    // Every try to connect makes it known for a second; so ask right after one, as often as it takes.
    crate::bench::until("it says so", async || {
        let lost = Client::connect(site.listen).await.get("/").await.status;
        lost == 503 && ready().await == 503
    })
    .await;
    assert!(again.runs());
}
