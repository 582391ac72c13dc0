//! What HTTP and TCP probes make of a service's answers.

use crate::stage::{Server, closed_port, first_reading, start};

async fn reading_of(server: &Server, check: &str) -> (bool, String) {
    first_reading(&start(server.port, &format!("http = {{ path = \"/ready\"{check} }}\ntimeout = \"200ms\""))).await
}

fn met(text: &str) -> (bool, String) {
    (true, text.to_owned())
}

fn unmet(text: &str) -> (bool, String) {
    (false, text.to_owned())
}

#[tokio::test]
async fn the_status_decides_when_no_field_is_asked_for() {
    let server = Server::answering("200 OK", "fine").await;
    assert_eq!(reading_of(&server, "").await, met("200 OK"));
    assert_eq!(reading_of(&server, ", status = 204").await, unmet("200 OK, wanted 204: fine"));
    server.answer("503 Service Unavailable", "schema\nmissing");
    assert_eq!(reading_of(&server, "").await, unmet("503 Service Unavailable, wanted 200: schema missing"));
    assert_eq!(reading_of(&server, ", status = 503").await, met("503 Service Unavailable"));
}

#[tokio::test]
async fn a_field_of_the_body_decides_when_it_is_asked_for() {
    let body = r#"{"schema": {"gate": "active"}, "clock": false, "runs": [3, 1.0]}"#;
    let server = Server::answering("200 OK", body).await;
    for (check, expected) in [
        (r#", field = "schema.gate", equals = "active""#, met("schema.gate = \"active\"")),
        (r#", field = "schema.gate", equals = "off""#, unmet("schema.gate = \"active\", wanted \"off\"")),
        (r#", field = "clock", equals = false"#, met("clock = false")),
        (r#", field = "clock""#, unmet("clock = false, wanted true")),
        (r#", field = "runs.1", equals = 1"#, met("runs.1 = 1.0")),
        (r#", field = "runs.2", equals = 1"#, unmet("runs.2 is missing, wanted 1")),
    ] {
        assert_eq!(reading_of(&server, check).await, expected, "{check}");
    }
    server.answer("500 Internal Server Error", r#"{"clock": true}"#);
    let (met, reading) = reading_of(&server, ", field = \"clock\"").await;
    assert!(!met && reading.starts_with("500 "), "a good field does not outweigh a bad status: {reading}");
}

#[tokio::test]
async fn a_body_that_is_no_json_or_too_large_is_unmet() {
    let server = Server::answering("200 OK", "<html>").await;
    let (met, reading) = reading_of(&server, ", field = \"a\"").await;
    assert!(!met && reading.contains("not JSON") && reading.contains("<html>"), "{reading}");
    server.answer("200 OK", &format!("{{\"a\": true, \"b\": \"{}\"}}", "x".repeat(70_000)));
    let (met, reading) = reading_of(&server, ", field = \"a\"").await;
    assert!(!met && reading.contains("limit"), "{reading}");
    assert!(reading_of(&server, "").await.0, "a body that is not asked for is not read");
}

#[tokio::test]
async fn the_request_is_what_the_config_says() {
    let server = Server::answering("200 OK", "").await;
    let check = "http = { path = \"/r?full=1\", headers = { x-key = \"k\", host = \"billing.local\" } }";
    first_reading(&start(server.port, check)).await;
    let request = server.requests().pop().expect("a request").to_lowercase();
    assert!(request.starts_with("get /r?full=1 http/1.1\r\n"), "{request}");
    for header in ["host: billing.local\r\n", "x-key: k\r\n", "connection: close\r\n", "user-agent: handover-agent\r\n"]
    {
        assert_eq!(request.matches(header).count(), 1, "{header:?} in {request}");
    }
}

#[tokio::test]
async fn a_service_that_does_not_answer_in_time_is_unmet() {
    let server = Server::answering("200 OK", "").await;
    server.hang_after("");
    assert_eq!(reading_of(&server, "").await, unmet("no answer within 200ms"));
    assert_eq!(server.requests().len(), 1, "it was asked");
    server.hang_after("HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n{\"a\": ");
    assert_eq!(reading_of(&server, ", field = \"a\"").await, unmet("no answer within 200ms"));
}

#[tokio::test]
async fn a_service_that_refuses_or_talks_nonsense_is_unmet() {
    let port = closed_port().await;
    let (met, reading) = first_reading(&start(port, "http = { path = \"/\" }")).await;
    assert!(!met && reading.contains("cannot connect to 127.0.0.1") && reading.contains("refused"), "{reading}");
    let server = Server::answering("nonsense", "").await;
    let (met, reading) = reading_of(&server, "").await;
    assert!(!met && reading.contains("no HTTP answer"), "{reading}");
}

#[tokio::test]
async fn a_tcp_probe_asks_only_for_a_connection() {
    let server = Server::answering("200 OK", "").await;
    assert_eq!(first_reading(&start(server.port, "tcp = {}")).await, met("accepts connections"));
    let (met, reading) = first_reading(&start(closed_port().await, "tcp = {}")).await;
    assert!(!met && reading.contains("refused"), "{reading}");
}

#[tokio::test]
async fn a_probe_may_ask_another_port_than_the_slots() {
    let server = Server::answering("200 OK", "").await;
    let slot = closed_port().await;
    for check in ["tcp = { port = PORT }", "http = { path = \"/\", port = PORT }"] {
        let check = check.replace("PORT", &server.port.to_string());
        assert!(first_reading(&start(slot, &check)).await.0, "{check}");
    }
}
