//! Keep-alive clients that never rest, and account for every request.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::time::Duration;

use http_body_util::{BodyExt, Full};
use hyper::Request;
use hyper::body::Bytes;
use hyper::client::conn::http1::SendRequest;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::task::JoinHandle;

use crate::site::{PATIENCE, until};

/// What the clients saw.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    /// Answered 200.
    pub(crate) answered: AtomicU64,
    /// Of those, with the notice that the connection ends.
    pub(crate) dismissed: AtomicU64,
    /// Sent, and not answered.
    pub(crate) lost: AtomicU64,
    /// Connections that were found closed before a request was sent.
    pub(crate) unnoticed: AtomicU64,
    /// Answered otherwise.
    pub(crate) refused: AtomicU64,
    /// Connections that could not be made.
    pub(crate) unconnected: AtomicU64,
    /// Requests that are on their way.
    pub(crate) on_the_way: AtomicU64,
    /// Kills so far, counted by who kills: connections made before the last one are dead.
    pub(crate) kills: AtomicU64,
}

pub(crate) struct Clients {
    pub(crate) tally: Arc<Tally>,
    going: Arc<AtomicBool>,
    tasks: Vec<JoinHandle<()>>,
}

/// The body of a 200, or what went wrong.
pub(crate) type Answered = Result<String, String>;

/// One POST on a connection of its own.
pub(crate) fn ask(gate: SocketAddr, path: &'static str) -> JoinHandle<Answered> {
    tokio::spawn(async move {
        let mut sender = connect(gate).await.map_err(|error| format!("cannot connect: {error}"))?;
        match tokio::time::timeout(PATIENCE, send(&mut sender, path)).await {
            Ok(Ok((200, _, body))) => Ok(body),
            Ok(Ok((status, ..))) => Err(format!("answered {status}")),
            Ok(Err(error)) => Err(format!("not answered: {error}")),
            Err(_) => panic!("neither answered nor lost within {PATIENCE:?}"),
        }
    })
}

impl Clients {
    pub(crate) fn start(gate: SocketAddr, count: usize) -> Self {
        let (tally, going) = (Arc::new(Tally::default()), Arc::new(AtomicBool::new(true)));
        let visit = |_| tokio::spawn(visit(gate, Arc::clone(&tally), Arc::clone(&going)));
        Self { tasks: (0..count).map(visit).collect(), tally, going }
    }

    /// Requests without an answer yet.
    pub(crate) fn on_the_way(&self) -> u64 {
        self.tally.on_the_way.load(SeqCst)
    }

    /// Waits until every client has been answered a few times more.
    pub(crate) async fn traffic(&self) {
        let answered = || self.tally.answered.load(SeqCst);
        let (before, more) = (answered(), 4 * self.tasks.len() as u64);
        until("traffic", async || answered() >= before + more).await;
    }

    /// Lets every client come to the end of its request.
    pub(crate) async fn stop(self) -> Arc<Tally> {
        self.going.store(false, SeqCst);
        for task in self.tasks {
            tokio::time::timeout(PATIENCE, task).await.expect("each request comes to an end").expect("no panic");
        }
        self.tally
    }
}

async fn visit(gate: SocketAddr, tally: Arc<Tally>, going: Arc<AtomicBool>) {
    let count = |what: &AtomicU64| what.fetch_add(1, SeqCst);
    let mut connection = None;
    while going.load(SeqCst) {
        let Some((mut sender, made)) = connection.take() else {
            let made = tally.kills.load(SeqCst);
            match connect(gate).await {
                Ok(sender) => connection = Some((sender, made)),
                Err(_) => {
                    count(&tally.unconnected);
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
            }
            continue;
        };
        let is_dead = tally.kills.load(SeqCst) > made;
        count(&tally.on_the_way);
        let answer = send(&mut sender, "/load").await;
        tally.on_the_way.fetch_sub(1, SeqCst);
        match answer {
            Ok((200, leave, _)) => {
                count(&tally.answered);
                if leave {
                    count(&tally.dismissed);
                } else {
                    connection = Some((sender, made));
                }
            }
            Ok(_) => drop(count(&tally.refused)),
            Err(error) if is_dead || error.is_canceled() || error.is_closed() => drop(count(&tally.unnoticed)),
            Err(_) => drop(count(&tally.lost)),
        }
    }
}

async fn connect(gate: SocketAddr) -> std::io::Result<SendRequest<Full<Bytes>>> {
    let stream = TcpStream::connect(gate).await?;
    stream.set_nodelay(true)?;
    let handshake = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await;
    let (sender, connection) = handshake.map_err(std::io::Error::other)?;
    tokio::spawn(connection);
    Ok(sender)
}

/// Status, whether the client is told to leave, and the body. A POST, which no client may repeat by itself.
async fn send(sender: &mut SendRequest<Full<Bytes>>, path: &str) -> hyper::Result<(u16, bool, String)> {
    let body = Full::new(Bytes::from_static(b"one"));
    let request = Request::post(path).header("host", "test").body(body).expect("a request");
    sender.ready().await?;
    let answer = sender.send_request(request).await?;
    let (status, leave) = (answer.status().as_u16(), answer.headers().get("connection").is_some_and(|v| v == "close"));
    let body = answer.into_body().collect().await?.to_bytes();
    Ok((status, leave, String::from_utf8_lossy(&body).into_owned()))
}
