//! Has somebody try how long a kill takes, until it is quick enough: a host that is busy now may be relieved later.

use std::time::Duration;

use tokio::sync::mpsc::UnboundedSender;

use super::effects::say;
use super::event::Event;
use super::fitness::KillTime;

/// Ends some processes of its own, and says how long that took. It may block.
pub type Trial = Box<dyn Fn() -> Result<Duration, String> + Send>;

/// Between two trials, at first and at most: each ends twenty trees of processes.
const AGAIN: (Duration, Duration) = (Duration::from_secs(2), Duration::from_secs(60));

/// Tries on a thread of its own, until a kill takes at most `limit` or nobody listens any more.
///
/// # Errors
/// When there is no such thread.
pub(super) fn begin(trial: Trial, limit: Duration, events: UnboundedSender<Event>) -> std::io::Result<()> {
    let work = move || {
        let mut pause = AGAIN.0;
        while !events.is_closed() {
            let tried = tried(trial());
            let enough = matches!(tried, KillTime::Took(took) if took <= limit);
            say(&events, Event::KillTried(tried));
            if enough {
                return;
            }
            std::thread::sleep(pause);
            pause = (pause * 2).min(AGAIN.1);
        }
    };
    std::thread::Builder::new().name("kill-trial".to_owned()).spawn(work).map(drop)
}

fn tried(result: Result<Duration, String>) -> KillTime {
    match result {
        Ok(took) => {
            tracing::info!(?took, "tried how long a kill takes");
            KillTime::Took(took)
        }
        Err(error) => {
            tracing::error!(error, "cannot try how long a kill takes");
            KillTime::Failed(error)
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    #[test]
    fn a_kill_that_took_too_long_is_tried_again_and_the_last_word_counts() {
        let (events, mut heard) = tokio::sync::mpsc::unbounded_channel();
        let results = Mutex::new(vec![Ok(Duration::from_millis(100)), Err("busy".to_owned())]);
        let trial = Box::new(move || results.lock().expect("lock").pop().expect("not tried again once it is enough"));
        begin(trial, Duration::from_millis(500), events).expect("a thread");
        let mut next = || match heard.blocking_recv() {
            Some(Event::KillTried(kill)) => Some(kill),
            _ => None,
        };
        assert_eq!(next(), Some(KillTime::Failed("busy".to_owned())));
        assert_eq!(next(), Some(KillTime::Took(Duration::from_millis(100))));
        assert_eq!(next(), None, "it has ended");
    }
}
