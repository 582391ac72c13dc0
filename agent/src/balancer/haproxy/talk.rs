//! HAProxy's Runtime API: one command per connection, the answer up to its end.

use std::collections::BTreeMap;
use std::io;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};

use super::state::{Server, StateError, servers};
use super::step::Order;
use crate::balancer::settings::{Name, SocketPlace};

/// HAProxy answers within a millisecond.
const LIMIT: Duration = Duration::from_secs(2);
/// So much of a refusal is shown.
const SHOWN_CHARS: usize = 120;
/// Thousands of servers.
const ANSWER_BYTES: u64 = 4 << 20;

/// HAProxy could not be asked, or did not do it.
#[derive(Debug, thiserror::Error)]
pub enum TalkError {
    /// No answer.
    #[error("HAProxy does not answer on {place}")]
    Away {
        /// Its socket.
        place: SocketPlace,
        /// Why.
        source: io::Error,
    },
    /// An answer of another kind.
    #[error("HAProxy on {place}")]
    Garbled {
        /// Its socket.
        place: SocketPlace,
        /// What.
        source: StateError,
    },
    /// It refused; in its own words.
    #[error("HAProxy on {place} refused `{command}`: {said}")]
    Refused {
        /// Its socket.
        place: SocketPlace,
        /// What was asked.
        command: String,
        /// What it said.
        said: String,
    },
}

/// The servers of a backend.
///
/// # Errors
/// [`TalkError::Away`] and [`TalkError::Garbled`].
pub(super) async fn look(place: &SocketPlace, backend: &Name) -> Result<BTreeMap<String, Server>, TalkError> {
    let answer = ask(place, &format!("show servers state {backend}")).await?;
    servers(&answer).map_err(|source| TalkError::Garbled { place: place.clone(), source })
}

/// Says an order about one server.
///
/// # Errors
/// [`TalkError::Away`] and [`TalkError::Refused`].
pub(super) async fn say(place: &SocketPlace, backend: &Name, server: &Name, order: Order) -> Result<(), TalkError> {
    let command = format!("set server {backend}/{server} {}", order.words());
    let said = ask(place, &command).await?.trim().to_owned();
    // What is done is answered with nothing.
    if said.is_empty() {
        return Ok(());
    }
    let said = said.chars().map(|c| if c.is_control() { ' ' } else { c }).take(SHOWN_CHARS).collect();
    Err(TalkError::Refused { place: place.clone(), command, said })
}

async fn ask(place: &SocketPlace, command: &str) -> Result<String, TalkError> {
    let answer = async {
        match place {
            SocketPlace::Unix(path) => exchange(UnixStream::connect(path).await?, command).await,
            SocketPlace::Tcp(address) => exchange(TcpStream::connect(address.as_str()).await?, command).await,
        }
    };
    let answer = tokio::time::timeout(LIMIT, answer).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()));
    answer.map_err(|source| TalkError::Away { place: place.clone(), source })
}

async fn exchange(mut stream: impl AsyncRead + AsyncWrite + Unpin, command: &str) -> io::Result<String> {
    stream.write_all(format!("{command}\n").as_bytes()).await?;
    let mut answer = Vec::new();
    stream.take(ANSWER_BYTES).read_to_end(&mut answer).await?;
    Ok(String::from_utf8_lossy(&answer).into_owned())
}
