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

/// Has the kernel ask the peer of this socket; of a listener: the peers of all that it accepts from now on (Linux passes the
/// setting on, so it costs a connection nothing).
pub(super) fn ask(socket: impl AsFd) {
    let set = || {
        let socket = socket.as_fd();
        sockopt::set_tcp_keepidle(socket, SILENCE)?;
        sockopt::set_tcp_keepintvl(socket, INTERVAL)?;
        sockopt::set_tcp_keepcnt(socket, QUESTIONS)?;
        sockopt::set_socket_keepalive(socket, true)
    };
    if let Err(error) = set() {
        // Then it is as before: what is lost is waited for. Mostly the connection has just ended.
        tracing::debug!(%error, "the kernel does not ask whether a silent peer is there");
    }
}
