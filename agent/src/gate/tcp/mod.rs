//! Mode `tcp`: for services that do not speak HTTP. A connection is balanced as a request is in mode `proxy`, and is in
//! flight through its upstream until both directions have ended.
//!
//! While the gate holds, a connection waits without being read; while it is shut, it is closed at once. An upstream that
//! cannot be connected to has not received a byte, so another one is tried. What a connection does is not known, so it is a
//! write. Nothing can tell its client to leave: a drain waits for it up to the drain's deadline.

mod relay;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use tokio::io::Interest;
use tokio::net::TcpStream;

use self::relay::Ended;
use super::class::Class;
use super::control::Reason;
use super::counts::Event;
use super::cut::About;
use super::keep_alive;
use super::patience::Patience;
use super::peers::Share;
use super::ticket::{Gate, Ticket};

/// Serves one client until either side has had enough.
pub(super) async fn serve(gate: Arc<Gate>, client: TcpStream, peer: SocketAddr) {
    let Some(place) = gate.peers.enter(peer.ip()) else {
        gate.refused_connections.fetch_add(1, Ordering::Relaxed);
        return;
    };
    // A connection is to this mode what a request is to the other.
    let _running = Running::begin(&place.share);
    let within = place.share.is_within(gate.settings.limits.in_flight_of_a_peer());
    let reached = tokio::select! {
        reached = reach(&gate, &place.share), if within => reached,
        () = std::future::ready(()), if !within => Err(Reason::PeerLimit),
        // A client that waits may lose its patience.
        _ = client.ready(Interest::ERROR) => return,
    };
    let (upstream, ticket) = match reached {
        Ok(reached) => reached,
        Err(reason) => {
            tracing::debug!(%peer, reason = reason.name(), "connection closed: nobody takes it");
            gate.core().own_answer(reason);
            return;
        }
    };
    let ticket = ticket.about(Some(About::connection(peer)));
    // What was counted is that the upstream took the connection, and how long that took.
    ticket.answered(200);
    let ended = relay::relay(&client, &upstream, gate.settings.limits.tcp_idle_time).await;
    let instance = &ticket.upstream().instance;
    match ended {
        Ended::Well => tracing::trace!(%peer, %instance, "connection ended"),
        Ended::Idle => tracing::debug!(%peer, %instance, "connection cut: nothing moved for the idle time"),
        Ended::ByClient(error) => {
            tracing::debug!(%peer, %instance, %error, "the client broke off its connection");
            ticket.record(Event::ClientCut);
        }
        Ended::ByUpstream(error) => {
            tracing::debug!(%peer, %instance, %error, "the service broke off a connection");
            ticket.record(Event::Lost);
            // It is in flight nowhere any more; but its client may not have read the service's last words.
            drop((ticket, upstream));
            relay::linger(&client).await;
        }
    }
}

/// One of its address's connections in hand.
struct Running<'a>(&'a Share);

impl<'a> Running<'a> {
    fn begin(share: &'a Share) -> Self {
        share.begin();
        Self(share)
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.0.end();
    }
}

/// A connection to an upstream, with the ticket for it.
async fn reach(gate: &Arc<Gate>, share: &Arc<Share>) -> Result<(TcpStream, Ticket), Reason> {
    let (mut tried, mut patience) = (Vec::new(), Patience::default());
    let mut ticket = gate.enter(Class::Write, share, &mut patience).await?;
    loop {
        let address = ticket.upstream().address;
        match connect(gate, address).await {
            Ok(stream) => return Ok((stream, ticket)),
            Err(error) => tracing::debug!(%address, %error, "cannot connect to upstream"),
        }
        ticket.record(Event::ConnectFailed);
        tried.push(ticket.key());
        ticket = match ticket.elsewhere(Class::Write, &tried) {
            Err(Reason::Connect) => {
                // Out of every book while it waits: it is in flight nowhere.
                drop(ticket);
                gate.wait_for_reach(Reason::Connect, &mut patience, share).await?;
                tried.clear();
                gate.enter(Class::Write, share, &mut patience).await?
            }
            other => other?,
        };
    }
}

async fn connect(gate: &Gate, address: SocketAddr) -> io::Result<TcpStream> {
    let stream = tokio::time::timeout(gate.settings.limits.connect_time, TcpStream::connect(address)).await??;
    stream.set_nodelay(true)?;
    keep_alive::ask(&stream, gate.settings.limits.tcp_idle_time);
    Ok(stream)
}
