//! Requests that two programs could read in two ways (RFC 9112 §11), as bytes. Each must be refused, or reach the service in
//! a form that can be read in one way only.

use std::sync::{Arc, Mutex};

use handover_agent::gate::control::Upstream;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use crate::bench::{Service, TestGate};
use crate::visitor::raw;

/// What the service would see, byte by byte; it answers whatever ends like a request.
async fn recorder() -> (Upstream, Arc<Mutex<Vec<u8>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    let seen = Arc::new(Mutex::new(Vec::new()));
    let record = Arc::clone(&seen);
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let record = Arc::clone(&record);
            tokio::spawn(async move {
                let mut buffer = [0; 4096];
                while let Ok(count) = stream.read(&mut buffer).await {
                    if count == 0 {
                        return;
                    }
                    record.lock().expect("not poisoned").extend(&buffer[..count]);
                    let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await;
                }
            });
        }
    });
    let service = Service::start(1).await;
    (Upstream { address, ..service.upstream(1, 1) }, seen)
}

/// Sends the bytes and hands back the answer with what the service saw.
async fn through(bytes: &str) -> (String, String) {
    let (gate, (upstream, seen)) = (TestGate::start().await, recorder().await);
    gate.open(&[upstream]).await;
    let answer = raw(gate.address, bytes).await;
    let seen = String::from_utf8_lossy(&seen.lock().expect("not poisoned")).into_owned();
    (answer, seen)
}

#[tokio::test]
async fn what_is_ambiguous_is_refused_and_the_service_sees_nothing_of_it() {
    let smuggled = "GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n";
    let post = |fields: &str, body: &str| format!("POST / HTTP/1.1\r\nHost: a\r\n{fields}\r\n{body}{smuggled}");
    let refused = [
        post("Content-Length: 5\r\nContent-Length: 0\r\n", "hello"),
        post("Content-Length: 0\r\nContent-Length: 38\r\n", ""),
        post("Transfer-Encoding: xchunked\r\n", "0\r\n\r\n"),
        post("Transfer-Encoding: chunked, gzip\r\n", "0\r\n\r\n"),
        post("Transfer-Encoding: \"chunked\"\r\n", "0\r\n\r\n"),
        post("Transfer-Encoding : chunked\r\n", "0\r\n\r\n"),
        post("Transfer-Encoding\t: chunked\r\n", "0\r\n\r\n"),
        post("Transfer\0-Encoding: chunked\r\n", "0\r\n\r\n"),
        post("Transfer-Encoding: chunked\0\r\n", "0\r\n\r\n"),
        post("X: y\r\n Transfer-Encoding: chunked\r\n", "0\r\n\r\n"),
        post("X: y\rTransfer-Encoding: chunked\r\n", "0\r\n\r\n"),
        post("Content-Length : 5\r\n", "hello"),
        post("Content-Length: 5 \x0b\r\n", "hello"),
        post("Content-Length: 1e1\r\n", "hello"),
        post("Content-Length: \r\n", ""),
        post("Host: b\r\n", ""),
        format!("GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n{smuggled}"),
        format!("GET / HTTP/1.1\r\n Host: a\r\n\r\n{smuggled}"),
        format!("GET / HTTP/1.1\r\nHost: a b\r\n\r\n{smuggled}"),
        format!("GET / HTTP/1.1\r\n\r\n{smuggled}"),
        format!("GET http://user@a/ HTTP/1.1\r\nHost: a\r\n\r\n{smuggled}"),
        format!("GET / HTTP/1.1 HTTP/1.1\r\nHost: a\r\n\r\n{smuggled}"),
        format!("GET\t/\tHTTP/1.1\r\nHost: a\r\n\r\n{smuggled}"),
        format!("GET /\0 HTTP/1.1\r\nHost: a\r\n\r\n{smuggled}"),
        format!("GET / HTTP/1.2\r\nHost: a\r\n\r\n{smuggled}"),
        format!("GET / HTTP/2.0\r\nHost: a\r\n\r\n{smuggled}"),
        format!("GE(T / HTTP/1.1\r\nHost: a\r\n\r\n{smuggled}"),
        format!("POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n{smuggled}"),
    ];
    for coding in ["gzip, chunked", "chunked, chunked", "identity, chunked"] {
        let (answer, seen) = through(&post(&format!("Transfer-Encoding: {coding}\r\n"), "0\r\n\r\n")).await;
        assert!(seen.is_empty() && answer.starts_with("HTTP/1.1 501"), "{coding}: {answer} {seen}");
    }
    for bytes in refused {
        let (answer, seen) = through(&bytes).await;
        assert_eq!(seen, "", "{bytes:?} reached the service; answered {answer:?}");
        assert!(
            answer.is_empty()
                || answer.starts_with("HTTP/1.1 400")
                || answer.starts_with("HTTP/1.0 400")
                || answer.starts_with("HTTP/1.1 505"),
            "{bytes:?}: {answer:?}"
        );
        assert!(answer.matches("HTTP/1.").count() <= 1, "{bytes:?}: one answer, then closed: {answer:?}");
    }
}

