//! The scheduler lease: dark, frozen and forgotten, without an heir.

use handover_proto::wire::Finding;

use super::{Patient, age, fail, ok, warn};

const CHECK: &str = "lease";
/// A lost holder is followed within 11 s plus what the heir needs to begin.
const DARK_MS: u64 = 30_000;

pub(super) fn findings(of: &Patient<'_>) -> Vec<Finding> {
    let Some(lease) = &of.status.lease else { return Vec::new() };
    let mut all = Vec::new();
    all.extend(lease.freeze.as_ref().map(|freeze| {
        let since = age(freeze.at_ms, of.at_ms);
        let sentence = format!(
            "take-over has been frozen for {since}, by {} ({}): nobody would follow a holder that dies",
            freeze.by, freeze.because
        );
        warn(CHECK, sentence, "handover lease unfreeze --because '...', if that is over")
    }));
    if lease.dark_since_ms > 0 {
        let dark = age(lease.dark_since_ms, of.at_ms);
        let sentence = format!("nobody has worked under it for {dark}: {}", lease.dark_because);
        let fix = "handover lease show names who could; docs/operating.md has the ways out";
        let soon = of.at_ms.saturating_sub(lease.dark_since_ms) < DARK_MS;
        all.push(if soon { warn(CHECK, sentence, fix) } else { fail(CHECK, sentence, fix) });
        return all;
    }
    match lease.state.as_str() {
        "held" => {
            all.push(ok(CHECK, format!("{} holds it, {}", lease.agent, lease.guard)));
            let hosts = of.status.fleet.iter().map(|row| &row.agent).collect::<std::collections::BTreeSet<_>>().len();
            if lease.candidates.is_empty() && hosts > 1 {
                let fix = "handover fleet: another host must be ready, with an instance that takes part";
                all.push(warn(CHECK, "nobody could take it if its holder died", fix));
            }
        }
        "never held" => {}
        other => all.push(ok(CHECK, format!("it is {other}"))),
    }
    all
}
