//! Runs all probes of one instance and publishes what they say together.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Notify, watch};
use tokio::task::{Id, JoinSet};
use tokio_util::task::AbortOnDropHandle;

use super::Target;
use super::check::look;
use super::condition::Reading;
use super::readiness::{Conditions, Readiness};
use super::settings::ProbeSettings;

/// The probes of one instance, running. Dropping it ends them, and whatever they have started.
#[derive(Debug)]
pub struct ProbeRunner {
    readiness: watch::Receiver<Readiness>,
    hurry: Vec<Arc<Notify>>,
    _task: AbortOnDropHandle<()>,
}

impl ProbeRunner {
    /// Looks at once, and then again and again. `now` tells the time since boot, which is what the published times
    /// are. Must be called within a tokio runtime.
    pub fn start(
        probes: Vec<ProbeSettings>,
        target: Target,
        now: impl Fn() -> Duration + Send + Sync + 'static,
    ) -> Self {
        let conditions = Conditions::new(&probes, now());
        let (publish, readiness) = watch::channel(conditions.summary());
        let hurry: Vec<_> = probes.iter().map(|_| Arc::<Notify>::default()).collect();
        let (target, looks, places) = (Arc::new(target), JoinSet::new(), HashMap::new());
        let rounds = Rounds { probes, hurry: hurry.clone(), target, looks, places };
        let task = AbortOnDropHandle::new(tokio::spawn(run(rounds, conditions, now, publish)));
        Self { readiness, hurry, _task: task }
    }

    /// Every probe looks now, or right after the look that it is at, whatever its interval: something has happened.
    pub fn look_now(&self) {
        // Kept for one that is not waiting just now.
        self.hurry.iter().for_each(|place| place.notify_one());
    }

    /// What is known, and every change of it. Ends (`changed` is an error) with the runner.
    pub fn readiness(&self) -> watch::Receiver<Readiness> {
        self.readiness.clone()
    }
}

/// The looks that are under way or due, one per probe.
struct Rounds {
    probes: Vec<ProbeSettings>,
    /// One per probe.
    hurry: Vec<Arc<Notify>>,
    target: Arc<Target>,
    looks: JoinSet<Reading>,
    places: HashMap<Id, usize>,
}

impl Rounds {
    fn begin(&mut self, place: usize, delay: Duration) {
        let Some((probe, hurry)) = self.probes.get(place).zip(self.hurry.get(place).cloned()) else { return };
        let (check, limit, target) = (probe.check.clone(), probe.timeout, Arc::clone(&self.target));
        let task = self.looks.spawn(async move {
            let _sooner_or_in_time = tokio::time::timeout(delay, hurry.notified()).await;
            look(&check, &target, limit).await
        });
        self.places.insert(task.id(), place);
    }

    /// The next reading and the place of its condition; none if there are no probes.
    async fn next(&mut self) -> Option<(usize, Reading)> {
        let (id, reading) = match self.looks.join_next_with_id().await? {
            Ok(done) => done,
            Err(error) => (error.id(), Reading::NotTaken(format!("the probe broke off: {error}"))),
        };
        Some((self.places.remove(&id)?, reading))
    }

    fn pause(&self, place: usize, has_started: bool) -> Duration {
        let pause = |probe: &ProbeSettings| if has_started { probe.interval } else { probe.start_interval };
        self.probes.get(place).map_or(Duration::ZERO, pause)
    }
}

async fn run(
    mut rounds: Rounds,
    mut conditions: Conditions,
    now: impl Fn() -> Duration,
    publish: watch::Sender<Readiness>,
) {
    for place in 0..rounds.probes.len() {
        rounds.begin(place, Duration::ZERO);
    }
    loop {
        let held = conditions.wake_at().map(|at| at.saturating_sub(now()));
        tokio::select! {
            next = rounds.next() => match next {
                Some((place, reading)) => {
                    conditions.feed(place, reading, now());
                    rounds.begin(place, rounds.pause(place, conditions.has_started(place)));
                }
                // Without probes nothing can change; the runner's end aborts this task.
                None => std::future::pending().await,
            },
            () = tokio::time::sleep(held.unwrap_or_default()), if held.is_some() => conditions.pass(now()),
        }
        publish.send_if_modified(|published| {
            let summary = conditions.summary();
            let differs = *published != summary;
            *published = summary;
            differs
        });
    }
}
