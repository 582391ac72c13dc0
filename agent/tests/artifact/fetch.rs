//! One file is fetched, or it is said why not.

use std::sync::Arc;
use std::time::Duration;

use handover_agent::artifact::fetch::Why;
use handover_agent::artifact::pattern::Wanted;
use handover_agent::artifact::settings::Fetch;
use rcgen::{CertificateParams, CertifiedIssuer, KeyPair};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::PrivateKeyDer;

use crate::site::{Server, converse, ok};

/// Far above what anything here takes.
const LONG: Duration = Duration::from_secs(60);

fn wanted(dir: &tempfile::TempDir) -> Wanted {
    Wanted {
        service: "billing".parse().expect("a service"),
        version: "1.5.0".parse().expect("a version"),
        file: "run".parse().expect("a path"),
        to: dir.path().join("run"),
        most_bytes: 1000,
    }
}

async fn fetched(fetch: &str) -> Result<String, (String, Why)> {
    let dir = tempfile::tempdir().expect("a directory");
    let fetch: Fetch = toml::from_str(fetch).expect("settings");
    let done = tokio::time::timeout(LONG, fetch.fetch(&wanted(&dir))).await.expect("its own limit is shorter");
    done.map_err(|error| (error.to_string(), error.why))?;
    Ok(std::fs::read_to_string(dir.path().join("run")).expect("a file"))
}

async fn by_http(answer: impl Fn(&str) -> Vec<u8> + Send + Sync + 'static) -> Result<String, (String, Why)> {
    let server = Server::with(answer).await;
    fetched(&format!("url = \"http://127.0.0.1:{}/{{version}}/{{file}}\"\ntimeout = \"20s\"", server.port)).await
}

