//! A connection that the gate closes with bytes unread: its last answer must arrive all the same.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::bench::{PATIENCE, Service, TestGate};

#[tokio::test]
async fn no_reset_follows_the_last_answer_although_more_was_sent_than_is_read() {
    let (gate, a) = (TestGate::start().await, Service::start(1).await);
    gate.open(&[a.upstream(1, 1)]).await;
    let much = "x".repeat(200_000);
    for (request, begins) in [
        (format!("GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n{much}"), "HTTP/1.1 200"),
        (format!("GET / HTTP/1.1\r\nX: {much}"), "HTTP/1.1 431"),
        (format!("GET / HTTP/1.1\r\nHost: a b\r\n\r\n{much}"), "HTTP/1.1 400"),
        (format!("nonsense\r\n\r\n{much}"), "HTTP/1.1 400"),
    ] {
        let mut stream = TcpStream::connect(gate.address).await.expect("connected");
        stream.write_all(request.as_bytes()).await.expect("written");
        let mut answer = Vec::new();
        let read = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut answer)).await.expect("it ends");
        let answer = String::from_utf8_lossy(&answer);
        read.unwrap_or_else(|error| panic!("{begins}: {error} after {answer:?}"));
        assert!(answer.starts_with(begins), "{begins}: {answer}");
    }
    gate.report_when("and then it is closed", |report| report.connections == 0).await;
}
