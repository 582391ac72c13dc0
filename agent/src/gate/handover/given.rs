//! Sockets that the service manager passed to this process (`sd_listen_fds(3)`): of a socket unit, or out of its
//! descriptor store.

use std::net::{SocketAddr, TcpListener};

use crate::notify::KEPT;

/// Listeners that came with the process.
#[derive(Debug, Default)]
pub struct Given(Vec<GivenListener>);

#[derive(Debug)]
struct GivenListener {
    name: String,
    listener: TcpListener,
}

/// A socket was given that is not what the settings want.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "the service manager passed a listener on {given}, but `listen` in [gate] is {wanted}: write the same address into ListenStream= of the socket unit"
)]
pub struct WrongAddress {
    /// Where the given one listens.
    pub given: SocketAddr,
    /// What the settings say.
    pub wanted: SocketAddr,
}

impl Given {
    /// Takes them out of the environment (`LISTEN_FDS`, `LISTEN_PID`, `LISTEN_FDNAMES`). To be called once, before anything
    /// else opens a descriptor.
    pub fn of_environment() -> Self {
        let names = std::env::var("LISTEN_FDNAMES").unwrap_or_default();
        let mut names = names.split(':').map(str::to_owned);
        let mut passed = listenfd::ListenFd::from_env();
        let mut given = Vec::new();
        for index in 0..passed.len() {
            let name = names.next().unwrap_or_default();
            match passed.take_tcp_listener(index) {
                Ok(Some(listener)) => given.push(GivenListener { name, listener }),
                Ok(None) => {}
                Err(error) => tracing::warn!(%error, name, "a descriptor that was passed is no listener"),
            }
        }
        Self(given)
    }

    /// The listener for `wanted`, and whether a socket unit gave it. One of the store that listens elsewhere is a left-over
    /// of other settings; it is closed.
    ///
    /// # Errors
    /// When a socket unit listens elsewhere.
    pub(super) fn take(&mut self, wanted: SocketAddr) -> Result<Option<(TcpListener, bool)>, WrongAddress> {
        let (kept, activated): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.0).into_iter().partition(|one| one.name == KEPT);
        let mut elsewhere = None;
        for (one, activated) in activated.into_iter().map(|one| (one, true)).chain(kept.into_iter().map(|o| (o, false)))
        {
            match one.listener.local_addr() {
                Ok(given) if is_at(given, wanted) => return Ok(Some((one.listener, activated))),
                Ok(given) if activated => elsewhere = Some(given),
                Ok(given) => tracing::info!(%given, "the listener that was kept is for another address; closed"),
                Err(error) => tracing::warn!(%error, name = one.name, "a listener that was passed has no address"),
            }
        }
        elsewhere.map_or(Ok(None), |given| Err(WrongAddress { given, wanted }))
    }
}

/// A listener on `given` does what the settings want. Port 0 takes any; `ListenStream=8080` means `[::]`, which is every
/// address of both families.
pub(super) fn is_at(given: SocketAddr, wanted: SocketAddr) -> bool {
    let everywhere = given.ip().is_unspecified() && wanted.ip().is_unspecified();
    (given.ip() == wanted.ip() || everywhere) && (wanted.port() == 0 || given.port() == wanted.port())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn given(name: &str) -> (GivenListener, SocketAddr) {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("an address");
        (GivenListener { name: name.to_owned(), listener }, address)
    }

    #[test]
    fn the_socket_units_listener_goes_before_the_kept_one_whatever_its_name() {
        let (unit, at) = given("handover-gate@billing.socket");
        let kept = GivenListener { name: KEPT.into(), listener: unit.listener.try_clone().expect("another") };
        let (_, activated) = Given(vec![kept, unit]).take(at).expect("fits").expect("one");
        assert!(activated);
    }

    #[test]
    fn a_kept_one_for_another_address_is_left_out_and_a_units_one_is_an_error() {
        let wanted: SocketAddr = "127.0.0.1:1".parse().expect("an address");
        let (kept, _) = given(KEPT);
        assert!(Given(vec![kept]).take(wanted).expect("no error").is_none());
        let (unit, at) = given("x");
        let error = Given(vec![unit]).take(wanted).expect_err("does not fit");
        assert_eq!(error, WrongAddress { given: at, wanted });
        assert!(Given::default().take(wanted).expect("no error").is_none());
    }

    #[test]
    fn an_address_fits_itself_any_port_and_everywhere() {
        let fits = |given: &str, wanted: &str| is_at(given.parse().expect("given"), wanted.parse().expect("wanted"));
        assert!(fits("127.0.0.1:80", "127.0.0.1:80") && fits("127.0.0.1:80", "127.0.0.1:0"));
        assert!(fits("[::]:80", "0.0.0.0:80"), "ListenStream=80");
        assert!(!fits("127.0.0.1:80", "127.0.0.1:81") && !fits("127.0.0.1:80", "0.0.0.0:80"));
    }
}
