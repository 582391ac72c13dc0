//! Clients and servers that nobody here wrote: curl, nghttp, h2load, wrk, Python's `websockets` and `grpcio`.

use std::io::{BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::time::Duration;

use handover_agent::gate::control::{Admission, Upstream};
use handover_agent::gate::settings::UpstreamProtocol;
use handover_agent::gate::upgraded::AtDrain;
use tokio::sync::mpsc;

use crate::bench::{PATIENCE, Service, TestGate};
use crate::process::{GateProcess, route, settings};

/// Runs a program to its end beside the gate, which is in this process.
async fn run(program: &str, args: &[&str]) -> String {
    let (name, args): (_, Vec<String>) = (program.to_owned(), args.iter().map(|arg| (*arg).to_owned()).collect());
    let ended = tokio::task::spawn_blocking(move || {
        let output = Command::new(&name).args(&args).output();
        output.unwrap_or_else(|error| panic!("{name}: {error}; `tests/run --tools` installs it"))
    });
    let output = ended.await.expect("it ran");
    let text = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{program}: {}\n{text}", output.status);
    text
}

/// A program from PyPI's packages that talks in lines.
struct Python {
    child: Child,
    stdin: Option<ChildStdin>,
    lines: mpsc::UnboundedReceiver<String>,
}

impl Python {
    fn start(script: &str, args: &[String]) -> Self {
        let root = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
        let venv = std::env::var_os("HANDOVER_TEST_VENV").map_or_else(|| root.join("../.tools/venv"), PathBuf::from);
        let python = venv.join("bin/python");
        let mut command = Command::new(&python);
        command.arg(root.join("tests/gate/tools").join(script)).args(args);
        let child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
        let mut child =
            child.unwrap_or_else(|error| panic!("{}: {error}; `tests/run --tools` installs it", python.display()));
        let stdout = BufReader::new(child.stdout.take().expect("piped"));
        let (sender, lines) = mpsc::unbounded_channel();
        std::thread::spawn(move || stdout.lines().map_while(Result::ok).try_for_each(|line| sender.send(line)));
        let stdin = child.stdin.take();
        Self { child, stdin, lines }
    }

    /// Its next line; a script that failed has none and has said why on standard error.
    async fn line(&mut self) -> String {
        let line = tokio::time::timeout(PATIENCE * 3, self.lines.recv()).await.expect("in time");
        line.expect("it ended: see its standard error; `tests/run --tools` installs what it needs")
    }

    async fn port(&mut self) -> SocketAddr {
        ([127, 0, 0, 1], self.line().await.parse::<u16>().expect("a port")).into()
    }

    fn say(&mut self, line: &str) {
        writeln!(self.stdin.as_mut().expect("piped"), "{line}").expect("taken");
    }
}

impl Drop for Python {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

async fn gate_and_service() -> (TestGate, Service) {
    let (gate, a) = (TestGate::start().await, Service::start(1).await);
    gate.open(&[a.upstream(1, 1)]).await;
    (gate, a)
}

#[tokio::test]
async fn curl_is_served_by_http1_and_http2_with_and_without_expect() {
    let (gate, a) = gate_and_service().await;
    let url = format!("http://{}", gate.address);
    let file = tempfile::NamedTempFile::new().expect("a file");
    let large: Vec<u8> = (0..4_000_000_u32).map(|n| b'a' + (n % 23) as u8).collect();
    std::fs::write(file.path(), &large).expect("written");
    let upload = format!("@{}", file.path().display());
    for protocol in ["--http1.1", "--http2-prior-knowledge", "--http2"] {
        let args = ["-sS", "--max-time", "60", protocol];
        assert_eq!(run("curl", &[&args[..], &[&format!("{url}/")]].concat()).await, a.name());
        let head = run("curl", &[&args[..], &["-I", &format!("{url}/")]].concat()).await.to_ascii_lowercase();
        assert!(head.contains("content-length: 9") && head.contains("x-request-id: "), "{head}");
        for expect in ["Expect:", "Expect: 100-continue"] {
            let there_and_back = ["-H", expect, "--data-binary", &upload, &format!("{url}/echo")];
            let back = run("curl", &[&args[..], &there_and_back].concat()).await;
            assert!(back.as_bytes() == large, "{protocol} {expect}: {} bytes came back", back.len());
        }
    }
}

#[tokio::test]
async fn curl_and_h2load_are_served_over_tls() {
    let directory = tempfile::tempdir().expect("a directory");
    crate::tls::certificate(directory.path(), 30);
    let (gate, a) = crate::tls::gate_with(directory.path()).await;
    let (url, ca) = (format!("https://localhost:{}/", gate.address.port()), directory.path().join("cert.pem"));
    let (ca, resolve) = (ca.to_string_lossy().into_owned(), format!("localhost:{}:127.0.0.1", gate.address.port()));
    for (protocol, version) in [("--http2", "2"), ("--http1.1", "1.1")] {
        for tls in ["--tlsv1.3", "--tls-max=1.2"] {
            let tls: Vec<&str> = tls.split('=').collect();
            let args = ["-sS", protocol, "--cacert", &ca, "--resolve", &resolve, "-w", " %{http_version}", &url];
            assert_eq!(run("curl", &[&args[..], &tls].concat()).await, format!("{} {version}", a.name()));
        }
    }
    let said = run("h2load", &["-n", "1000", "-c", "4", "-m", "16", &format!("https://{}/", gate.address)]).await;
    assert!(said.contains("1000 succeeded, 0 failed, 0 errored, 0 timeout"), "{said}");
}

#[tokio::test]
async fn large_bodies_pass_both_ways_in_constant_memory() {
    let (directory, a) = (tempfile::tempdir().expect("a directory"), Service::start(1).await);
    let settings = settings(&directory);
    let gate = GateProcess::start(&settings).await;
    let link = handover_agent::gate::client::GateLink::connect(&settings.control);
    route(&link, &a, 1).await;
    let url = format!("http://{}/echo", settings.listen);
    let file = directory.path().join("large");
    std::fs::File::create(&file).and_then(|file| file.set_len(200 << 20)).expect("a file");
    let upload = file.to_string_lossy().into_owned();
    for protocol in ["--http1.1", "--http2-prior-knowledge"] {
        run("curl", &["-sS", protocol, "-X", "POST", "-T", "/dev/null", &url]).await;
        let before = gate.peak_kib();
        let args = ["-sS", "--max-time", "120", protocol, "-X", "POST", "-T", &upload];
        let size = run("curl", &[&args[..], &["-o", "/dev/null", "-w", "%{size_download}", &url]].concat()).await;
        assert_eq!(size, (200 << 20).to_string(), "{protocol}");
        let grown = gate.peak_kib() - before;
        assert!(grown < 16 << 10, "{protocol}: {grown} KiB more for 200 MiB each way");
    }
}

#[tokio::test]
async fn nghttp_and_h2load_are_served_and_lose_nothing() {
    let (gate, _a) = gate_and_service().await;
    let url = format!("http://{}/", gate.address);
    let said = run("nghttp", &["-nv", "--no-dep", &url]).await;
    assert!(said.contains(":status: 200") && said.contains("recv SETTINGS"), "{said}");
    let said = run("h2load", &["-n", "3000", "-c", "4", "-m", "32", &url]).await;
    assert!(said.contains("3000 succeeded, 0 failed, 0 errored, 0 timeout"), "{said}");
    let said = run("h2load", &["--h1", "-n", "1000", "-c", "4", &url]).await;
    assert!(said.contains("1000 succeeded, 0 failed, 0 errored, 0 timeout"), "{said}");
}

#[tokio::test]
async fn wrk_sees_no_error() {
    let (gate, _a) = gate_and_service().await;
    let said = run("wrk", &["-t1", "-c32", "-d2s", &format!("http://{}/", gate.address)]).await;
    assert!(said.contains("requests in") && !said.contains("Socket errors") && !said.contains("Non-2xx"), "{said}");
}

#[tokio::test]
async fn pythons_websockets_talk_through_the_gate_and_the_drain_closes_them_with_1012() {
    let gate = TestGate::start_with(|settings| settings.upgraded.at_drain = AtDrain::Close).await;
    let a = Service::start(1).await;
    let mut server = Python::start("ws_server.py", &[]);
    let upstream = Upstream { address: server.port().await, ..a.upstream(1, 1) };
    gate.open(std::slice::from_ref(&upstream)).await;
    let mut client = Python::start("ws_client.py", &[format!("ws://{}/chat", gate.address)]);
    assert_eq!(client.line().await, "echoed");
    gate.upstream_when(&a, "counted", |one| one.upgraded == 1 && one.in_flight == 0).await;
    gate.open(&[Upstream { reads: 0, writes: 0, ..upstream }]).await;
    assert_eq!(client.line().await, "closed 1012");
    gate.upstream_when(&a, "over", |one| one.upgraded == 0 && one.upgraded_closed == 1).await;
}

#[tokio::test]
async fn pythons_grpc_client_talks_through_the_gate_and_is_told_in_its_own_words() {
    for mode in [UpstreamProtocol::AsClient, UpstreamProtocol::Http2] {
        let gate = TestGate::start_with(|settings| {
            settings.upstream = mode;
            settings.hold.time = Duration::from_millis(300);
        })
        .await;
        let a = Service::start(1).await;
        let mut server = Python::start("grpc_server.py", &[]);
        let upstream = Upstream { address: server.port().await, ..a.upstream(1, 1) };
        gate.open(std::slice::from_ref(&upstream)).await;
        let mut client = Python::start("grpc_client.py", &[gate.address.to_string()]);
        for expected in ["unary", "status", "feed", "chat", "deadline", "endless"] {
            assert_eq!(client.line().await, expected);
        }
        gate.upstream_when(&a, "the endless stream is in flight", |one| one.in_flight >= 1).await;
        drop(server);
        assert_eq!(client.line().await, "cut UNAVAILABLE");
        gate.put(Admission::Shut, &[upstream]).await;
        client.say("go on");
        assert_eq!(client.line().await, "refused UNAVAILABLE the gate is shut");
    }
}

/// By hand: `HANDOVER_TEST_H2SPEC=/path/to/h2spec cargo test -p handover-agent --test gate h2spec -- --ignored --nocapture`.
#[tokio::test]
#[ignore = "h2spec is in no package registry; docs/gate.md says how to build it"]
async fn h2spec_finds_nothing_but_that_a_cleartext_port_speaks_http1_too() {
    let h2spec = std::env::var("HANDOVER_TEST_H2SPEC").expect("HANDOVER_TEST_H2SPEC, the path of h2spec");
    let directory = tempfile::tempdir().expect("a directory");
    crate::tls::certificate(directory.path(), 30);
    let (gate, _a) = crate::tls::gate_with(directory.path()).await;
    let port = gate.address.port().to_string();
    let said = run(&h2spec, &["-h", "localhost", "-p", &port, "-o", "5", "-t", "-k"]).await;
    assert!(said.contains(" 0 failed"), "{said}");
    // Without TLS, what is no preface is taken for HTTP/1.1, and answered 400 in its words instead of with a GOAWAY.
    let (gate, _a) = gate_and_service().await;
    let port = gate.address.port().to_string();
    let command = format!("{h2spec} -h 127.0.0.1 -p {port} -o 5; true");
    let said = run("sh", &["-c", &command]).await;
    assert!(said.contains(" 1 failed") && said.contains("× 2: Sends invalid connection preface"), "{said}");
}
