use std::collections::BTreeMap;

use handover_proto::numbers::{Era, Token};

use super::*;
use crate::lease::deadline::Boot;
use crate::lease::deadline::Deadlines;
use crate::lease::record::{LeaseRecord, Published};

const ME: Peer = Peer { uid: 0, gid: 0, pid: None };

fn published(told: Told, seq: u64) -> Published {
    let far = Boot::from_ns(u64::MAX / 2);
    let deadlines = (told == Told::Active).then_some(Deadlines { soft: far, hard: far });
    Published { told, token: Token::new(Era(0), 48).ok(), seq, op: None, deadlines, reason: "test".to_owned() }
}

fn board(instance: &InstanceId, told: Told, seq: u64) -> Board {
    Board::from([(instance.clone(), ("a".parse().expect("slot"), published(told, seq)))])
}

struct Site {
    instance: InstanceId,
    sender: watch::Sender<Board>,
    desk: Desk,
}

fn site(told: Told, seq: u64) -> Site {
    let instance = InstanceId::random();
    let (sender, seen) = watch::channel(board(&instance, told, seq));
    let clock = ClockIdentity { boot_id: "boot".to_owned(), time_ns: "time:[1]".to_owned() };
    let desk = Desk { board: seen, clock, callers: Callers::new(0, BTreeMap::new()), acks: Some(Acks::default()) };
    Site { instance, sender, desk }
}

impl Site {
    fn show(&self, told: Told, seq: u64) {
        self.sender.send_replace(board(&self.instance, told, seq));
    }

    async fn get(&self, rest: &str) -> Response<Lines> {
        let uri = format!("/v1/lease?instance={}{rest}", self.instance);
        let request = Request::get(uri).body(Full::<Bytes>::default()).expect("a request");
        self.desk.answer(ME, request).await
    }
}

fn record(bytes: &[u8]) -> LeaseRecord {
    serde_json::from_slice(bytes).expect("a record")
}

async fn line(response: &mut Response<Lines>) -> Option<LeaseRecord> {
    let frame = response.body_mut().frame().await?.expect("infallible");
    let bytes = frame.into_data().expect("data");
    assert_eq!(bytes.last(), Some(&b'\n'));
    Some(record(&bytes))
}

async fn seq(response: Response<Lines>) -> u64 {
    assert_eq!(response.status(), StatusCode::OK);
    record(&response.into_body().collect().await.expect("infallible").to_bytes()).seq
}

#[tokio::test]
async fn a_wait_ends_with_the_first_newer_record_and_not_before() {
    let site = site(Told::Active, 5);
    assert_eq!(seq(site.get("&seq=4&wait=60s").await).await, 5, "what is newer already is not waited for");
    let (answer, ()) = tokio::join!(site.get("&seq=5&wait=60s"), async {
        // The same number again, as when only a deadline has moved, is nothing new.
        site.show(Told::Active, 5);
        tokio::task::yield_now().await;
        site.show(Told::Quiesce, 6);
    });
    assert_eq!(seq(answer).await, 6);
}

#[tokio::test]
async fn a_wait_without_news_ends_after_its_time_with_the_record_as_it_is() {
    let site = site(Told::Active, 5);
    let begun = std::time::Instant::now();
    assert_eq!(seq(site.get("&seq=5&wait=50ms").await).await, 5);
    assert!(begun.elapsed() >= Duration::from_millis(50));
    assert_eq!(site.get("&seq=5&wait=61s").await.status(), StatusCode::BAD_REQUEST, "the limit");
}

#[tokio::test]
async fn a_wait_ends_when_the_instance_does() {
    let site = site(Told::Active, 5);
    let (answer, _) = tokio::join!(site.get("&seq=5&wait=60s"), async { site.sender.send_replace(Board::new()) });
    assert_eq!(answer.status(), StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn what_the_agent_does_not_know_is_no_news() {
    let site = site(Told::Active, 5);
    site.show(Told::Unknown, 6);
    assert_eq!(site.get("").await.status(), StatusCode::SERVICE_UNAVAILABLE);
    let (answer, ()) = tokio::join!(site.get("&seq=5&wait=60s"), async {
        tokio::task::yield_now().await;
        site.show(Told::Active, 7);
    });
    assert_eq!(seq(answer).await, 7);
}

#[tokio::test]
async fn a_stream_has_a_line_for_every_change_and_ends_with_the_instance() {
    let site = site(Told::Stopped, 1);
    let mut stream = site.get("&stream=1").await;
    assert_eq!(line(&mut stream).await.map(|record| record.seq), Some(1));
    for number in 2..20 {
        site.show(Told::Active, number);
        assert_eq!(line(&mut stream).await.map(|record| record.seq), Some(number));
    }
    site.sender.send_replace(Board::new());
    assert_eq!(line(&mut stream).await, None);
}

#[tokio::test]
async fn a_slow_reader_of_a_stream_gets_the_newest_record_and_none_of_those_it_missed() {
    let site = site(Told::Active, 1);
    let mut stream = site.get("&stream=1").await;
    assert_eq!(line(&mut stream).await.map(|record| record.seq), Some(1));
    for number in 2..=100_000 {
        site.show(Told::Active, number);
    }
    // What was begun for the reader while it slept is made from what stands when it is made.
    assert_eq!(line(&mut stream).await.map(|record| record.seq), Some(100_000));
    site.show(Told::Quiesce, 100_001);
    assert_eq!(line(&mut stream).await.map(|record| record.state), Some(Told::Quiesce), "nothing in between");
}
