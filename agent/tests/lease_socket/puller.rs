//! A service that asks by itself: waits for a newer record, does as it says, acknowledges.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use handover_agent::lease::record::{LeaseRecord, Told};
use handover_proto::ids::InstanceId;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::task::JoinHandle;

use crate::lease_site::{Agent, PATIENCE};

pub(crate) struct Puller {
    seen: Arc<Mutex<Vec<Told>>>,
    task: JoinHandle<()>,
}

impl Puller {
    pub(crate) fn start(agent: &Agent, instance: &InstanceId) -> Self {
        let (socket, id) = (agent.runtime_dir.path().join("lease.sock"), instance.clone());
        let seen = Arc::new(Mutex::new(Vec::new()));
        let told = seen.clone();
        let task = tokio::spawn(async move {
            let mut newest = 0;
            loop {
                let stream = UnixStream::connect(&socket).await.expect("the socket");
                let target = format!("/v1/lease?instance={id}&seq={newest}&wait=5s");
                let (status, body) = exchange(stream, "GET", &target, "").await;
                let Ok(record) = serde_json::from_str::<LeaseRecord>(&body) else {
                    assert!(matches!(status, 404 | 503), "{status}: {body}");
                    tokio::time::sleep(Duration::from_millis(5)).await;
                    continue;
                };
                newest = record.seq;
                told.lock().expect("lock").push(record.state);
                let state = if record.state == Told::Active { "STARTED" } else { "QUIESCED" };
                let ack = json!({"v": 1, "token": record.token, "seq": record.seq, "state": state, "c_unit_ms": 500});
                let stream = UnixStream::connect(&socket).await.expect("the socket");
                let (status, text) =
                    exchange(stream, "POST", &format!("/v1/ack?instance={id}"), &ack.to_string()).await;
                // Refused: there is a newer record by now.
                assert!(matches!(status, 204 | 409), "{status}: {text}");
            }
        });
        Self { seen, task }
    }

    pub(crate) fn seen(&self) -> Vec<Told> {
        self.seen.lock().expect("lock").clone()
    }

    /// It asks no more.
    pub(crate) fn stop(&self) {
        self.task.abort();
    }
}

impl Drop for Puller {
    fn drop(&mut self) {
        self.stop();
    }
}

pub(crate) async fn connect(agent: &Agent) -> UnixStream {
    UnixStream::connect(agent.runtime_dir.path().join("lease.sock")).await.expect("the socket")
}

/// One request on a connection of its own: status and body.
pub(crate) async fn request(agent: &Agent, method: &str, target: &str, body: &str) -> (u16, String) {
    exchange(connect(agent).await, method, target, body).await
}

async fn exchange(mut stream: UnixStream, method: &str, target: &str, body: &str) -> (u16, String) {
    let text = format!(
        "{method} {target} HTTP/1.1\r\nhost: agent\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
        body.len()
    );
    // Whom the agent turns away it does not read.
    drop(stream.write_all(text.as_bytes()).await);
    let mut answer = Vec::new();
    drop(tokio::time::timeout(PATIENCE, stream.read_to_end(&mut answer)).await.expect("an answer in time"));
    let answer = String::from_utf8(answer).expect("text");
    let status = answer.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0);
    (status, answer.split_once("\r\n\r\n").map(|(_, body)| body.to_owned()).unwrap_or_default())
}
