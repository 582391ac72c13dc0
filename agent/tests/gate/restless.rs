//! Keep-alive clients that never stop asking, and account for every request.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::Request;
use hyper::client::conn::http1::SendRequest;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::task::JoinHandle;

use crate::bench::PATIENCE;

/// What the clients saw.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    /// Answered 200.
    pub(crate) answered: AtomicU64,
    /// Connections that ended after an answer that said so.
    pub(crate) dismissed: AtomicU64,
    /// Requests without an answer.
    pub(crate) lost: AtomicU64,
    /// Connections that were closed without notice before a request was sent.
    pub(crate) unnoticed: AtomicU64,
    /// Other answers.
    pub(crate) refused: AtomicU64,
    /// Connections that could not be made.
    pub(crate) unconnected: AtomicU64,
    /// Requests that are on their way.
    pub(crate) on_the_way: AtomicU64,
    /// Kills so far, counted by who kills: connections made before the last one are dead, and nobody gets what is sent there.
    pub(crate) kills: AtomicU64,
}

/// The clients.
pub(crate) struct Clients {
    pub(crate) tally: Arc<Tally>,
    going: Arc<AtomicBool>,
    tasks: Vec<JoinHandle<()>>,
}

impl Clients {
    /// Every fourth client rests between its requests, far shorter than the grace of a gate that leaves.
    pub(crate) fn start(address: SocketAddr, count: usize) -> Self {
        let (tally, going) = (Arc::new(Tally::default()), Arc::new(AtomicBool::new(true)));
        let rest = |number: usize| Duration::from_millis(if number.is_multiple_of(4) { 40 + number as u64 } else { 0 });
        let one = |number| {
            let visit = visit(address, rest(number), Arc::clone(&tally), Arc::clone(&going));
            tokio::spawn(visit)
        };
        Self { tasks: (0..count).map(one).collect(), tally, going }
    }

    pub(crate) fn answered(&self) -> u64 {
        self.tally.answered.load(Ordering::SeqCst)
    }

    /// Lets every client come to the end of its request.
    pub(crate) async fn stop(self) -> Arc<Tally> {
        self.going.store(false, Ordering::SeqCst);
        for task in self.tasks {
            tokio::time::timeout(PATIENCE, task).await.expect("each request comes to an end").expect("no panic");
        }
        self.tally
    }
}

async fn visit(address: SocketAddr, rest: Duration, tally: Arc<Tally>, going: Arc<AtomicBool>) {
    let count = |what: &AtomicU64| what.fetch_add(1, Ordering::SeqCst);
    let mut connection = None;
    while going.load(Ordering::SeqCst) {
        let Some((mut sender, made)) = connection.take() else {
            let made = tally.kills.load(Ordering::SeqCst);
            match connect(address).await {
                Ok(sender) => connection = Some((sender, made)),
                Err(_) => {
                    count(&tally.unconnected);
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
            }
            continue;
        };
        let is_dead = tally.kills.load(Ordering::SeqCst) > made;
        count(&tally.on_the_way);
        let answer = ask(&mut sender).await;
        tally.on_the_way.fetch_sub(1, Ordering::SeqCst);
        match answer {
            Ok((200, false)) => {
                count(&tally.answered);
                connection = Some((sender, made));
            }
            Ok((200, true)) => {
                count(&tally.answered);
                count(&tally.dismissed);
            }
            Ok(_) => drop(count(&tally.refused)),
            Err(error) if is_dead || error.is_canceled() || error.is_closed() => drop(count(&tally.unnoticed)),
            Err(_) => drop(count(&tally.lost)),
        }
        tokio::time::sleep(rest).await;
    }
}

async fn connect(address: SocketAddr) -> std::io::Result<SendRequest<Full<Bytes>>> {
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    let handshake = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await;
    let (sender, connection) = handshake.map_err(std::io::Error::other)?;
    tokio::spawn(connection);
    Ok(sender)
}

/// Status, and whether the client is told to leave. A POST, which no client may repeat by itself.
async fn ask(sender: &mut SendRequest<Full<Bytes>>) -> hyper::Result<(u16, bool)> {
    let body = Full::new(Bytes::from_static(b"one"));
    let request = Request::post("/load").header("host", "test").body(body).expect("a request");
    sender.ready().await?;
    let answer = sender.send_request(request).await?;
    let (status, leave) = (answer.status().as_u16(), answer.headers().get("connection").is_some_and(|v| v == "close"));
    answer.into_body().collect().await?;
    Ok((status, leave))
}
