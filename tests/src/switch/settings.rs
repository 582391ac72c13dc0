//! What a run of the switch test does.

use std::time::Duration;

use crate::load::crowd::{CrowdSpec, Kind};
use crate::span;
use crate::switch::Course;

/// Moves traffic between two instances, and restarts agents and gates, under clients of every kind.
#[derive(Debug, Clone, clap::Parser)]
#[command(name = "switch")]
pub struct Settings {
    /// What happens, and how often.
    #[command(flatten)]
    pub course: Course,
    /// An eighth of the clients.
    #[arg(long)]
    pub small: bool,
    /// Only these kinds of clients: keep-alive, idle, upload, download, http2, grpc-unary, grpc-stream, websocket, events.
    #[arg(long, value_delimiter = ',', value_parser = kind)]
    pub kinds: Vec<Kind>,
    /// All pauses of clients are this many times as long.
    #[arg(long, default_value_t = 1.0)]
    pub pauses: f64,
    /// Between two events.
    #[arg(long, default_value = "300ms", value_parser = span::parse)]
    pub pause: Duration,
    /// Further lines of the gate's table in the agent's config.
    #[arg(long, default_value = "upstream = \"as-client\"")]
    pub gate: String,
    /// The receipt as JSON.
    #[arg(long)]
    pub json: bool,
}

impl Settings {
    /// A short run with few clients, for the tests.
    pub fn short(course: Course) -> Self {
        let (pauses, pause) = (1.0, Duration::from_millis(200));
        let gate = "upstream = \"as-client\"".to_owned();
        Self { course, small: true, kinds: Vec::new(), pauses, pause, gate, json: false }
    }

    /// The kinds of clients there are.
    pub fn kinds(&self) -> Vec<Kind> {
        if self.kinds.is_empty() { Kind::ALL.to_vec() } else { self.kinds.clone() }
    }

    pub(super) fn crowd(&self, gate: std::net::SocketAddr) -> CrowdSpec {
        let spec = if self.small { CrowdSpec::small(gate) } else { CrowdSpec::full(gate) };
        let kinds = self.kinds();
        let others: Vec<_> = Kind::ALL.into_iter().filter(|kind| !kinds.contains(kind)).collect();
        CrowdSpec { pauses: self.pauses, ..spec.without(&others) }
    }
}

fn kind(word: &str) -> Result<Kind, String> {
    Kind::ALL.into_iter().find(|kind| kind.as_str() == word).ok_or_else(|| format!("there is no kind {word:?}"))
}
