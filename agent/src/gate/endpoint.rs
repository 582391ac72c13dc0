//! The gate's end of the control socket: what it says to agents and to newer gates, and what it lets them tell it.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::BufReader;
use tokio::net::UnixStream;
use tokio::net::unix::WriteHalf;
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::control::{FromGate, GateReport, Refusal, ToGate};
use super::control_socket::ControlSocket;
use super::handover::give;
use super::handover::succession::Phase;
use super::report;
use super::text_lines::{self, LineReader};
use super::ticket::Gate;

/// Talks to everybody who connects: one agent as a rule; while it is replaced there may be two, and sequence numbers keep the
/// older from undoing the newer. Ends with the gate, when everybody has heard its last report.
pub(super) async fn serve(control: Arc<ControlSocket>, gate: Arc<Gate>, reports: watch::Sender<GateReport>) {
    let mut visitors = JoinSet::new();
    let mut phase = gate.succession.phase();
    loop {
        let ended = *phase.borrow_and_update() == Phase::Ended;
        if ended && visitors.is_empty() {
            return;
        }
        tokio::select! {
            accepted = control.listener.accept(), if !ended => match accepted {
                Ok((stream, _)) => {
                    visitors.spawn(talk(stream, Arc::clone(&gate), reports.subscribe()));
                }
                Err(error) => {
                    tracing::warn!(%error, "cannot accept an agent");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            },
            Some(left) = visitors.join_next(), if !visitors.is_empty() => match left {
                Ok(Ok(())) => tracing::debug!("agent disconnected; the routes stay as they are"),
                Ok(Err(error)) => tracing::warn!(%error, "agent connection broke; the routes stay as they are"),
                Err(error) => tracing::error!(%error, "the task of an agent connection ended"),
            },
            _ = phase.changed() => {}
        }
    }
}

/// Who is at the other end.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Visitor {
    Agent,
    /// A newer gate: it adds our counts to its own, so it hears ours alone.
    Follower,
}

async fn talk(mut stream: UnixStream, gate: Arc<Gate>, mut reports: watch::Receiver<GateReport>) -> io::Result<()> {
    let (read, mut write) = stream.split();
    let mut lines = LineReader::new(BufReader::new(read));
    let mut phase = gate.succession.phase();
    // Agents find a gate that was replaced no more: whoever still comes looks for this one by its own name.
    let mut visitor = if gate.succession.is_replaced() { Visitor::Follower } else { Visitor::Agent };
    reports.mark_unchanged();
    tell(&gate, visitor, &mut write).await?;
    loop {
        let now = *phase.borrow_and_update();
        match now {
            Phase::Ended => return tell(&gate, visitor, &mut write).await,
            // An agent's business is with the newer gate from now on.
            Phase::Replaced if visitor == Visitor::Agent => return Ok(()),
            Phase::Serving | Phase::Stopping | Phase::Replaced => {}
        }
        tokio::select! {
            line = lines.next::<ToGate>() => match line? {
                None => return Ok(()),
                Some(Ok(ToGate::Follow)) => {
                    visitor = Visitor::Follower;
                    gate.succession.is_followed();
                    tell(&gate, visitor, &mut write).await?;
                }
                Some(Ok(ToGate::TakeOver)) => give::hand_over(&gate, &mut lines, &mut write).await?,
                Some(line) => if let Err(refusal) = obey(&gate, visitor, line).await {
                    tracing::warn!(%refusal, "refused a line from the agent");
                    text_lines::write(&mut write, &FromGate::Refused(refusal)).await?;
                },
            },
            changed = reports.changed() => {
                if changed.is_err() {
                    return Ok(());
                }
                reports.mark_unchanged();
                tell(&gate, visitor, &mut write).await?;
            }
            _ = phase.changed() => {}
        }
    }
}

async fn tell(gate: &Gate, visitor: Visitor, write: &mut WriteHalf<'_>) -> io::Result<()> {
    let report = match visitor {
        Visitor::Agent => report::now(gate),
        Visitor::Follower => report::alone(gate),
    };
    text_lines::write(write, &FromGate::Report(report)).await
}

async fn obey(gate: &Gate, visitor: Visitor, line: Result<ToGate, serde_json::Error>) -> Result<(), Refusal> {
    match line {
        Ok(ToGate::State(state)) => {
            // A newer gate is taking the state over: it must be the last one that this gate was told by an agent, who sends
            // the next one to the newer gate.
            let _orders = gate.succession.orders.lock().await;
            if visitor == Visitor::Agent && gate.succession.is_replaced() { Ok(()) } else { gate.apply(state) }
        }
        Ok(ToGate::Accepting { .. }) => Err(Refusal::Unreadable { reason: "nothing was offered".into() }),
        Ok(ToGate::Follow | ToGate::TakeOver) => Ok(()),
        Err(error) => Err(Refusal::Unreadable { reason: error.to_string() }),
    }
}
