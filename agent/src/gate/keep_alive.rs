//! Peers that are gone without a word (their host lost its power, a firewall forgot them): only the kernel can find out on a
//! connection on which nobody has anything to say.

use std::os::fd::AsFd;
use std::time::Duration;

use rustix::net::sockopt;

/// After so long a silence the kernel asks, and then in such intervals; so many questions without an answer end the
/// connection: a minute in all. Shorter than what firewalls remember, and nothing on a connection that is in use.
const SILENCE: Duration = Duration::from_secs(30);
const INTERVAL: Duration = Duration::from_secs(10);
const QUESTIONS: u32 = 3;
/// The same for a peer to whom something was written that it does not acknowledge: the kernel asks no questions then.
const LEAST: Duration = Duration::from_secs(60);
/// How long the kernel waits for an acknowledgement when it is told nothing (`tcp_retries2`), about.
const KERNELS_OWN: Duration = Duration::from_secs(15 * 60);

/// Has the kernel ask the peer of this socket; of a listener: the peers of all that it accepts from now on (Linux passes the
/// setting on, so it costs a connection nothing).
///
/// `patience` is how long one that is there may take nothing of what is written to it: the kernel cannot tell it from one that
/// is gone. A connection on which that is longer than the kernel's own patience is left to the kernel.
pub(super) fn ask(socket: impl AsFd, patience: Duration) {
    let set = || {
        let socket = socket.as_fd();
        sockopt::set_tcp_keepidle(socket, SILENCE)?;
        sockopt::set_tcp_keepintvl(socket, INTERVAL)?;
        sockopt::set_tcp_keepcnt(socket, QUESTIONS)?;
        sockopt::set_tcp_user_timeout(socket, unacknowledged_ms(patience))?;
        sockopt::set_socket_keepalive(socket, true)
    };
    if let Err(error) = set() {
        // Then it is as before: what is lost is waited for. Mostly the connection has just ended.
        tracing::debug!(%error, "the kernel does not ask whether a silent peer is there");
    }
}

/// The kernel's setting for what is not acknowledged; 0 leaves it to the kernel.
fn unacknowledged_ms(patience: Duration) -> u32 {
    let limit = patience.max(LEAST);
    if limit < KERNELS_OWN { u32::try_from(limit.as_millis()).unwrap_or(0) } else { 0 }
}

/// The connection becomes one on which either side may be busy for as long as `patience`.
pub(super) fn wait_for(socket: impl AsFd, patience: Duration) {
    if let Err(error) = sockopt::set_tcp_user_timeout(socket, unacknowledged_ms(patience)) {
        tracing::debug!(%error, "the kernel keeps its patience with a connection");
    }
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};

    use super::*;

    const S: fn(u64) -> Duration = Duration::from_secs;

    #[test]
    fn what_a_listener_accepts_is_given_up_after_the_patience_if_what_was_written_is_not_acknowledged() {
        for (patience, expected_ms) in [(S(1), 60_000), (S(300), 300_000), (S(3600), 0)] {
            let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
            ask(&listener, patience);
            let client = TcpStream::connect(listener.local_addr().expect("an address")).expect("connected");
            let (accepted, _) = listener.accept().expect("accepted");
            assert_eq!(sockopt::tcp_user_timeout(&accepted).expect("told"), expected_ms);
            assert!(sockopt::socket_keepalive(&accepted).expect("told"));
            wait_for(&accepted, S(7200));
            assert_eq!(sockopt::tcp_user_timeout(&accepted).expect("told"), 0);
            drop(client);
        }
    }
}