#[tokio::test]
async fn an_answer_is_taken_whole_or_not_at_all() {
    assert_eq!(by_http(|path| ok(path.as_bytes())).await.expect("fetched"), "/1.5.0/run");
    let (text, why) = by_http(|_| ok(&[7; 1001])).await.expect_err("too large");
    assert!(matches!(why, Why::TooLarge(1000)), "{text}");
    let (text, why) =
        by_http(|_| b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nhalf".to_vec()).await.expect_err("half");
    assert!(matches!(why, Why::Http(_)) && text.contains("broke off"), "{text}");
}

#[tokio::test]
async fn other_answers_are_said_with_the_file_and_the_url() {
    let status =
        |line: &'static str| move |_: &str| format!("HTTP/1.1 {line}\r\ncontent-length: 0\r\n\r\n").into_bytes();
    let (text, why) = by_http(status("404 Not Found")).await.expect_err("404");
    assert!(matches!(why, Why::NotThere) && text.contains("run") && text.contains("http://127.0.0.1"), "{text}");
    let (text, _) = by_http(status("503 Service Unavailable")).await.expect_err("503");
    assert!(text.contains("503"), "{text}");
    let (text, _) = by_http(status("302 Found\r\nlocation: http://elsewhere/")).await.expect_err("302");
    assert!(text.contains("http://elsewhere/") && text.contains("not followed"), "{text}");
    let (text, _) = by_http(|_| b"nonsense\r\n\r\n".to_vec()).await.expect_err("no HTTP");
    assert!(text.contains("no HTTP answer"), "{text}");
}

#[tokio::test]
async fn nobody_there_and_no_url_are_told_apart() {
    let (text, _) = fetched("url = \"http://127.0.0.1:1/{file}\"").await.expect_err("nobody there");
    assert!(text.contains("cannot connect to 127.0.0.1, port 1"), "{text}");
    let (text, _) = fetched("url = \"ftp://127.0.0.1/{file}\"").await.expect_err("another scheme");
    assert!(text.contains("use http:// or https://"), "{text}");
}

#[tokio::test]
async fn what_takes_too_long_is_given_up_and_its_command_ended() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a listener that never answers");
    let port = listener.local_addr().expect("an address").port();
    let (text, why) =
        fetched(&format!("url = \"http://127.0.0.1:{port}/{{file}}\"\ntimeout = \"100ms\"")).await.expect_err("late");
    assert!(matches!(why, Why::Late(_)) && text.contains("fetch.timeout = 100ms"), "{text}");
    let dir = tempfile::tempdir().expect("a directory");
    let pid = dir.path().join("pid");
    let script = format!("echo $$ > {}; exec sleep 300 # {{file}} {{to}}", pid.display());
    let (text, why) =
        fetched(&format!("exec = [\"sh\", \"-c\", '{script}']\ntimeout = \"2s\"")).await.expect_err("late");
    assert!(matches!(why, Why::Late(_)), "{text}");
    let pid = std::fs::read_to_string(&pid).expect("it ran").trim().to_owned();
    let began = std::time::Instant::now();
    while std::path::Path::new(&format!("/proc/{pid}")).exists() {
        assert!(began.elapsed() < LONG, "process {pid} goes on");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn a_command_that_fails_is_quoted() {
    let of = |script: &str| format!("exec = [\"sh\", \"-c\", '{script} # {{file}} {{to}}']");
    let (text, _) = fetched(&of("echo no such build >&2; exit 3")).await.expect_err("failed");
    assert!(text.contains("exit code 3: no such build"), "{text}");
    let (text, why) = fetched(&of("true")).await.expect_err("no file");
    assert!(matches!(why, Why::NoFile(_)), "{text}");
    let (text, _) = fetched("exec = [\"/no/such/program\", \"{file}\", \"{to}\"]").await.expect_err("no program");
    assert!(text.contains("cannot be run"), "{text}");
}

#[tokio::test]
async fn a_command_that_writes_more_than_was_announced_is_ended_and_not_believed() {
    let of = |script: &str| format!("exec = [\"sh\", \"-c\", '{script} # {{file}}']\ntimeout = \"20s\"");
    for script in ["head -c 1001 /dev/zero > {to}", "head -c 100000 /dev/zero > {to}; sleep 300"] {
        let (text, why) = fetched(&of(script)).await.expect_err("too large");
        assert!(matches!(why, Why::TooLarge(1000)), "{script}: {text}");
    }
    assert_eq!(fetched(&of("head -c 1000 /dev/zero > {to}")).await.expect("as announced").len(), 1000);
}

#[tokio::test]
async fn with_https_only_a_server_that_the_authority_vouches_for_is_believed() {
    let dir = tempfile::tempdir().expect("a directory");
    let authority = || {
        let mut params = CertificateParams::new(Vec::new()).expect("params");
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        CertifiedIssuer::self_signed(params, KeyPair::generate().expect("a key")).expect("an authority")
    };
    let (ours, other) = (authority(), authority());
    std::fs::write(dir.path().join("ours.pem"), ours.pem()).expect("written");
    std::fs::write(dir.path().join("other.pem"), other.pem()).expect("written");
    std::fs::write(dir.path().join("none.pem"), "nothing").expect("written");
    let key = KeyPair::generate().expect("a key");
    let params = CertificateParams::new(vec!["localhost".to_owned()]).expect("params");
    let cert = params.signed_by(&key, &ours).expect("a certificate");
    let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_no_client_auth()
        .with_single_cert(vec![cert.der().clone()], PrivateKeyDer::try_from(key.serialize_der()).expect("a key"))
        .expect("a config");
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a listener");
    let port = listener.local_addr().expect("an address").port();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                if let Ok(stream) = acceptor.accept(stream).await {
                    converse(stream, &|_: &str| ok(b"secret")).await;
                }
            });
        }
    });
    let from = |host: &str, ca: &str| {
        let ca = dir.path().join(ca);
        format!("url = \"https://{host}:{port}/{{file}}\"\nca = \"{}\"\ntimeout = \"20s\"", ca.display())
    };
    assert_eq!(fetched(&from("localhost", "ours.pem")).await.expect("fetched"), "secret");
    for (host, ca, said) in [
        ("localhost", "other.pem", "no TLS with localhost"),
        ("127.0.0.1", "ours.pem", "no TLS with 127.0.0.1"),
        ("localhost", "none.pem", "holds no certificate"),
        ("localhost", "missing.pem", "cannot read fetch.ca"),
    ] {
        let (text, _) = fetched(&from(host, ca)).await.expect_err(said);
        assert!(text.contains(said), "{text}");
    }
}
