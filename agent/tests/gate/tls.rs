//! Clients that speak TLS.

use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use handover_agent::gate::server::{GateError, Server};
use handover_agent::gate::settings::GateSettings;
use handover_agent::gate::tls::TlsSettings;
use http_body_util::{BodyExt, Empty};
use hyper::Request;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::CertificateDer;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

use crate::bench::{PATIENCE, Service, TestGate, until};

/// Writes a certificate for `localhost` that signs itself, valid for `days`, and its key.
pub(crate) fn certificate(directory: &Path, days: u32) {
    let path = |name: &str| directory.join(name).to_string_lossy().into_owned();
    let (key, certificate, days) = (path("key.pem"), path("cert.pem"), days.to_string());
    let mut openssl = Command::new("openssl");
    openssl.args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]);
    openssl.args(["-keyout", &key, "-out", &certificate, "-days", &days, "-subj", "/CN=localhost"]);
    openssl.args(["-addext", "subjectAltName=DNS:localhost", "-addext", "basicConstraints=critical,CA:FALSE"]);
    let made = openssl.output().expect("openssl; `tests/run --tools` installs it");
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
}

fn tls(directory: &Path) -> TlsSettings {
    TlsSettings {
        certificate: directory.join("cert.pem"),
        key: directory.join("key.pem"),
        handshake_time: Duration::from_secs(5),
    }
}

pub(crate) async fn gate_with(directory: &Path) -> (TestGate, Service) {
    let settings = tls(directory);
    let gate = TestGate::start_with(|all| all.tls = Some(settings)).await;
    let a = Service::start(1).await;
    gate.open(&[a.upstream(1, 1)]).await;
    (gate, a)
}

async fn connect(gate: &TestGate, directory: &Path, alpn: &[&str]) -> std::io::Result<TlsStream<TcpStream>> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(directory.join("cert.pem")).expect("a certificate")).expect("a root");
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()));
    let config = config.with_safe_default_protocol_versions().expect("versions");
    let mut config = config.with_root_certificates(roots).with_no_client_auth();
    config.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
    let stream = TcpStream::connect(gate.address).await?;
    let connecting = TlsConnector::from(Arc::new(config)).connect("localhost".try_into().expect("a name"), stream);
    tokio::time::timeout(PATIENCE, connecting).await.expect("in time")
}

#[tokio::test]
async fn by_alpn_a_client_gets_http2_or_http1_and_the_service_is_told_of_https() {
    let directory = tempfile::tempdir().expect("a directory");
    certificate(directory.path(), 30);
    let (gate, _a) = gate_with(directory.path()).await;
    for alpn in [&["h2", "http/1.1"][..], &["http/1.1"], &[]] {
        let stream = connect(&gate, directory.path(), alpn).await.expect("connected");
        let http2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
        assert_eq!(http2, alpn.first() == Some(&"h2"));
        let request =
            Request::get("https://localhost/head").header("host", "localhost").body(Empty::<bytes::Bytes>::new());
        let request = request.expect("a request");
        let answer = if http2 {
            let handshake = hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream));
            let (mut sender, connection) = handshake.await.expect("http/2");
            tokio::spawn(connection);
            sender.send_request(request).await.expect("an answer")
        } else {
            let (mut sender, connection) =
                hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.expect("http");
            tokio::spawn(connection);
            sender.send_request(request).await.expect("an answer")
        };
        let seen = answer.into_body().collect().await.expect("whole").to_bytes();
        let seen = String::from_utf8_lossy(&seen);
        for expected in ["\"x-forwarded-proto\": \"https\"", "proto=https"] {
            assert!(seen.contains(expected), "{alpn:?}: {seen}");
        }
    }
    let report = gate.report_when("the expiry", |report| report.tls.is_some()).await.tls.expect("tls");
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("after 1970").as_secs();
    let left = report.not_after_unix_s.expect("an expiry") - now;
    assert!((29 * 86_400..=30 * 86_400).contains(&left), "{left}");
}

