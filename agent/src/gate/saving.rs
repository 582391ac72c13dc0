//! The last state: put in force at the start, and saved whenever there is a new one.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::control::Offer;
use super::state_file;
use super::ticket::{Gate, Saved};

/// How long the gate waits before it tries again what the disk refused.
const RETRY: Duration = Duration::from_secs(1);

/// Begins with the state that an older gate handed over, or else with the last one of the file. Without any the gate holds,
/// and the agent is told why.
pub(super) fn restore(gate: &Gate, handed: Option<&Offer>) {
    if let Some(offer) = handed.filter(|offer| offer.state.seq > 0) {
        match gate.apply(offer.state.clone()) {
            Ok(()) => drop(gate.saved.send_replace(Saved { seq: offer.saved, error: None })),
            Err(refusal) => tracing::error!(%refusal, "the older gate's state cannot be applied: requests are held"),
        }
        return;
    }
    match state_file::load(&gate.settings.state_file) {
        Ok(None) => tracing::info!("no saved state: requests are held until the agent sends one"),
        Ok(Some(state)) => {
            let seq = state.seq;
            match gate.apply(state) {
                Ok(()) => drop(gate.saved.send_replace(Saved { seq, error: None })),
                Err(refusal) => tracing::error!(%refusal, "the saved state cannot be applied: requests are held"),
            }
        }
        Err(error) => {
            tracing::error!(%error, "starting without routes: requests are held until the agent sends a state");
            gate.saved.send_replace(Saved { seq: 0, error: Some(error.to_string()) });
        }
    }
}

/// Saves each applied state (if they come fast, the last one), off the runtime's thread: the disk must not hold up requests.
/// Once a newer gate has taken over, the file is that one's.
pub(super) async fn save_states(gate: Arc<Gate>) {
    let mut applied = gate.applied.subscribe();
    applied.mark_changed();
    loop {
        // The sender lives as long as the gate, which this task holds.
        if applied.changed().await.is_err() {
            return;
        }
        let turn = gate.succession.file.lock().await;
        if gate.succession.is_replaced() {
            return std::future::pending().await;
        }
        let state = applied.borrow_and_update().clone();
        let seq = state.seq;
        if seq == gate.saved.borrow().seq {
            continue;
        }
        let path: PathBuf = gate.settings.state_file.clone();
        let written = tokio::task::spawn_blocking(move || state_file::save(&path, &state)).await;
        drop(turn);
        let error = match written {
            Ok(Ok(())) => None,
            Ok(Err(error)) => Some(error.to_string()),
            Err(error) => Some(format!("the task that saves ended: {error}")),
        };
        let failed = error.is_some();
        let before = gate.saved.borrow().seq;
        gate.saved.send_replace(Saved { seq: if failed { before } else { seq }, error: error.clone() });
        gate.news.notify_one();
        if let Some(error) = error {
            tracing::error!(%error, seq, "the applied state is in force but not saved; trying again");
            tokio::time::sleep(RETRY).await;
            applied.mark_changed();
        }
    }
}
