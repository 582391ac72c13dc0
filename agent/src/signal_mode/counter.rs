//! Counts connections again and again, on a thread of its own.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use handover_proto::ids::InstanceId;
use tokio::sync::{Notify, watch};
use tokio_util::task::AbortOnDropHandle;
use tracing::error;

use super::sockets::{Kernel, SocketsError};
use super::tracked::Tracked;
use crate::clock;
use crate::core::observed::{Boot, Kind, Ledger, Line};

/// While nothing drains, the count is for reports.
const EVERY: Duration = Duration::from_secs(1);
/// While something drains. One count takes 1.3 to 2.2 ms with 10,000 other sockets (measured).
const DRAINING: Duration = Duration::from_millis(100);

/// One instance to count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Watched {
    /// Its process: its network namespace is where the sockets are.
    pub pid: i32,
    /// Where it listens.
    pub port: u16,
    /// It is on its way out.
    pub drains: bool,
}

type Counts = BTreeMap<InstanceId, Tracked>;
/// Who is connected to one of them. Blocks.
type Ask = Box<dyn FnMut(&Watched) -> Result<BTreeSet<SocketAddr>, SocketsError> + Send>;

/// A lasting count. Dropping it ends it.
pub(super) struct Counter {
    watched: watch::Sender<BTreeMap<InstanceId, Watched>>,
    counts: watch::Receiver<Counts>,
    task: AbortOnDropHandle<()>,
}

impl Counter {
    pub(super) fn start(wake: Arc<Notify>) -> Self {
        Self::asking(wake, || {
            let mut kernel = Kernel::default();
            Box::new(move |it| kernel.connections(it.pid, it.port))
        })
    }

    /// `begin`: how to ask, from the start.
    fn asking(wake: Arc<Notify>, begin: impl FnMut() -> Ask + Send + 'static) -> Self {
        let (watched, to_watch) = watch::channel(BTreeMap::new());
        let (counted, counts) = watch::channel(Counts::new());
        let task = tokio::spawn(count(to_watch, counted, wake, begin));
        Self { watched, counts, task: AbortOnDropHandle::new(task) }
    }

    pub(super) fn watch(&self, watched: BTreeMap<InstanceId, Watched>) {
        self.watched.send_if_modified(|before| {
            let news = *before != watched;
            *before = watched;
            news
        });
    }

    pub(super) fn ledger(&self, instance: &InstanceId, cut_off: Option<Boot>) -> Ledger {
        let counts = self.counts.borrow();
        let unknown = |why: &str| Ledger { lines: vec![Line::unknown(Kind::Sockets, why.to_owned())] };
        // What it counted last would stand for ever.
        if self.task.is_finished() {
            return unknown("the agent counts no more; restart it, instances go on meanwhile");
        }
        let unknown = || unknown("not counted yet");
        counts.get(instance).map_or_else(unknown, |tracked| tracked.ledger(cut_off))
    }
}

async fn count(
    mut watched: watch::Receiver<BTreeMap<InstanceId, Watched>>,
    counted: watch::Sender<Counts>,
    wake: Arc<Notify>,
    mut begin: impl FnMut() -> Ask + Send,
) {
    let mut ask = begin();
    loop {
        let now = watched.borrow_and_update().clone();
        let time = if now.values().any(|it| it.drains) { DRAINING } else { EVERY };
        let asked = now.clone();
        // Netlink blocks for a moment; the main loop must not.
        let answers = tokio::task::spawn_blocking(move || {
            let answers: Vec<_> = asked.values().map(&mut ask).collect();
            (ask, answers)
        });
        let answers: Vec<Result<_, String>> = match answers.await {
            Ok((again, answers)) => {
                ask = again;
                answers.into_iter().map(|answer| answer.map_err(|error| crate::report::chain(&error))).collect()
            }
            // What it left behind is of no use; the next count begins from the start.
            Err(ended) => {
                error!(%ended, "a count of connections broke off; this is a fault of the agent");
                ask = begin();
                vec![Err("the count broke off; the agent's log says why".to_owned()); now.len()]
            }
        };
        if note(&counted, &now, answers) && time == DRAINING {
            wake.notify_one();
        }
        tokio::select! {
            changed = watched.changed() => if changed.is_err() { return },
            () = tokio::time::sleep(time) => {}
        }
    }
}

/// Takes the answers in, one for each that was asked about. True: that was news.
fn note(
    counted: &watch::Sender<Counts>,
    asked: &BTreeMap<InstanceId, Watched>,
    answers: Vec<Result<BTreeSet<SocketAddr>, String>>,
) -> bool {
    counted.send_if_modified(|counts| {
        let before = counts.clone();
        counts.retain(|id, _| asked.contains_key(id));
        for (id, answer) in asked.keys().zip(answers) {
            counts.entry(id.clone()).or_default().take(answer, clock::boot());
        }
        *counts != before
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn until(what: &str, counter: &Counter, instance: &InstanceId, fits: impl Fn(&Ledger) -> bool) {
        let looked = tokio::time::timeout(Duration::from_secs(20), async {
            while !fits(&counter.ledger(instance, Some(Boot::ZERO))) {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        });
        let last = || counter.ledger(instance, Some(Boot::ZERO)).sentence();
        assert!(looked.await.is_ok(), "never came: {what}: {}", last());
    }

    #[tokio::test]
    async fn a_count_that_breaks_off_is_said_and_the_next_one_begins_from_the_start() {
        let (broken, go_on) = (Arc::new(Notify::new()), Arc::new(std::sync::atomic::AtomicBool::new(false)));
        let (tell, whole) = (broken.clone(), go_on.clone());
        let counter = Counter::asking(Arc::new(Notify::new()), move || {
            let (tell, whole) = (tell.clone(), whole.clone());
            Box::new(move |_| {
                tell.notify_one();
                assert!(whole.load(std::sync::atomic::Ordering::SeqCst), "no more threads");
                Ok(BTreeSet::from([([127, 0, 0, 1], 9).into()]))
            })
        });
        let instance = InstanceId::random();
        counter.watch(BTreeMap::from([(instance.clone(), Watched { pid: 1, port: 1, drains: true })]));
        broken.notified().await;
        until("the reason", &counter, &instance, |ledger| ledger.sentence().contains("broke off")).await;
        go_on.store(true, std::sync::atomic::Ordering::SeqCst);
        until("a count", &counter, &instance, |ledger| ledger.lines[0].count == 1).await;
    }

    #[tokio::test]
    async fn counts_of_a_counter_that_ended_are_not_believed() {
        let counter = Counter::asking(Arc::new(Notify::new()), || Box::new(|_| Ok(BTreeSet::new())));
        let instance = InstanceId::random();
        counter.watch(BTreeMap::from([(instance.clone(), Watched { pid: 1, port: 1, drains: true })]));
        until("none", &counter, &instance, Ledger::is_drained).await;
        counter.task.abort();
        until("its end", &counter, &instance, |ledger| ledger.sentence().contains("counts no more")).await;
        assert!(!counter.ledger(&instance, Some(Boot::ZERO)).is_drained());
    }
}