#[tokio::test]
async fn a_changed_certificate_is_used_without_a_restart_and_a_broken_one_leaves_the_old_in_use() {
    let directory = tempfile::tempdir().expect("a directory");
    certificate(directory.path(), 30);
    let (gate, _a) = gate_with(directory.path()).await;
    let old = tempfile::tempdir().expect("a directory");
    std::fs::copy(directory.path().join("cert.pem"), old.path().join("cert.pem")).expect("copied");
    let mut open = connect(&gate, old.path(), &["http/1.1"]).await.expect("connected");
    std::fs::write(directory.path().join("cert.pem"), "no certificate").expect("written");
    let report = gate.report_when("the fault", |r| r.tls.as_ref().is_some_and(|tls| tls.error.is_some())).await;
    let error = report.tls.and_then(|tls| tls.error).expect("an error");
    assert!(error.contains("cert.pem"), "{error}");
    connect(&gate, old.path(), &[]).await.expect("the old one is still in use");
    certificate(directory.path(), 60);
    gate.report_when("it is mended", |r| r.tls.as_ref().is_some_and(|tls| tls.error.is_none())).await;
    connect(&gate, directory.path(), &[]).await.expect("the new one is in use");
    connect(&gate, old.path(), &[]).await.expect_err("the old one is not");
    open.write_all(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").await.expect("written");
    let mut answer = Vec::new();
    let _ = open.read_to_end(&mut answer).await;
    assert!(answer.starts_with(b"HTTP/1.1 200"), "a connection from before goes on");
}

#[tokio::test]
async fn without_a_usable_certificate_the_gate_does_not_start_and_says_which_file() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = |name: &str| directory.path().join(name);
    let start = || async {
        let mut settings = GateSettings::new(([127, 0, 0, 1], 0).into(), path("c.sock"), path("s.json"));
        settings.tls = Some(tls(directory.path()));
        match Server::bind(settings).await {
            Err(error @ GateError::Tls(_)) => error.to_string(),
            Err(other) => panic!("another error: {other}"),
            Ok(_) => panic!("it started"),
        }
    };
    assert!(start().await.contains("cert.pem"), "there is none");
    certificate(directory.path(), 30);
    std::fs::write(path("key.pem"), "no key").expect("written");
    assert!(start().await.contains("key.pem"));
    let other = tempfile::tempdir().expect("a directory");
    certificate(other.path(), 30);
    std::fs::copy(other.path().join("key.pem"), path("key.pem")).expect("copied");
    assert!(start().await.contains("do not go together"));
}

#[tokio::test]
async fn a_handshake_that_does_not_come_or_is_none_is_cut_off() {
    let directory = tempfile::tempdir().expect("a directory");
    certificate(directory.path(), 30);
    let mut settings = tls(directory.path());
    settings.handshake_time = Duration::from_millis(100);
    let gate = TestGate::start_with(|all| all.tls = Some(settings)).await;
    gate.open(&[]).await;
    assert_eq!(crate::visitor::raw(gate.address, "").await, "", "nothing is said");
    let plain = crate::visitor::raw(gate.address, "GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    assert!(!plain.contains("HTTP/1.1 200"), "{plain}");
    until("both are gone", async || gate.link.reports().borrow().as_ref().is_some_and(|r| r.connections == 0)).await;
}

#[tokio::test]
async fn a_websocket_goes_through_tls_too() {
    let directory = tempfile::tempdir().expect("a directory");
    certificate(directory.path(), 30);
    let (gate, a) = gate_with(directory.path()).await;
    let mut stream = connect(&gate, directory.path(), &["http/1.1"]).await.expect("connected");
    let head = b"GET /upgrade HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n";
    stream.write_all(head).await.expect("written");
    let mut answer = Vec::new();
    while !answer.ends_with(b"\r\n\r\n") {
        answer.push(stream.read_u8().await.expect("a head"));
    }
    assert!(answer.starts_with(b"HTTP/1.1 101"));
    let bytes = vec![3; 50_000];
    stream.write_all(&bytes).await.expect("written");
    let mut back = vec![0; bytes.len()];
    tokio::time::timeout(PATIENCE, stream.read_exact(&mut back)).await.expect("in time").expect("read");
    assert!(back == bytes);
    drop(stream);
    gate.upstream_when(&a, "over", |one| one.upgraded == 0 && one.upgraded_total == 1).await;
}
