//! What clients feel at the moment of a switch: all requests go to one backend, then to the other.
//!
//! The gate is told by its control socket, as its agent does it. HAProxy and nginx get a new config and are reloaded
//! gracefully, as their users do it: a new worker takes over the listeners, and the old one ends its connections.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};
use bytes::Bytes;
use http_body_util::{BodyExt, Empty};
use hyper::client::conn::http1::{self, SendRequest};
use hyper::{Request, header};
use hyper_util::rt::TokioIo;
use nix::sys::signal::Signal;
use tokio::net::TcpStream;

use super::peers::{Peer, Running, Site, Variant};
use crate::bench::row::{Aim, Row, Unit};
use crate::bench::spread::Spread;

/// Clients, each with one connection that it keeps, and what each waits between two requests.
const CLIENTS: usize = 16;
const PAUSE: Duration = Duration::from_millis(2);
/// Between two switches; what begins within `NEAR` after one belongs to it.
const APART: Duration = Duration::from_millis(500);
const NEAR: Duration = Duration::from_millis(100);
/// How much the p99 may grow at a switch.
const SPIKE: f64 = 1.5;

/// One answered request.
#[derive(Debug, Clone, Copy)]
struct Sample {
    began: Instant,
    took: Duration,
}

/// What the clients saw.
#[derive(Debug, Default)]
struct Seen {
    samples: Vec<Sample>,
    /// Requests without a whole answer.
    lost: u64,
}

pub(super) fn measure(site: &mut Site, switches: usize) -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    for peer in Peer::PROXIES {
        let backends = site.backends;
        let running = site.proxies.get_mut(&(peer, Variant::Plain)).context("not running")?;
        let (seen, at) = under_load(running, |running, index| turn(peer, running, backends, index), switches)?;
        let is_near = |sample: &&Sample| at.iter().any(|at| sample.began >= *at && sample.began < *at + NEAR);
        let (near, far): (Vec<&Sample>, Vec<&Sample>) = seen.samples.iter().partition(is_near);
        let p99 = |samples: &[&Sample]| -> Result<Duration> {
            Ok(Spread::of(peer.name(), samples.iter().map(|sample| sample.took))?.quantile(0.99))
        };
        let row =
            Row::span(format!("switch, {}: p99 in the {} ms after it", peer.name(), NEAR.as_millis()), p99(&near)?);
        let row = row.beside_span("its own p99 otherwise", p99(&far)?);
        rows.push(if peer == Peer::Gate { row.aim(Aim::Ratio(SPIKE)) } else { row });
        let lost = Row::new(format!("switch, {}: requests lost", peer.name()), seen.lost as f64, Unit::Count);
        rows.push(if peer == Peer::Gate { lost.aim(Aim::AtMost(0.0)) } else { lost });
    }
    Ok(rows)
}

fn turn(peer: Peer, running: &mut Running, backends: [SocketAddr; 2], index: usize) -> Result<()> {
    match peer {
        Peer::Gate => running.routes.as_mut().context("a gate has routes")?.all_to(index),
        Peer::Haproxy | Peer::Nginx => {
            std::fs::write(&running.config, running.front.config(peer, backends[index]))?;
            running.process.0.signal(if peer == Peer::Haproxy { Signal::SIGUSR2 } else { Signal::SIGHUP })
        }
        Peer::Direct => bail!("nothing to switch"),
    }
}

/// Switches so often under load: what was seen, and when each switch was.
fn under_load(
    running: &mut Running,
    mut turn: impl FnMut(&mut Running, usize) -> Result<()>,
    switches: usize,
) -> Result<(Seen, Vec<Instant>)> {
    let stop = Arc::new(AtomicBool::new(false));
    let address = running.front.listen;
    let clients = std::thread::spawn({
        let stop = Arc::clone(&stop);
        move || all_clients(address, &stop)
    });
    std::thread::sleep(APART);
    let mut at = Vec::new();
    for number in 1..=switches {
        at.push(Instant::now());
        turn(running, number % 2)?;
        // The pace of the measurement.
        std::thread::sleep(APART);
    }
    stop.store(true, Ordering::Relaxed);
    let seen = clients.join().map_err(|_panicked| anyhow!("the clients panicked"))??;
    Ok((seen, at))
}

fn all_clients(address: SocketAddr, stop: &Arc<AtomicBool>) -> Result<Seen> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let clients: Vec<_> = (0..CLIENTS).map(|_| tokio::spawn(client(address, Arc::clone(stop)))).collect();
        let mut all = Seen::default();
        for client in clients {
            let seen = client.await?;
            all.samples.extend(seen.samples);
            all.lost += seen.lost;
        }
        Ok(all)
    })
}

async fn client(address: SocketAddr, stop: Arc<AtomicBool>) -> Seen {
    let mut seen = Seen::default();
    let mut connection: Option<SendRequest<Empty<Bytes>>> = None;
    while !stop.load(Ordering::Relaxed) {
        // A connection that was closed while idle is no loss: a new one is made.
        let kept = connection.take().filter(|kept| !kept.is_closed());
        let began = Instant::now();
        match ask(kept, address).await {
            Ok(kept) => {
                connection = kept;
                seen.samples.push(Sample { began, took: began.elapsed() });
            }
            Err(_) => seen.lost += 1,
        }
        tokio::time::sleep(PAUSE).await;
    }
    seen
}

async fn ask(
    kept: Option<SendRequest<Empty<Bytes>>>,
    address: SocketAddr,
) -> Result<Option<SendRequest<Empty<Bytes>>>> {
    let mut sender = match kept {
        Some(sender) => sender,
        None => connect(address).await?,
    };
    sender.ready().await?;
    let request = Request::get("/small").header(header::HOST, "bench").body(Empty::new())?;
    let answer = sender.send_request(request).await?;
    let leave = answer.headers().get(header::CONNECTION).is_some_and(|value| value == "close");
    anyhow::ensure!(answer.status().is_success(), "status {}", answer.status());
    answer.into_body().collect().await?;
    Ok((!leave).then_some(sender))
}

async fn connect(address: SocketAddr) -> Result<SendRequest<Empty<Bytes>>> {
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    let (sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    tokio::spawn(connection);
    Ok(sender)
}
