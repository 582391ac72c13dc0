//! A connection that speaks another protocol since its `Upgrade`: bytes both ways, until both sides have ended or
//! [`super::upgraded`] says so.

use std::future::poll_fn;
use std::io;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;

use super::keep_alive;
use super::pipe::Pipe;
use super::pool::Link;
use super::socket::Socket;
use super::ticket::{Gate, Ticket};
use super::upgraded::{self, Fate, UpgradedSettings};
use super::websocket::Frames;
use super::wire::Wire;

/// How long the two connections may take to be handed over, which hyper does as soon as the answer's head is written.
const HAND_OVER: Duration = Duration::from_secs(10);

/// A tunnel that is agreed upon: the answer 101 is on its way.
pub(super) struct Tunnel {
    pub(super) client: OnUpgrade,
    pub(super) upstream: OnUpgrade,
    /// Held until hyper has handed over its connection.
    pub(super) link: Link,
    pub(super) ticket: Arc<Ticket>,
    pub(super) websocket: bool,
}

/// Both ends, and the two directions between them.
struct Open {
    client: Socket,
    upstream: Wire,
    up: Pipe,
    down: Pipe,
}

impl Tunnel {
    /// Runs until it is over.
    pub(super) async fn run(self, gate: &Gate) {
        let Self { client, upstream, link, ticket, websocket } = self;
        let both = async { tokio::try_join!(client, upstream) };
        let open = match tokio::time::timeout(HAND_OVER, both).await {
            Ok(Ok((client, upstream))) => Open::of(client, upstream, websocket),
            Ok(Err(error)) => {
                tracing::debug!(%error, "an upgraded connection was not handed over");
                return;
            }
            Err(_) => return,
        };
        drop(link);
        if let Some(mut open) = open {
            let patience = gate.settings.upgraded.idle_time;
            keep_alive::wait_for(open.client.wire(), patience);
            keep_alive::wait_for(&open.upstream, patience);
            open.run(gate, &ticket).await;
        }
    }
}

impl Open {
    fn of(client: Upgraded, upstream: Upgraded, websocket: bool) -> Option<Self> {
        let client = client.downcast::<TokioIo<Socket>>().ok()?;
        let upstream = upstream.downcast::<TokioIo<Wire>>().ok()?;
        let frames = websocket.then(Frames::default);
        Some(Self {
            up: Pipe::new(&client.read_buf, None),
            down: Pipe::new(&upstream.read_buf, frames),
            client: client.io.into_inner(),
            upstream: upstream.io.into_inner(),
        })
    }

    async fn run(&mut self, gate: &Gate, ticket: &Ticket) {
        let (mut applied, mut leaving) = (gate.applied.subscribe(), gate.leaving.subscribe());
        let mut known = upgraded::Tunnel { moved: gate.now(), ..upgraded::Tunnel::default() };
        loop {
            applied.mark_unchanged();
            known.ends_at = leaving.borrow_and_update().ends_at;
            known.drained_since = ticket.drained_since();
            let now = gate.now();
            let wake = match known.fate(&gate.settings.upgraded, now) {
                Fate::KeepUntil(until) => until,
                Fate::Close => {
                    known.closing_since = Some(now);
                    ticket.closes_upgraded();
                    self.down.leave();
                    continue;
                }
                Fate::Cut(why) => {
                    if known.closing_since.is_some() {
                        ticket.cut_off(why);
                    }
                    tracing::debug!(why, "an upgraded connection was cut off");
                    return;
                }
            };
            tokio::select! {
                biased;
                ended = poll_fn(|cx| self.poll(cx, gate, &mut known)) => match ended {
                        Ok(true) => return,
                        Ok(false) => {}
                        Err(error) => {
                            tracing::debug!(%error, "an upgraded connection broke");
                            return;
                        }
                },
                // The senders live as long as the gate; then this task ends, too.
                changed = applied.changed() => if changed.is_err() { return },
                changed = leaving.changed() => if changed.is_err() { return },
                () = tokio::time::sleep(wake.saturating_sub(now).max(Duration::from_millis(1))) => {}
            }
        }
    }

    /// Passes bytes. Ready with true when both directions have ended, with false when one of them has.
    fn poll(&mut self, cx: &mut Context<'_>, gate: &Gate, known: &mut upgraded::Tunnel) -> Poll<io::Result<bool>> {
        let mut moved = false;
        let up = match self.up.poll(cx, &mut self.client, &mut self.upstream, &mut moved) {
            // What the service said before it closed is still to be passed on.
            Poll::Ready(Err(_)) if self.up.discard() => {
                self.up.poll(cx, &mut self.client, &mut self.upstream, &mut moved)?
            }
            other => other?,
        };
        let down = self.down.poll(cx, &mut self.upstream, &mut self.client, &mut moved)?;
        if moved {
            known.moved = gate.now();
        }
        let half = up.is_ready() || down.is_ready();
        if up.is_ready() && down.is_ready() {
            Poll::Ready(Ok(true))
        } else if half != std::mem::replace(&mut known.half_closed, half) {
            Poll::Ready(Ok(false))
        } else {
            Poll::Pending
        }
    }
}

/// Ends when an answer to a gRPC call, which may be a stream without end, is to be cut by the policy for it.
pub(super) async fn grpc_is_drained(gate: &Gate, ticket: &Ticket) {
    let settings = UpgradedSettings { at_drain: gate.settings.upgraded.grpc, ..gate.settings.upgraded };
    let (mut applied, mut leaving) = (gate.applied.subscribe(), gate.leaving.subscribe());
    loop {
        applied.mark_unchanged();
        let now = gate.now();
        let ends_at = leaving.borrow_and_update().ends_at;
        // It is not for this rule that it stands still.
        let known =
            upgraded::Tunnel { moved: now, drained_since: ticket.drained_since(), ends_at, ..Default::default() };
        let Fate::KeepUntil(until) = known.fate(&settings, now) else { return };
        tokio::select! {
            _ = applied.changed() => {}
            _ = leaving.changed() => {}
            () = tokio::time::sleep(until.saturating_sub(now)) => {}
        }
    }
}