#[tokio::test]
async fn what_can_be_read_reaches_the_service_framed_anew() {
    let tail = "GET /smuggled HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
    // With both, the length is dropped and nothing after the chunks is read.
    for fields in ["Content-Length: 5\r\nTransfer-Encoding: chunked", "transfer-encoding: Chunked\r\ncontent-length: 5"]
    {
        let (_, seen) = through(&format!("POST / HTTP/1.1\r\nHost: a\r\n{fields}\r\n\r\n0\r\n\r\n{tail}")).await;
        let seen = seen.to_ascii_lowercase();
        assert!(seen.contains("transfer-encoding: chunked") && !seen.contains("content-length"), "{seen}");
        assert!(!seen.contains("smuggled"), "{seen}");
    }
    // The same length twice is one length.
    for fields in ["Content-Length: 5\r\nContent-Length: 5", "Content-Length: 5"] {
        let (_, seen) =
            through(&format!("POST / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n{fields}\r\n\r\nhello")).await;
        assert_eq!(seen.to_ascii_lowercase().matches("content-length: 5").count(), 1, "{fields}: {seen}");
    }
    // Extensions of chunks are not passed on.
    let chunks = "5;ext=\"GET /smuggled\"\r\nhello\r\n0;x\r\n\r\n";
    let head = "POST / HTTP/1.1\r\nHost: a\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n";
    let (_, seen) = through(&format!("{head}{chunks}")).await;
    assert!(seen.ends_with("\r\n\r\n5\r\nhello\r\n0\r\n\r\n") && !seen.contains("ext="), "{seen}");
    // An absolute target goes before Host, and is a path for the service.
    let (_, seen) = through("GET http://real/p HTTP/1.1\r\nHost: other\r\nConnection: close\r\n\r\n").await;
    assert!(
        seen.starts_with("GET /p HTTP/1.1\r\n") && seen.contains("host: real\r\n") && !seen.contains("other"),
        "{seen}"
    );
    // Nothing of a client's connection can be named away.
    let named = "Connection: close, Content-Length, Host, Transfer-Encoding";
    let (_, seen) = through(&format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n{named}\r\n\r\nhello")).await;
    assert!(seen.contains("content-length: 5\r\n") && seen.contains("host: a\r\n"), "{seen}");
}

#[tokio::test]
async fn bare_line_feeds_are_one_request_and_for_the_service_they_are_proper_line_ends() {
    // RFC 9112 §2.2 lets a recipient take a bare LF for a line's end. What the service sees has none.
    let smuggled = "GET /smuggled HTTP/1.1\nHost: a\n\n";
    let (answer, seen) = through(&format!("GET / HTTP/1.1\nHost: a\nConnection: close\n\n{smuggled}")).await;
    assert!(answer.starts_with("HTTP/1.1 200") && answer.matches("HTTP/1.").count() == 1, "{answer}");
    let head = seen.strip_suffix("\r\n\r\n").expect("it ends with its head");
    assert!(head.starts_with("GET / HTTP/1.1\r\n") && !head.contains("\r\n\r\n"), "one request: {seen:?}");
    assert_eq!((seen.matches(" HTTP/1.1").count(), seen.contains("smuggled")), (1, false), "{seen:?}");
    assert_eq!(seen.matches('\n').count(), seen.matches("\r\n").count(), "{seen:?}");
    let chunked = "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\nhello\n0\n\n";
    let (answer, seen) = through(chunked).await;
    assert!(!seen.contains("hello"), "in a chunked body it is a fault: {answer} {seen:?}");
}

/// What a client gets of a service that says just this.
async fn answered(says: String) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let _ = stream.read(&mut [0; 4096]).await;
            let _ = stream.write_all(says.as_bytes()).await;
        }
    });
    let (gate, service) = (TestGate::start().await, Service::start(1).await);
    gate.open(&[Upstream { address, ..service.upstream(1, 1) }]).await;
    raw(gate.address, "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").await
}

