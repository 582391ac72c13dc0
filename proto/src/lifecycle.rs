//! The lifecycle of an instance (`DESIGN.md` §4).
//!
//! ```text
//! READY -> SERVING            READY -> MIGRATING -> SERVING
//! SERVING -> DRAINING -> TERMINATED | READY
//! READY -> TERMINATED         MIGRATING -> READY | TERMINATED
//! anything -> TERMINATED      once the process has exited
//! ```
//!
//! What the *process* does (starting, running, exited) is another thing and stands in the report.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Where an instance stands, or should stand.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Lifecycle {
    /// Healthy and compatible, without production traffic.
    Ready,
    /// Migrations or compatibility preparation run.
    Migrating,
    /// Any route weight above 0, or the scheduler lease.
    Serving,
    /// No new traffic; in-flight work finishes, the lease is given up.
    Draining,
    /// Retired.
    Terminated,
}

/// Why a lifecycle moves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// Preparation begins.
    Migrate,
    /// Preparation ended well or was given up, without traffic yet.
    Prepared,
    /// Traffic or the lease arrives.
    Serve,
    /// Traffic is taken away.
    Drain,
    /// The drain ended with every line of the ledger at zero, or was cancelled.
    Drained,
    /// The instance is retired: its process is told to stop.
    Retire,
    /// The process has exited, whoever wanted it.
    Exited,
}

/// A move that the lifecycle does not have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("an instance that is {from} cannot take the event {event:?}")]
pub struct Illegal {
    /// Where the instance stood.
    pub from: Lifecycle,
    /// What was asked of it.
    pub event: Event,
}

impl Lifecycle {
    /// All of them, in the order of a life.
    pub const ALL: [Self; 5] = [Self::Ready, Self::Migrating, Self::Serving, Self::Draining, Self::Terminated];

    /// The state after `event`.
    ///
    /// # Errors
    /// [`Illegal`] if the diagram has no such arrow; the state stays as it was.
    pub fn after(self, event: Event) -> Result<Self, Illegal> {
        use Lifecycle::{Draining, Migrating, Ready, Serving, Terminated};
        match (self, event) {
            (Ready | Migrating | Serving | Draining | Terminated, Event::Exited) => Ok(Terminated),
            (Ready, Event::Migrate) => Ok(Migrating),
            (Migrating, Event::Prepared) => Ok(Ready),
            (Ready | Migrating, Event::Serve) => Ok(Serving),
            (Serving, Event::Drain) => Ok(Draining),
            (Draining, Event::Drained) => Ok(Ready),
            (Ready | Migrating | Draining, Event::Retire) => Ok(Terminated),
            (Ready, Event::Prepared | Event::Drain | Event::Drained)
            | (Migrating, Event::Migrate | Event::Drain | Event::Drained)
            | (Serving, Event::Migrate | Event::Prepared | Event::Serve | Event::Drained | Event::Retire)
            | (Draining, Event::Migrate | Event::Prepared | Event::Serve | Event::Drain)
            | (
                Terminated,
                Event::Migrate | Event::Prepared | Event::Serve | Event::Drain | Event::Drained | Event::Retire,
            ) => Err(Illegal { from: self, event }),
        }
    }
}

impl fmt::Display for Lifecycle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Ready => "READY",
            Self::Migrating => "MIGRATING",
            Self::Serving => "SERVING",
            Self::Draining => "DRAINING",
            Self::Terminated => "TERMINATED",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::{Event, Illegal, Lifecycle};
    use Lifecycle::{Draining, Migrating, Ready, Serving, Terminated};

    const EVENTS: [Event; 7] =
        [Event::Migrate, Event::Prepared, Event::Serve, Event::Drain, Event::Drained, Event::Retire, Event::Exited];

    /// The diagram of the module's doc, arrow by arrow.
    const ARROWS: [(Lifecycle, Event, Lifecycle); 14] = [
        (Ready, Event::Migrate, Migrating),
        (Ready, Event::Serve, Serving),
        (Ready, Event::Retire, Terminated),
        (Ready, Event::Exited, Terminated),
        (Migrating, Event::Prepared, Ready),
        (Migrating, Event::Serve, Serving),
        (Migrating, Event::Retire, Terminated),
        (Migrating, Event::Exited, Terminated),
        (Serving, Event::Drain, Draining),
        (Serving, Event::Exited, Terminated),
        (Draining, Event::Drained, Ready),
        (Draining, Event::Retire, Terminated),
        (Draining, Event::Exited, Terminated),
        (Terminated, Event::Exited, Terminated),
    ];

    #[test]
    fn every_pair_of_state_and_event_is_an_arrow_of_the_diagram_or_illegal() {
        for from in Lifecycle::ALL {
            for event in EVENTS {
                let arrow = ARROWS.iter().find(|(f, e, _)| (*f, *e) == (from, event));
                let expected = arrow.map_or(Err(Illegal { from, event }), |(_, _, to)| Ok(*to));
                assert_eq!(from.after(event), expected, "{from} on {event:?}");
            }
        }
    }

    #[test]
    fn a_serving_instance_is_never_retired_without_a_drain() {
        assert!(Serving.after(Event::Retire).is_err());
    }

    #[test]
    fn it_reads_and_writes_as_the_documents_spell_it() {
        for state in Lifecycle::ALL {
            assert_eq!(serde_json::to_string(&state).expect("json"), format!("\"{state}\""));
        }
    }
}
