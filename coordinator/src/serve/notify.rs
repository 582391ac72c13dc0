//! What systemd is told (`sd_notify(3)`): that the coordinator answers, that it gets on, and in its status line who leads and
//! what is awaited. A dozen lines of protocol as in the agent; a crate for both would be more.

use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, interval, sleep_until};

use super::leader::Leadership;
use crate::clock::wall_ms;
use crate::view;
use crate::world::World;

/// Said so often within one period of the watchdog: a single one may come late.
const SAID_IN_A_PERIOD: u32 = 3;
/// Without a watchdog: a status line nobody waits for may be so old.
const LOOK: Duration = Duration::from_secs(5);
/// The world changes with every report; a status line is for people.
const AT_MOST_EVERY: Duration = Duration::from_secs(1);

/// Tells for ever. Whoever turns this task turns everything else, too: they share one thread.
pub(super) async fn keep_telling(mut world: watch::Receiver<World>, mut leadership: watch::Receiver<Leadership>) {
    let Some(ear) = ear() else { return std::future::pending().await };
    tell(&ear, "READY=1");
    let mut beats = interval(period().map_or(LOOK, |period| period / SAID_IN_A_PERIOD));
    let (mut said, mut quiet_until) = (String::new(), Instant::now());
    loop {
        let text = {
            let world = world.borrow_and_update();
            sentence(&world, &leadership.borrow_and_update(), wall_ms())
        };
        if text != said {
            tell(&ear, &format!("STATUS={text}"));
            said = text;
            quiet_until = Instant::now() + AT_MOST_EVERY;
        }
        let news = async {
            sleep_until(quiet_until).await;
            tokio::select! {
                changed = world.changed() => changed,
                changed = leadership.changed() => changed,
            }
        };
        tokio::select! {
            _ = beats.tick() => tell(&ear, "WATCHDOG=1"),
            changed = news => if changed.is_err() { return std::future::pending().await },
        }
    }
}

/// Who leads, and the first thing that each service waits for.
fn sentence(world: &World, leadership: &Leadership, at_ms: u64) -> String {
    if let Some((reason, _)) = &world.cut_off {
        return format!("waiting for the store: {reason}").replace('\n', " ");
    }
    let mandate = match leadership {
        Leadership::Unknown => return "waiting for a leader to be elected".to_owned(),
        Leadership::Following(leader) => return format!("follows {} on {}", leader.endpoint, leader.host),
        Leadership::Leading(mandate) => mandate,
    };
    let viewer = view::Viewer { leader: mandate.endpoint.clone(), term: mandate.term.get(), at_ms };
    let services = world.services();
    let awaited = services.iter().filter_map(|service| {
        let request = handover_proto::wire::StatusRequest { service: service.to_string(), ..Default::default() };
        match view::status(world, &request, &viewer) {
            Ok(reply) => reply.blockers.first().map(|blocker| format!("{service} waits for {}", blocker.waiting_for)),
            Err(error) => Some(format!("{service} cannot be read: {error}")),
        }
    });
    let awaited: Vec<String> = awaited.collect();
    let awaited = if awaited.is_empty() { "nothing is waited for".to_owned() } else { awaited.join("; ") };
    format!("leads; {awaited}").replace('\n', " ")
}

fn ear() -> Option<UnixDatagram> {
    let socket = std::env::var("NOTIFY_SOCKET").ok()?;
    let connect = || {
        let address = match socket.strip_prefix('@') {
            Some(name) => SocketAddr::from_abstract_name(name)?,
            None => SocketAddr::from_pathname(&socket)?,
        };
        let ear = UnixDatagram::unbound()?;
        ear.connect_addr(&address)?;
        // A manager that does not listen must not stop us.
        ear.set_nonblocking(true)?;
        Ok::<_, std::io::Error>(ear)
    };
    connect().inspect_err(|error| tracing::warn!(%error, socket, "cannot reach NOTIFY_SOCKET")).ok()
}

fn tell(ear: &UnixDatagram, text: &str) {
    if let Err(error) = ear.send(text.as_bytes()) {
        tracing::warn!(%error, text, "systemd cannot be told");
    }
}

/// After how much silence this process is restarted; none: nobody watches it, or another process is meant.
fn period() -> Option<Duration> {
    let var = |name| std::env::var(name).ok();
    let ours = var("WATCHDOG_PID").is_none_or(|pid| pid.parse() == Ok(std::process::id()));
    var("WATCHDOG_USEC")?.parse().ok().filter(|usec| ours && *usec > 0).map(Duration::from_micros)
}

#[cfg(test)]
mod tests {
    use handover_proto::ids::Env;

    use super::*;
    use crate::serve::Leader;

    #[test]
    fn the_status_line_says_what_is_awaited_before_all_else() {
        let mut world = World::new(&Env::default());
        assert_eq!(sentence(&world, &Leadership::Unknown, 0), "waiting for a leader to be elected");
        let leader = Leader { v: 1, endpoint: "10.0.0.2:2791".into(), place: String::new(), host: "app-02".into() };
        let following = Leadership::Following(leader);
        assert_eq!(sentence(&world, &following, 0), "follows 10.0.0.2:2791 on app-02");
        world.cut_off = Some(("connection\nrefused".to_owned(), 7));
        assert_eq!(sentence(&world, &following, 0), "waiting for the store: connection refused");
    }
}
