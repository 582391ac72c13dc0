//! Enough file descriptors for what the limits allow.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use super::settings::Limits;

/// Descriptors beside connections: standard streams, listener, control sockets, the runtime's own, files being saved.
const OTHERS: u64 = 64;

/// What the limits need at their fullest: two descriptors per client, whose connection may be a tunnel, and one per request in
/// flight to its upstream; idle ones to upstreams are among the latter as a rule.
fn needed(limits: &Limits) -> u64 {
    2 * limits.connections as u64 + limits.in_flight + OTHERS
}

/// The soft limit to ask for: what is needed, as far as the hard limit goes, and never less than there is.
fn wanted(limits: &Limits, now: &Rlimit) -> Option<u64> {
    let soft = now.current?;
    let reachable = now.maximum.map_or(needed(limits), |hard| hard.min(needed(limits)));
    (reachable > soft).then_some(reachable)
}

/// Raises this process's soft limit of open files if the limits need more than it allows. If the hard limit is in the way it
/// warns: the gate works until then, and after that new clients wait in the kernel's queue.
pub(super) fn allow_for(limits: &Limits) {
    let now = getrlimit(Resource::Nofile);
    if let Some(soft) = wanted(limits, &now)
        && let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: Some(soft), maximum: now.maximum })
    {
        tracing::warn!(%error, soft, "cannot raise the limit of open files");
    }
    let needed = needed(limits);
    if let Some(soft) = getrlimit(Resource::Nofile).current.filter(|soft| *soft < needed) {
        tracing::warn!(
            soft,
            needed,
            connections = limits.connections,
            in_flight = limits.in_flight,
            "the limit of open files is below what gate limits need: raise LimitNOFILE or lower the limits"
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits() -> Limits {
        Limits { connections: 4000, in_flight: 2000, ..Limits::default() }
    }

    #[test]
    fn the_soft_limit_is_raised_to_what_is_needed_and_never_above_the_hard_one_or_down() {
        let with = |current, maximum| wanted(&limits(), &Rlimit { current, maximum });
        assert_eq!(with(Some(1024), Some(1_000_000)), Some(10_064));
        assert_eq!(with(Some(1024), None), Some(10_064));
        assert_eq!(with(Some(1024), Some(4096)), Some(4096));
        assert_eq!(with(Some(16_384), Some(1_000_000)), None);
        assert_eq!(with(None, None), None, "there is no limit");
    }
}
