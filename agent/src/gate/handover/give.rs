//! The older gate's side of a hand-over.

use std::io;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use tokio::io::BufReader;
use tokio::net::unix::{ReadHalf, WriteHalf};

use super::descriptors;
use crate::gate::control::{FromGate, Offer, Refusal, ToGate};
use crate::gate::text_lines::{self, LineReader};
use crate::gate::ticket::Gate;

/// How long the newer gate may take to accept clients. It needs milliseconds; meanwhile no state is put in force.
const PATIENCE: Duration = Duration::from_secs(3);
/// How long the state file may take to be free: shorter than the newer gate's own patience, so that nothing is offered to one
/// that has left.
const FILE_PATIENCE: Duration = Duration::from_secs(8);

/// Hands the listener over. Until the newer gate says that it accepts, this one does, too, and if that word does not come
/// nothing has changed.
pub(in crate::gate) async fn hand_over(
    gate: &Gate,
    lines: &mut LineReader<BufReader<ReadHalf<'_>>>,
    write: &mut WriteHalf<'_>,
) -> io::Result<()> {
    // A disk that hangs must not keep states from being put in force: `orders` is taken when nothing is to be waited for.
    let Ok(_file) = tokio::time::timeout(FILE_PATIENCE, gate.succession.file.lock()).await else {
        tracing::warn!(
            "a newer gate asks for the listener while the state file is being written, which does not end; refused"
        );
        return Err(io::ErrorKind::TimedOut.into());
    };
    let _orders = gate.succession.orders.lock().await;
    let post = gate.succession.post().filter(|_| !gate.succession.is_leaving());
    let Some(post) = post else {
        return text_lines::write(write, &FromGate::Refused(Refusal::Leaving)).await;
    };
    let offer = Offer {
        start_id: gate.start_id.clone(),
        state: gate.core().state().clone(),
        saved: gate.saved.borrow().seq,
        activated: post.activated,
    };
    tracing::info!(seq = offer.state.seq, "a newer gate asks for the listener");
    let offered = Instant::now();
    let listener = [post.listener.as_fd()];
    tokio::time::timeout(PATIENCE, descriptors::write(write, &FromGate::Offer(offer), &listener)).await??;
    match tokio::time::timeout(PATIENCE, lines.next::<ToGate>()).await {
        // Frozen meanwhile, this gate finds the word although it comes from one that has given up long since.
        Ok(Ok(Some(Ok(ToGate::Accepting { same_listener }))))
            if offered.elapsed() <= PATIENCE && gate.succession.replace(same_listener) =>
        {
            tracing::info!("a newer gate accepts clients; this one finishes what is in flight");
            text_lines::write(write, &FromGate::Left).await
        }
        other => {
            tracing::warn!(?other, "the newer gate did not come to accept clients; this one goes on");
            // It may have come as far as to be the one that agents find.
            if let Err(error) = post.control.publish() {
                tracing::error!(%error, "agents do not find this gate any more");
            }
            Err(io::Error::new(io::ErrorKind::ConnectionAborted, "the newer gate did not come to accept clients"))
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tokio::net::UnixStream;

    use super::*;
    use crate::gate::settings::GateSettings;

    #[tokio::test]
    async fn a_state_file_that_is_not_free_holds_up_a_newer_gate_and_no_state() {
        let settings = GateSettings::new(([127, 0, 0, 1], 0).into(), "c.sock".into(), "s.json".into());
        let gate = Gate::new(settings, None);
        let writing = Arc::clone(&gate.succession.file).lock_owned().await;
        let (mut ours, _theirs) = UnixStream::pair().expect("a pair");
        let (read, mut write) = ours.split();
        let mut lines = LineReader::new(BufReader::new(read));
        let mut giving = std::pin::pin!(hand_over(&gate, &mut lines, &mut write));
        tokio::select! {
            biased;
            given = &mut giving => panic!("without the file: {given:?}"),
            () = tokio::task::yield_now() => {}
        }
        assert!(gate.succession.orders.try_lock().is_ok(), "a state would have to wait");
        drop(writing);
        giving.await.expect("told that there is no listener");
    }
}
