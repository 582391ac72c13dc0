//! The tick: a thread that looks at the clocks every 50 ms while this host holds or could take the lease, and wakes the
//! keeper if something is suspicious.
//!
//! The keeper looks too, each time before it decides or takes in an answer: what arrived before a pause is then never
//! taken for news from after it, whichever of the two threads runs first. The thread is there for the time in between.

use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use nix::time::{ClockId, clock_gettime};
use tokio::sync::Notify;

use super::clock::{ClockError, boot_now, identity};
use super::copied;
use super::deadline::Boot;
use super::suspect::{Reading, Suspicion, TICK, Vigil};

/// Ahead of ordinary processes, so that a busy host is not taken for one that stood still.
const NICE: i32 = -10;
/// Readings that took longer than this say little about each other: the clocks are read again.
const AT_ONCE: Duration = Duration::from_millis(5);

/// Looks at the clocks. Dropping it ends the thread.
#[derive(Debug)]
pub(super) struct Ticker {
    shared: Arc<Shared>,
    watching: bool,
    orders: Sender<bool>,
}

#[derive(Debug, Default)]
struct Shared {
    found: Notify,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    vigil: Vigil,
    boot_id: String,
    /// What the keeper has not been told yet, and when it was found.
    pending: Option<(Suspicion, Boot)>,
}

impl Ticker {
    /// Starts the thread, which rests until it is told to watch.
    ///
    /// # Errors
    /// When there is no such thread.
    pub(super) fn start(boot_id: &str) -> std::io::Result<Self> {
        let shared = Arc::new(Shared::default());
        shared.lock().boot_id = boot_id.to_owned();
        let (orders, told) = channel();
        let theirs = Arc::clone(&shared);
        std::thread::Builder::new().name("lease-tick".to_owned()).spawn(move || tick(&theirs, &told))?;
        let (listener, found) = (Arc::downgrade(&shared), Arc::downgrade(&shared));
        let heard = move || found.upgrade().into_iter().for_each(|shared| shared.copied());
        if let Err(error) = copied::listen(move || listener.strong_count() > 0, heard) {
            tracing::info!(%error, "the kernel does not tell whether this virtual machine is copied");
        }
        Ok(Self { shared, watching: false, orders })
    }

    /// Whether to watch from now on.
    pub(super) fn watch(&mut self, watching: bool) {
        if self.watching == watching {
            return;
        }
        self.watching = watching;
        self.shared.lock().vigil.watch(watching);
        // The thread ends only with us.
        let _always_there = self.orders.send(watching);
    }

    /// Looks at once. Returns what is suspicious since the last time that this was asked, and when it was found.
    ///
    /// # Errors
    /// If a clock cannot be read.
    pub(super) fn look(&self) -> Result<Option<(Suspicion, Boot)>, ClockError> {
        if self.watching {
            self.shared.look()?;
        }
        Ok(self.shared.lock().pending.take())
    }

    /// Returns when the thread has found something.
    pub(super) async fn found(&self) {
        self.shared.found.notified().await;
    }
}

impl Shared {
    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The kernel says that this host is, or was, copied: worth knowing whether or not anybody watches the clocks.
    fn copied(&self) {
        if let Ok(now) = boot_now() {
            self.lock().pending = Some((Suspicion::Copied, now));
            self.found.notify_one();
        }
    }

    /// Whether anything is suspicious.
    fn look(&self) -> Result<bool, ClockError> {
        let mut state = self.lock();
        // Read under the lock: two threads' readings come in order.
        let now = read()?;
        let Some(mut suspicion) = state.vigil.look(now) else { return Ok(false) };
        // Only a host that was away can have become another one.
        if identity().is_ok_and(|identity| identity.boot_id != state.boot_id) {
            suspicion = Suspicion::Copied;
        }
        // A copy is never forgotten over a stall.
        let copied = matches!(state.pending, Some((Suspicion::Copied, _)));
        state.pending = Some((if copied { Suspicion::Copied } else { suspicion }, now.boot));
        Ok(true)
    }
}

fn tick(shared: &Shared, told: &Receiver<bool>) {
    raise();
    let mut watching = false;
    loop {
        let order =
            if watching { told.recv_timeout(TICK) } else { told.recv().map_err(|_| RecvTimeoutError::Disconnected) };
        match order {
            Ok(order) => watching = order,
            Err(RecvTimeoutError::Disconnected) => return,
            Err(RecvTimeoutError::Timeout) => match shared.look() {
                Ok(true) => shared.found.notify_one(),
                Ok(false) => {}
                // The keeper reads the same clocks, and ends with the same error.
                Err(error) => tracing::error!(%error, "the tick thread cannot look at the clocks"),
            },
        }
    }
}

/// Raises the priority of the thread that calls it. Without the right to (CAP_SYS_NICE, or `LimitNICE=`) it stays as it is.
pub(super) fn raise() {
    if let Err(error) = rustix::process::setpriority_process(Some(rustix::thread::gettid()), NICE) {
        tracing::debug!(%error, "the lease's threads have no higher priority");
    }
}

fn read() -> Result<Reading, ClockError> {
    let ns = |clock| {
        let time = clock_gettime(clock).map_err(ClockError::BootTime)?;
        Ok::<_, ClockError>(u64::try_from(Duration::from(time).as_nanos()).unwrap_or(u64::MAX))
    };
    for _ in 0..3 {
        let boot = boot_now()?;
        let reading = Reading { boot, awake_ns: ns(ClockId::CLOCK_MONOTONIC)?, wall_ns: ns(ClockId::CLOCK_REALTIME)? };
        if boot_now()?.since(boot) < AT_ONCE {
            return Ok(reading);
        }
    }
    let boot = boot_now()?;
    Ok(Reading { boot, awake_ns: ns(ClockId::CLOCK_MONOTONIC)?, wall_ns: ns(ClockId::CLOCK_REALTIME)? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_that_nobody_tells_to_watch_finds_nothing() {
        let mut ticker = Ticker::start("another boot").expect("a thread");
        assert_eq!(ticker.look().expect("clocks"), None);
        ticker.watch(true);
        ticker.watch(true);
        assert_eq!(ticker.look().expect("clocks"), None, "the first look compares with nothing");
    }

    #[test]
    fn a_copy_is_told_though_nobody_watches_and_though_a_stall_follows() {
        let mut ticker = Ticker::start(&identity().expect("an identity").boot_id).expect("a thread");
        ticker.watch(true);
        ticker.shared.copied();
        ticker.shared.lock().vigil.look(Reading { boot: Boot::default(), awake_ns: 0, wall_ns: 0 });
        assert!(matches!(ticker.look().expect("clocks"), Some((Suspicion::Copied, _))));
    }

    #[test]
    fn what_was_found_is_told_once_and_a_host_with_another_boot_id_is_a_copy() {
        let mut ticker = Ticker::start("another boot").expect("a thread");
        ticker.watch(true);
        // As if the last look had been a minute ago.
        let past = Reading { boot: Boot::default(), awake_ns: 0, wall_ns: 0 };
        ticker.shared.lock().vigil.look(past);
        let limit = std::time::Instant::now() + Duration::from_secs(10);
        let mut found = None;
        while found.is_none() {
            assert!(std::time::Instant::now() < limit, "nothing was found");
            found = ticker.look().expect("clocks");
        }
        assert!(matches!(found, Some((Suspicion::Copied, at)) if at > Boot::default()), "{found:?}");
    }
}
