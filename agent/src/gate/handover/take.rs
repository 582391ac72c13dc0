//! The newer gate's side of a hand-over.

use std::io;
use std::net::TcpListener;
use std::sync::PoisonError;
use std::time::Duration;

use tokio::io::BufReader;
use tokio::net::UnixStream;
use tokio::net::unix::OwnedWriteHalf;

use super::descriptors::WithDescriptors;
use crate::gate::control::{FromGate, Offer, Refusal, ToGate};
use crate::gate::text_lines::{self, LineReader};

/// A gate answers within milliseconds, unless it is saving a state on a slow disk.
const PATIENCE: Duration = Duration::from_secs(10);

/// The listener was not to be had from the gate that runs.
#[derive(Debug, thiserror::Error)]
pub enum TakeOverError {
    /// The talk broke off.
    #[error("the gate that runs did not hand over its listener ({0}); it goes on; see its log")]
    Broken(#[source] io::Error),
    /// It is of a version that cannot.
    #[error("the gate that runs cannot hand over its listener ({0}); stop it, and start this one then")]
    CannotGive(String),
    /// It answered, without a listener.
    #[error("the gate that runs sent no listener along; it goes on; please report this with both logs")]
    NoListener,
}

/// A hand-over that has begun.
pub(in crate::gate) struct TakeOver {
    lines: LineReader<BufReader<WithDescriptors>>,
    write: OwnedWriteHalf,
    same_listener: bool,
}

/// What came of asking.
pub(in crate::gate) enum Asked {
    /// Here it is.
    Given(Box<Offer>, TcpListener, TakeOver),
    /// That gate is leaving: it has no listener, or a newer one has it.
    Leaving,
}

impl TakeOver {
    /// Asks a gate for its listener.
    pub(in crate::gate) async fn ask(stream: UnixStream) -> Result<Asked, TakeOverError> {
        let (read, write) = stream.into_split();
        let (read, arrived) = WithDescriptors::new(read);
        let mut this = Self { lines: LineReader::new(BufReader::new(read)), write, same_listener: true };
        text_lines::write(&mut this.write, &ToGate::TakeOver).await.map_err(TakeOverError::Broken)?;
        let offer = loop {
            match this.hear().await.map_err(TakeOverError::Broken)? {
                FromGate::Report(_) => {}
                FromGate::Offer(offer) => break offer,
                FromGate::Refused(Refusal::Leaving) => return Ok(Asked::Leaving),
                other => return Err(TakeOverError::CannotGive(format!("{other:?}"))),
            }
        };
        let given = arrived.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let listener = given.map(TcpListener::from).ok_or(TakeOverError::NoListener)?;
        Ok(Asked::Given(Box::new(offer), listener, this))
    }

    /// Whether this gate accepts from the listener that it was given.
    pub(super) fn with(self, same_listener: bool) -> Self {
        Self { same_listener, ..self }
    }

    /// Says that clients are accepted here, and waits for the older gate's leave.
    pub(in crate::gate) async fn confirm(&mut self) -> io::Result<()> {
        text_lines::write(&mut self.write, &ToGate::Accepting { same_listener: self.same_listener }).await?;
        loop {
            if let FromGate::Left = self.hear().await? {
                return Ok(());
            }
        }
    }

    async fn hear(&mut self) -> io::Result<FromGate> {
        let line = tokio::time::timeout(PATIENCE, self.lines.next::<FromGate>()).await??;
        line.ok_or(io::ErrorKind::UnexpectedEof)?.map_err(io::Error::other)
    }
}
