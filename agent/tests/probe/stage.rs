//! A server that answers as told, a runner, and ways to wait.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use handover_agent::driver::Values;
use handover_agent::probe::{ProbeRunner, ProbeSettings, Readiness, Target};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// Far above what anything here takes, so that reaching it means "never".
const DEADLINE: Duration = Duration::from_secs(20);

/// Reads a request head, remembers it, and writes the answer as it stands.
#[derive(Clone)]
pub(crate) struct Server {
    pub(crate) port: u16,
    requests: Arc<Mutex<Vec<String>>>,
    answer: Arc<Mutex<Answer>>,
}

#[derive(Clone)]
enum Answer {
    /// These bytes, then the connection is closed.
    Closing(Vec<u8>),
    /// These bytes, and the connection stays open.
    Hanging(Vec<u8>),
}

impl Server {
    pub(crate) async fn answering(head: &str, body: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a listener");
        let port = listener.local_addr().expect("an address").port();
        let answer = Arc::new(Mutex::new(Answer::Hanging(Vec::new())));
        let server = Self { port, requests: Arc::default(), answer };
        server.answer(head, body);
        let serving = server.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serving.clone().serve(stream));
            }
        });
        server
    }

    pub(crate) fn answer(&self, head: &str, body: &str) {
        let text = format!("HTTP/1.1 {head}\r\ncontent-length: {}\r\n\r\n{body}", body.len());
        *self.answer.lock().expect("unpoisoned") = Answer::Closing(text.into_bytes());
    }

    /// Writes this and then nothing more, without closing.
    pub(crate) fn hang_after(&self, bytes: &str) {
        *self.answer.lock().expect("unpoisoned") = Answer::Hanging(bytes.as_bytes().to_vec());
    }

    pub(crate) fn requests(&self) -> Vec<String> {
        self.requests.lock().expect("unpoisoned").clone()
    }

    async fn serve(self, mut stream: TcpStream) {
        let (mut head, mut part) = (Vec::new(), [0; 1024]);
        while !head.ends_with(b"\r\n\r\n") {
            match stream.read(&mut part).await {
                Ok(count @ 1..) => head.extend_from_slice(&part[..count]),
                _ => return,
            }
        }
        self.requests.lock().expect("unpoisoned").push(String::from_utf8(head).expect("text"));
        let answer = self.answer.lock().expect("unpoisoned").clone();
        match answer {
            Answer::Closing(bytes) => {
                stream.write_all(&bytes).await.ok();
            }
            Answer::Hanging(bytes) => {
                stream.write_all(&bytes).await.ok();
                // Until the other side gives up.
                while stream.read(&mut part).await.is_ok_and(|count| count > 0) {}
            }
        }
    }
}

/// Starts the probes of a config against a port. Placeholders: slot `a`, version `1.0.0`, builds the given directory.
pub(crate) fn start_in(builds: &std::path::Path, port: u16, probes: &[&str]) -> ProbeRunner {
    let probes = probes.iter().map(|text| toml::from_str::<ProbeSettings>(text).expect("settings")).collect();
    let values = Values {
        port,
        version: "1.0.0".parse().expect("version"),
        slot: "a".parse().expect("slot"),
        builds: builds.to_owned(),
        instance: "00000000000000aa".parse().expect("id"),
        state_dir: "/nonexistent".into(),
    };
    let origin = Instant::now();
    ProbeRunner::start(probes, Target { host: [127, 0, 0, 1].into(), values }, move || origin.elapsed())
}

pub(crate) fn start(port: u16, probe: &str) -> ProbeRunner {
    start_in("/nonexistent".as_ref(), port, &[&format!("name = \"app\"\naffects = \"ready\"\n{probe}")])
}

/// Waits until what is published fulfils the condition.
pub(crate) async fn until(runner: &ProbeRunner, what: &str, holds: impl FnMut(&Readiness) -> bool) -> Readiness {
    let mut readiness = runner.readiness();
    let waited = tokio::time::timeout(DEADLINE, readiness.wait_for(holds)).await;
    match waited {
        Ok(seen) => seen.expect("the runner runs").clone(),
        Err(_) => panic!("never published: {what}; last {:?}", runner.readiness().borrow()),
    }
}

/// The first reading of the only probe.
pub(crate) async fn first_reading(runner: &ProbeRunner) -> (bool, String) {
    let seen = until(runner, "a reading", |r| r.conditions[0].reading != "not probed yet").await;
    (seen.conditions[0].met, seen.conditions[0].reading.clone())
}

/// Waits for a condition, never for a time.
pub(crate) async fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let began = Instant::now();
    while !holds() {
        assert!(began.elapsed() < DEADLINE, "never came true: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// A port on which nobody listens.
pub(crate) async fn closed_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").await.expect("a listener").local_addr().expect("an address").port()
}
