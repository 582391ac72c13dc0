//! How long a kill takes on this host, from the signal to the empty cgroup: tried with units of our own (`c_kill`,
//! `SAFETY.md` §1.8).

use std::io;
use std::time::{Duration, Instant};

use handover_proto::ids::InstanceId;
use tokio::time::sleep;

use super::bus::{Bus, BusError};
use super::cgroup::Cgroup;
use crate::driver::{DriverError, Owner};

/// Of so many the longest is as near to the 99th percentile as can be had at a start.
const TRIES: usize = 20;
/// A unit that has not come up by then will not.
const UP: Duration = Duration::from_secs(5);
/// A kill that took so long is too slow for any lease.
const DOWN: Duration = Duration::from_secs(5);
/// Fine beside a second of `c_kill`.
const LOOK: Duration = Duration::from_millis(1);

/// The longest of so many tries.
pub(super) async fn kill_time(bus: &Bus, owner: &Owner) -> Result<Duration, DriverError> {
    let mut longest = Duration::ZERO;
    for _ in 0..TRIES {
        longest = longest.max(once(bus, owner).await?);
    }
    Ok(longest)
}

/// The name of a unit with two processes that has been started. Root makes one; whoever is not may not, since a unit of one's
/// own could do anything, and starts one that the operator has installed.
async fn started(bus: &Bus, owner: &Owner) -> Result<String, BusError> {
    let id = InstanceId::random();
    let made = format!("handover-trial-{}-{id}.service", owner.service);
    match bus.start_trial(&made).await {
        Ok(()) => Ok(made),
        Err(error) if error.is_denial() => {
            let installed = format!("handover-trial@{}-{id}.service", owner.service);
            bus.start(&installed).await.map(|_| installed)
        }
        Err(error) => Err(error),
    }
}

async fn once(bus: &Bus, owner: &Owner) -> Result<Duration, DriverError> {
    let unit = started(bus, owner).await?;
    let path = bus.load(&unit).await?;
    let late =
        |what: &str| DriverError::system(format!("try how long a kill takes: {unit} {what}"))(io::Error::other("late"));
    let began = Instant::now();
    let cgroup = loop {
        let seen = bus.look(&unit, &path).await?;
        let cgroup = Some(seen.cgroup).filter(|path| !path.is_empty()).map(|path| Cgroup::of(&path));
        if let Some(cgroup) = cgroup.filter(|cgroup| cgroup.processes().is_ok_and(|pids| pids.len() >= 2)) {
            break cgroup;
        }
        if began.elapsed() >= UP {
            return Err(late("does not come up"));
        }
        sleep(LOOK).await;
    };
    let killed = Instant::now();
    let operation = || DriverError::system::<io::Error>(format!("kill {unit}, to try how long that takes"));
    cgroup.kill().map_err(operation())?;
    while !cgroup.is_empty().map_err(operation())? {
        if killed.elapsed() >= DOWN {
            return Err(late("does not end"));
        }
        sleep(LOOK).await;
    }
    Ok(killed.elapsed())
}