#[tokio::test]
async fn an_answer_that_two_could_read_in_two_ways_is_no_answer() {
    for head in [
        "Content-Length: 5\r\nContent-Length: 6\r\n",
        "Content-Length: 5x\r\n",
        "X: y\r\n folded: z\r\nContent-Length: 0\r\n",
        "Content Length: 0\r\n",
    ] {
        let answer = answered(format!("HTTP/1.1 200 OK\r\n{head}\r\nhello")).await;
        assert!(answer.starts_with("HTTP/1.1 502"), "{head:?}: {answer}");
    }
}

#[tokio::test]
async fn a_body_in_a_coding_that_would_be_lost_is_refused() {
    let body = "5\r\nhello\r\n0\r\n\r\n";
    for coding in ["gzip, chunked", "chunked, chunked", "chunked\r\nTransfer-Encoding: chunked", "identity, chunked"] {
        let fields = format!("Host: a\r\nConnection: close\r\nTransfer-Encoding: {coding}");
        let (answer, seen) = through(&format!("POST / HTTP/1.1\r\n{fields}\r\n\r\n{body}")).await;
        assert!(answer.starts_with("HTTP/1.1 501"), "{coding:?}: {answer:?}");
        assert_eq!(seen, "", "{coding:?}");
    }
}

#[tokio::test]
async fn an_answer_in_a_coding_that_would_be_lost_is_no_answer_and_the_length_of_a_chunked_one_does_not_count() {
    let chunks = "b\r\nhello world\r\n0\r\n\r\n";
    for (fields, begins) in [
        ("Transfer-Encoding: gzip, chunked", "HTTP/1.1 502"),
        ("Transfer-Encoding: gzip", "HTTP/1.1 502"),
        ("Transfer-Encoding: chunked\r\nContent-Length: 5", "HTTP/1.1 200"),
        ("Content-Length: 5\r\nTransfer-Encoding: chunked", "HTTP/1.1 200"),
    ] {
        let answer = answered(format!("HTTP/1.1 200 OK\r\n{fields}\r\n\r\n{chunks}")).await;
        assert!(answer.starts_with(begins), "{fields:?}: {answer}");
        if begins.ends_with("200") {
            let length = answer.to_ascii_lowercase().contains("content-length");
            assert!(answer.contains("hello world") && !length, "{fields:?}: {answer}");
        }
    }
}

#[tokio::test]
async fn a_client_cannot_take_the_requests_id_from_the_service() {
    let (answer, seen) = through("GET / HTTP/1.1\r\nHost: a\r\nConnection: close, X-Request-Id\r\n\r\n").await;
    let id = answer.lines().find_map(|line| line.strip_prefix("x-request-id: ")).expect("an id");
    assert!(seen.contains(&format!("x-request-id: {id}\r\n")), "{seen}");
}

#[tokio::test]
async fn an_absolute_target_with_a_users_name_is_refused() {
    for target in ["http://a@b/", "http://a:c@b/"] {
        let (answer, seen) = through(&format!("GET {target} HTTP/1.1\r\nHost: b\r\nConnection: close\r\n\r\n")).await;
        assert!(answer.starts_with("HTTP/1.1 400"), "{target}: {answer}");
        assert_eq!(seen, "", "{target}");
    }
}

#[tokio::test]
async fn trailers_of_a_request_cannot_say_what_only_the_gate_says() {
    let trailers =
        "X-Forwarded-For: 6.6.6.6\r\nForwarded: for=6.6.6.6\r\nX-Request-Id: mine\r\nHost: evil\r\nX-Sum: 7\r\n";
    let head = "POST / HTTP/1.1\r\nHost: a\r\nConnection: close\r\nTransfer-Encoding: chunked\r\nTrailer: x-sum, \
                x-forwarded-for, forwarded, x-request-id, host\r\n\r\n";
    let (_, seen) = through(&format!("{head}5\r\nhello\r\n0\r\n{trailers}\r\n")).await;
    let (_, after) = seen.split_once("hello").expect("the body");
    assert!(after.to_ascii_lowercase().contains("x-sum: 7"), "{after:?}");
    for lost in ["6.6.6.6", "mine", "evil"] {
        assert!(!after.contains(lost), "{after:?}");
    }
}
