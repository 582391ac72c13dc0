//! The port that HAProxy's agent-check asks: one connection, one line, bounded in number, time and size.
//!
//! While nobody answers, because the agent is down, HAProxy keeps the last state that it was told: a failing agent-check is
//! no error to it. Before the first assignment nothing is answered either: what is not known is not claimed.

mod answer;
pub mod askers;
mod recorded;

use std::io;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tracing::{debug, warn};

use super::post::Post;
use super::record::{Ours, Record};
use super::settings::AgentCheckSettings;
use crate::clock;
use crate::core::front::{BalancerSeen, Target, Wish};
use askers::{Askers, LIMIT, Room};
use recorded::{NAME, line};

pub use answer::{SEND_LIMIT_BYTES, answer, asked, wants_more};

/// HAProxies have one poll each in flight; more would be a mistake somewhere.
const CONNECTIONS: usize = 64;
/// For all of one exchange. HAProxy gives up by itself after `agent-inter`.
const EXCHANGE: Duration = Duration::from_secs(2);
/// How often the askers are looked at while something is not known yet.
const LOOK: Duration = Duration::from_millis(100);

struct Desk {
    askers: Mutex<Askers>,
    record: Record,
    settle: Duration,
    /// Who may ask; everybody if it is empty.
    from: Vec<IpAddr>,
}

/// Answers until the listener fails, and says what every asker knows.
pub(super) async fn serve(listener: TcpListener, settings: &AgentCheckSettings, record: Record, post: Post) {
    let from = settings.from.iter().map(IpAddr::to_canonical).collect();
    let desk = Arc::new(Desk { askers: Mutex::default(), record, settle: settings.settle, from });
    tokio::join!(accept(listener, desk.clone()), follow(desk, post));
}

async fn accept(listener: TcpListener, desk: Arc<Desk>) {
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let Ok(place) = places.clone().acquire_owned().await else { return };
        let (stream, peer) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                debug!(%error, "accept failed on the agent-check port");
                tokio::time::sleep(LOOK).await;
                continue;
            }
        };
        let desk = desk.clone();
        let peer = peer.ip().to_canonical();
        if !desk.from.is_empty() && !desk.from.contains(&peer) {
            debug!(%peer, "somebody who is not in `balancer.agent_check.from` asked the agent-check port");
            continue;
        }
        tokio::spawn(async move {
            let _place = place;
            match tokio::time::timeout(EXCHANGE, desk.exchange(stream, peer)).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => debug!(%peer, %error, "an agent-check broke off"),
                Err(_) => debug!(%peer, "an agent-check did not end"),
            }
        });
    }
}

/// Passes on what is to be answered, and what is known by everybody.
async fn follow(desk: Arc<Desk>, mut post: Post) {
    loop {
        let wishes = post.take();
        if let Some(wishes) = &wishes {
            desk.askers().tell(wishes, clock::boot());
        }
        let known = desk.askers().known(desk.settle, clock::boot());
        let (confirmed, trouble) = match known {
            Ok(confirmed) => (confirmed, None),
            Err(waiting) => (None, Some(waiting)),
        };
        post.say(BalancerSeen { name: NAME.into(), confirmed, trouble });
        if !post.rest(LOOK).await {
            return;
        }
    }
}

impl Desk {
    fn askers(&self) -> MutexGuard<'_, Askers> {
        self.askers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn exchange(&self, mut stream: TcpStream, peer: IpAddr) -> io::Result<()> {
        let several = self.askers().wishes().is_some_and(|wishes| wishes.len() > 1);
        let sent = if several { name(&mut stream).await? } else { Vec::new() };
        let Some((target, wish)) = self.question(&sent, peer) else {
            debug!(%peer, sent = %String::from_utf8_lossy(&sent), "an agent-check asked for nothing that is here");
            return Ok(());
        };
        let line = line(&target, peer);
        let drained = self.record.of(&line).drain;
        // Written before it is said: the drain of an agent that dies now is known to the next one.
        if wish == Wish::Drain
            && !drained
            && let Err(why) = self.note_drain(&line)
        {
            debug!(%peer, why, "a drain cannot be recorded, and so is not said");
            self.askers().refused(peer, &why, clock::boot());
            return Ok(());
        }
        stream.write_all(answer(wish, drained).as_bytes()).await?;
        stream.shutdown().await?;
        // What `agent-send` sent and was not read would turn the close into a reset, and the answer could be lost.
        read_to_end(&mut stream).await;
        let undone = self.askers().answered((target, peer), wish, drained, self.settle, clock::boot());
        if undone && let Err(error) = self.record.set(&line, Ours::default()) {
            warn!(error = %crate::report::chain(&error), "that a drain is undone cannot be recorded");
        }
        Ok(())
    }

    fn question(&self, sent: &[u8], peer: IpAddr) -> Option<(Target, Wish)> {
        let askers = self.askers();
        let target = asked(sent, askers.wishes()?)?;
        let wish = askers.wish(&target, peer, self.settle, clock::boot())?;
        Some((target, wish))
    }

    /// Whoever can reach the port must not fill the disk.
    fn note_drain(&self, line: &str) -> Result<(), String> {
        let recorded: Vec<_> = self.record.lines(NAME).iter().filter_map(|line| recorded::asker(line)).collect();
        let set = |line: &str, ours| self.record.set(line, ours).map_err(|error| crate::report::chain(&error));
        match self.askers().room(&recorded, clock::boot()) {
            Room::Free => {}
            Room::InsteadOf(target, peer) => {
                warn!(%peer, "an address that was told to drain has not asked since; its drain is forgotten to make room");
                set(&recorded::line(&target, peer), Ours::default())?;
            }
            Room::None => {
                let name = "name the HAProxies in `balancer.agent_check.from`";
                return Err(format!("drains are recorded for {LIMIT} addresses already; {name}"));
            }
        }
        set(line, Ours { drain: true, weight: false })
    }
}

/// The first line that was sent, or its beginning.
async fn name(stream: &mut TcpStream) -> io::Result<Vec<u8>> {
    let mut sent = Vec::new();
    while wants_more(&sent) {
        let mut more = [0; SEND_LIMIT_BYTES];
        match stream.read(&mut more).await? {
            0 => break,
            count => sent.extend_from_slice(more.get(..count).unwrap_or_default()),
        }
    }
    Ok(sent)
}

async fn read_to_end(stream: &mut TcpStream) {
    let mut rest = [0; 256];
    // Bounded: an asker that goes on sending is cut off.
    for _ in 0..4 {
        if !matches!(stream.read(&mut rest).await, Ok(count) if count > 0) {
            return;
        }
    }
}
