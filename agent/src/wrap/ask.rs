//! The agent, asked on `lease.sock`.

use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use handover_proto::ids::InstanceId;
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1;
use hyper::header::{CONNECTION, HOST};
use hyper::{Method, Request, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;

use crate::duration::render;
use crate::lease::clock::{ClockError, ClockIdentity, boot_now};
use crate::lease::deadline::{Boot, Deadlines};
use crate::lease::record::{Ack, LeaseRecord};

/// The agent is on this host: beyond what it was asked to wait, it answers within this.
const LIMIT: Duration = Duration::from_secs(2);
/// A record is below 1 KiB.
const MAX_BYTES: usize = 64 << 10;

/// A question without an answer. It takes no right away and gives none.
#[derive(Debug, thiserror::Error)]
pub enum AskError {
    /// The socket.
    #[error("cannot reach the agent at {socket}; does it run, and may this user connect?")]
    Connect {
        /// Its path.
        socket: String,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
    /// The connection.
    #[error("the talk with the agent broke off: {0}")]
    Broken(String),
    /// The agent says no, and why.
    #[error("the agent answered {status}: {text}")]
    Refused {
        /// Its status.
        status: u16,
        /// Its sentence.
        text: String,
    },
    /// The answer is no record.
    #[error("the agent's answer is no lease record")]
    Garbled(#[source] serde_json::Error),
    /// No answer.
    #[error("the agent did not answer within {0:?}")]
    Silent(Duration),
    /// Our clock.
    #[error(transparent)]
    Clock(#[from] ClockError),
}

/// Whom to ask, and for whom.
#[derive(Debug, Clone)]
pub struct Agent {
    /// The agent's socket.
    pub socket: PathBuf,
    /// Us.
    pub instance: InstanceId,
}

impl Agent {
    /// Asks for the record, or for one newer than this number, waiting for it at the agent. The time is from before the
    /// question was sent: spans in the record count from there, never from receipt.
    ///
    /// # Errors
    /// [`AskError`].
    pub async fn record(&self, newer: Option<(u64, Duration)>) -> Result<(LeaseRecord, Boot), AskError> {
        let sent = boot_now()?;
        let mut target = format!("/v1/lease?instance={}", self.instance);
        let mut limit = LIMIT;
        if let Some((than, wait)) = newer {
            target.push_str(&format!("&seq={than}&wait={}", render(wait)));
            limit += wait;
        }
        let body = self.ask(Method::GET, &target, Vec::new(), limit).await?;
        Ok((serde_json::from_slice(&body).map_err(AskError::Garbled)?, sent))
    }

    /// Acknowledges a record.
    ///
    /// # Errors
    /// [`AskError`]; a refusal says why this acknowledgement proves nothing.
    pub async fn acknowledge(&self, ack: &Ack) -> Result<(), AskError> {
        let body = serde_json::to_vec(ack).map_err(AskError::Garbled)?;
        let target = format!("/v1/ack?instance={}", self.instance);
        self.ask(Method::POST, &target, body, LIMIT).await.map(drop)
    }

    async fn ask(&self, method: Method, target: &str, body: Vec<u8>, limit: Duration) -> Result<Bytes, AskError> {
        let answer = self.exchange(method, target, body);
        tokio::time::timeout(limit, answer).await.unwrap_or(Err(AskError::Silent(limit)))
    }

    async fn exchange(&self, method: Method, target: &str, body: Vec<u8>) -> Result<Bytes, AskError> {
        let broken = |error: hyper::Error| AskError::Broken(error.to_string());
        let connect = |source| AskError::Connect { socket: self.socket.display().to_string(), source };
        let stream = UnixStream::connect(&self.socket).await.map_err(connect)?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(broken)?;
        let request = Request::builder().method(method).uri(target).header(HOST, "agent").header(CONNECTION, "close");
        let request =
            request.body(Full::new(Bytes::from(body))).map_err(|error| AskError::Broken(error.to_string()))?;
        let answer = async {
            let response = sender.send_request(request).await.map_err(broken)?;
            let status = response.status();
            let body = Limited::new(response.into_body(), MAX_BYTES).collect().await;
            let body = body.map_err(|error| AskError::Broken(error.to_string()))?.to_bytes();
            match status {
                StatusCode::OK | StatusCode::NO_CONTENT => Ok(body),
                status => {
                    let text = String::from_utf8_lossy(&body).trim().to_owned();
                    Err(AskError::Refused { status: status.as_u16(), text })
                }
            }
        };
        // Driven here and not in a task of its own, so that giving up closes it.
        tokio::pin!(answer, connection);
        tokio::select! {
            biased;
            answer = &mut answer => answer,
            ended = &mut connection => match ended {
                Ok(()) => answer.await,
                Err(error) => Err(broken(error)),
            },
        }
    }
}

/// The record's deadlines on our own clock; none: it gives no right to work. With another clock they are counted from the
/// moment before the question was sent, so never too late.
pub fn deadlines(record: &LeaseRecord, ours: &ClockIdentity, sent: Boot) -> Option<Deadlines> {
    if record.hard_deadline_boot_ns == 0 {
        return None;
    }
    Some(if same_clock(record, ours) {
        Deadlines {
            soft: Boot::from_ns(record.soft_deadline_boot_ns),
            hard: Boot::from_ns(record.hard_deadline_boot_ns),
        }
    } else {
        Deadlines {
            soft: sent.plus(Duration::from_millis(record.remaining_soft_ms)),
            hard: sent.plus(Duration::from_millis(record.remaining_hard_ms)),
        }
    })
}

/// Whether the record's absolute deadlines mean anything to us.
pub fn same_clock(record: &LeaseRecord, ours: &ClockIdentity) -> bool {
    record.boot_id == ours.boot_id && record.time_ns == ours.time_ns
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record() -> LeaseRecord {
        let text = r#"{"v":1,"instance":"00000000000000aa","state":"ACTIVE","token":"48","seq":12,"op":null,
            "boot_id":"b","time_ns":"time:[1]","soft_deadline_boot_ns":9000000000,"hard_deadline_boot_ns":11000000000,
            "remaining_soft_ms":5000,"remaining_hard_ms":7000,"reason":"held"}"#;
        serde_json::from_str(text).expect("a record")
    }

    fn clock(boot_id: &str, time_ns: &str) -> ClockIdentity {
        ClockIdentity { boot_id: boot_id.to_owned(), time_ns: time_ns.to_owned() }
    }

    #[test]
    fn with_another_clock_the_spans_count_from_the_sending() {
        let sent = Boot::from_ns(1_000_000_000);
        let here = deadlines(&record(), &clock("b", "time:[1]"), sent).expect("a right");
        assert_eq!((here.soft.ms(), here.hard.ms()), (9000, 11_000));
        for other in [clock("c", "time:[1]"), clock("b", "time:[2]")] {
            let there = deadlines(&record(), &other, sent).expect("a right");
            assert_eq!((there.soft.ms(), there.hard.ms()), (6000, 8000));
        }
        let none = LeaseRecord { hard_deadline_boot_ns: 0, ..record() };
        assert_eq!(deadlines(&none, &clock("b", "time:[1]"), sent), None);
    }
}
