//! Older gates of the same control path that still finish requests. This gate hears their counts, and tells them every state
//! that it is told itself: their clients' next requests must not go to an instance that gets no more.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::io::BufReader;
use tokio::net::UnixStream;
use tokio_util::task::AbortOnDropHandle;

use super::merge::include;
use crate::gate::control::{FromGate, GateReport, ToGate};
use crate::gate::control_socket::{is_dead, others};
use crate::gate::text_lines::{self, LineReader};
use crate::gate::ticket::Gate;

/// How long the start waits for their first words. A gate answers within milliseconds; one that is stuck must not keep this
/// one from serving, but until it speaks no state counts as applied.
const FIRST_WORDS: Duration = Duration::from_secs(2);
const AGAIN: Duration = Duration::from_millis(20);

/// Follows every other gate that lives now, until it ends. Returns when each has said where it stands.
pub(in crate::gate) async fn follow(gate: &Arc<Gate>, public: &Path, me: &Path) -> Vec<AbortOnDropHandle<()>> {
    let paths = others(public, me).await;
    gate.succession.older().living = vec![Some(None); paths.len()];
    let hear = |(key, path)| AbortOnDropHandle::new(tokio::spawn(hear_until_it_ends(Arc::clone(gate), path, key)));
    let tasks = paths.into_iter().enumerate().map(hear).collect();
    let all_spoke = async {
        while gate.succession.older().living.iter().any(|one| matches!(one, Some(None))) {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    if tokio::time::timeout(FIRST_WORDS, all_spoke).await.is_err() {
        tracing::error!("an older gate lives and says nothing: no state counts as applied before it does, or ends");
    }
    tasks
}

async fn hear_until_it_ends(gate: Arc<Gate>, path: PathBuf, key: usize) {
    loop {
        let heard = match UnixStream::connect(&path).await {
            Ok(stream) => hear(&gate, stream, key).await,
            Err(error) if is_dead(&error) => break,
            // Its queue is full, or this process has no descriptor free: it may well have work.
            Err(error) => Err(error),
        };
        if let Err(error) = heard {
            tracing::debug!(%error, path = %path.display(), "an older gate's words broke off");
        }
        tokio::time::sleep(AGAIN).await;
    }
    let own = gate.core().report(gate.now());
    let mut older = gate.succession.older();
    let last = older.living.get_mut(key).and_then(Option::take).flatten();
    if let Some(last) = last {
        tracing::info!(start_id = last.gate_start_id, "an older gate has ended");
        // One that was replaced itself leaves this to the newer one.
        if !gate.succession.is_replaced() {
            older.carried.take(&last, &own);
        }
    }
    drop(older);
    gate.news.notify_one();
}

async fn hear(gate: &Gate, mut stream: UnixStream, key: usize) -> io::Result<()> {
    let (read, mut write) = stream.split();
    let mut lines = LineReader::new(BufReader::new(read));
    text_lines::write(&mut write, &ToGate::Follow).await?;
    let mut applied = gate.applied.subscribe();
    applied.mark_changed();
    loop {
        tokio::select! {
            line = lines.next::<FromGate>() => match line? {
                None => return Ok(()),
                Some(Ok(FromGate::Report(report))) => {
                    if let Some(place) = gate.succession.older().living.get_mut(key) {
                        *place = Some(Some(report));
                    }
                    gate.news.notify_one();
                }
                // Refused, if it was told something newer already.
                Some(line) => tracing::debug!(?line, "an older gate says"),
            },
            changed = applied.changed() => {
                if changed.is_err() {
                    return Ok(());
                }
                let state = applied.borrow_and_update().clone();
                if state.seq > 0 {
                    text_lines::write(&mut write, &ToGate::State(state)).await?;
                }
            }
        }
    }
}

/// Whether a gate that broke off its words has ended, or does within a moment.
pub(in crate::gate) async fn has_ended(gate: &Gate, start_id: &str) -> bool {
    let is_it = |one: &Option<Option<GateReport>>| {
        one.as_ref().is_some_and(|said| said.as_ref().is_none_or(|report| report.gate_start_id == start_id))
    };
    let ended = async {
        while gate.succession.older().living.iter().any(is_it) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_millis(500), ended).await.is_ok()
}

/// Adds what those have counted that ended.
pub(in crate::gate) fn add_carried(gate: &Gate, report: &mut GateReport) {
    let older = gate.succession.older();
    let living = || older.living.iter().flatten().flatten();
    older.carried.add_to(report, |id| living().any(|one| one.carried_from.iter().any(|from| from == id)));
}

/// Adds what those say that live.
pub(in crate::gate) fn add_living(gate: &Gate, report: &mut GateReport) {
    for one in gate.succession.older().living.iter().flatten() {
        include(report, one.as_ref());
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::gate::control_socket::tests::crowded;
    use crate::gate::settings::GateSettings;

    #[tokio::test]
    async fn an_older_gate_whose_queue_is_full_is_asked_again_and_not_taken_for_ended() {
        let directory = tempfile::tempdir().expect("a directory");
        let at = |name: &str| directory.path().join(name);
        let (listener, waiting) = crowded(&at("gate.sock.old")).await;
        let gate = Gate::new(GateSettings::new(([127, 0, 0, 1], 0).into(), at("gate.sock"), at("state.json")), None);
        gate.succession.older().living = vec![Some(None)];
        let hearing = tokio::spawn(hear_until_it_ends(Arc::clone(&gate), at("gate.sock.old"), 0));
        // It has tried by now: nothing else runs here.
        tokio::time::sleep(Duration::from_millis(50)).await;
        drop(waiting);
        let report = gate.core().report(gate.now());
        let spoke = async {
            while !matches!(gate.succession.older().living.first(), Some(Some(Some(_)))) {
                let (mut stream, _) = listener.accept().await.expect("asked again");
                let (_, mut write) = stream.split();
                // Who waited in the queue has left.
                let _gone = text_lines::write(&mut write, &FromGate::Report(report.clone())).await;
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(20), spoke).await.expect("it is still heard");
        hearing.abort();
    }
}
