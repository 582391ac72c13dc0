//! Where the listening socket comes from.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use tokio::net::{TcpListener, TcpSocket};

use super::given::{Given, is_at};
use super::take::{Asked, TakeOver};
use crate::gate::control::Offer;
use crate::gate::control_socket::{EndpointError, Found, look};
use crate::gate::keep_alive;
use crate::gate::server::GateError;
use crate::gate::settings::GateSettings;

/// The older gate may itself be in the middle of being replaced.
const TRIES: usize = 5;
/// Connections that may wait in the kernel while no gate accepts. The kernel takes at most `net.core.somaxconn` (4096).
const QUEUE: u32 = 4096;

/// Where this process's listener comes from.
pub(in crate::gate) enum Source {
    /// It made it.
    Bound,
    /// The service manager passed it: of a socket unit.
    Activated,
    /// The service manager passed it: the one that an earlier gate gave it to keep.
    Kept,
    /// An older gate that ran handed it over.
    TakenOver {
        /// What else it handed over.
        offer: Box<Offer>,
        /// The talk, to be brought to its end.
        talk: TakeOver,
    },
}

impl Source {
    /// Whether a socket unit holds the listener, too.
    pub(in crate::gate) fn is_activated(&self) -> bool {
        match self {
            Source::Activated => true,
            Source::TakenOver { offer, .. } => offer.activated,
            Source::Bound | Source::Kept => false,
        }
    }

    fn name(&self) -> &'static str {
        match self {
            Source::Bound => "bound",
            Source::Activated => "of the socket unit",
            Source::Kept => "kept by the service manager",
            Source::TakenOver { .. } => "of the gate before",
        }
    }
}

/// A listener with its origin.
pub(in crate::gate) struct Listening {
    pub(in crate::gate) listener: Arc<TcpListener>,
    pub(in crate::gate) address: SocketAddr,
    pub(in crate::gate) source: Source,
}

impl Listening {
    /// Gets the listener that the settings want. With `replace` from the gate that runs, if one does; without, a gate that
    /// runs is an error.
    pub(in crate::gate) async fn get(
        settings: &GateSettings,
        mut given: Given,
        replace: bool,
    ) -> Result<Self, GateError> {
        for _ in 0..TRIES {
            let stream = match look(&settings.control).await? {
                Found::Running(_) if !replace => return Err(EndpointError::InUse(settings.control.clone()).into()),
                Found::Running(stream) => stream,
                Found::Leaving | Found::Nobody => break,
            };
            if let Asked::Given(offer, listener, talk) = TakeOver::ask(stream).await? {
                return Self::of_older(settings, *offer, listener, talk);
            }
        }
        match given.take(settings.listen)? {
            Some((listener, true)) => Self::new(settings, listener, Source::Activated),
            Some((listener, false)) => Self::new(settings, listener, Source::Kept),
            None => Self::new(settings, bind(settings)?, Source::Bound),
        }
    }

    fn of_older(
        settings: &GateSettings,
        offer: Offer,
        theirs: std::net::TcpListener,
        talk: TakeOver,
    ) -> Result<Self, GateError> {
        let offer = Box::new(offer);
        let at = theirs.local_addr().map_err(|source| GateError::Listen { address: settings.listen, source })?;
        let same = is_at(at, settings.listen);
        let listener = if same { theirs } else { bind(settings)? };
        Self::new(settings, listener, Source::TakenOver { offer, talk: talk.with(same) })
    }

    fn new(settings: &GateSettings, listener: std::net::TcpListener, source: Source) -> Result<Self, GateError> {
        let made = || {
            let address = listener.local_addr()?;
            listener.set_nonblocking(true)?;
            keep_alive::ask(&listener, settings.patience_with_clients());
            Ok((address, Arc::new(TcpListener::from_std(listener)?)))
        };
        let failed = |source: io::Error| GateError::Listen { address: settings.listen, source };
        let (address, listener) = made().map_err(failed)?;
        tracing::info!(%address, listener = source.name(), "gate listens");
        Ok(Self { listener, address, source })
    }
}

fn bind(settings: &GateSettings) -> Result<std::net::TcpListener, GateError> {
    let made = || {
        let socket = if settings.listen.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
        // Connections of the gate before, in TIME_WAIT, are no reason not to start.
        socket.set_reuseaddr(true)?;
        socket.bind(settings.listen)?;
        socket.listen(QUEUE)?.into_std()
    };
    made().map_err(|source| GateError::Listen { address: settings.listen, source })
}
