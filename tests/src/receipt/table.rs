//! The receipt for people.

use std::fmt;
use std::time::Duration;

use crate::load::outcome::Outcome;
use crate::load::tally::Counts;
use crate::receipt::Receipt;
use crate::span;

/// A span in milliseconds, as wide as the columns are.
struct Ms(Duration);

impl fmt::Display for Ms {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ms = span::ms(self.0);
        f.pad(&if ms < 100.0 { format!("{ms:.1} ms") } else { format!("{ms:.0} ms") })
    }
}

impl fmt::Display for Receipt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let load = &self.load;
        let rate = load.rate_per_s;
        writeln!(
            f,
            "Receipt   run {}   {:.1} s at {rate:.0} requests a second\n",
            load.run,
            load.lasted.as_secs_f64()
        )?;
        self.phases(f)?;
        self.requests(f)?;
        self.scheduler(f)?;
        if self.verdict.passed {
            return writeln!(f, "Verdict   passed");
        }
        writeln!(f, "Verdict   FAILED")?;
        for broken in &self.verdict.broken {
            writeln!(f, "          {:16} {}", broken.rule, broken.found)?;
        }
        Ok(())
    }
}

fn phase(f: &mut fmt::Formatter<'_>, name: &str, counts: &Counts) -> fmt::Result {
    let [p50, p99] = [0.5, 0.99].map(|q| Ms(counts.latency.quantile(q)));
    let (ok, lost, ours) = (counts.of(Outcome::Ok), counts.lost(), counts.ours() - counts.lost());
    let fault = counts.of(Outcome::ServiceFault);
    let (slowest, gap) = (Ms(counts.slowest), Ms(counts.longest_gap));
    writeln!(
        f,
        "{name:14} {:>8} {ok:>8} {lost:>6} {ours:>6} {fault:>6} {p50:>9} {p99:>9} {slowest:>9} {gap:>9}",
        counts.sent
    )
}

impl Receipt {
    fn phases(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "PHASE              SENT       OK   LOST ERRORS FAULTS       P50       P99   SLOWEST   LONGEST GAP"
        )?;
        for part in &self.load.phases {
            phase(f, &part.name, &part.counts)?;
        }
        phase(f, "all", &self.load.total)?;
        let late = self.load.latest_departure;
        if late > Duration::from_millis(20) {
            writeln!(f, "(this machine was busy: a request left {} late, which is in its latency)", Ms(late))?;
        }
        writeln!(f)
    }

    fn requests(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (total, writes) = (&self.load.total, &self.writes);
        let answers: Vec<_> = total.versions.iter().map(|(version, count)| format!("{version}: {count}")).collect();
        writeln!(f, "Answers   {}", if answers.is_empty() { "none".to_owned() } else { answers.join("   ") })?;
        let lost = [Outcome::Refused, Outcome::Reset, Outcome::Timeout].map(|outcome| total.of(outcome));
        let errors = [Outcome::GateError, Outcome::ServiceError, Outcome::Unexpected].map(|outcome| total.of(outcome));
        writeln!(f, "Lost      refused {}   reset {}   timed out {}", lost[0], lost[1], lost[2])?;
        writeln!(f, "Errors    gate {}   service {}   unexpected {}", errors[0], errors[1], errors[2])?;
        writeln!(
            f,
            "Writes    acknowledged {}   missing {}   doubled {}   altered {}   unacknowledged {} (written {})",
            writes.acknowledged,
            writes.missing_count,
            writes.doubled,
            writes.altered,
            writes.unacknowledged_written + writes.unacknowledged_absent,
            writes.unacknowledged_written,
        )?;
        for failure in self.load.failures.iter().filter(|failure| failure.outcome.is_ours()).take(10) {
            let (at, phase, detail) = (failure.at.as_secs_f64(), &failure.phase, &failure.detail);
            let (kind, gate, outcome) = (failure.kind, failure.gate, failure.outcome);
            writeln!(f, "          at {at:.3} s, {phase}, gate {gate}, {kind:?}: {outcome:?}, {detail}")?;
        }
        Ok(())
    }

    fn scheduler(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (ticks, holders, fence) = (&self.ticks, &self.holders, &self.fence);
        let by: Vec<_> = ticks.by_version.iter().map(|(version, count)| format!("{version}: {count}")).collect();
        writeln!(
            f,
            "Ticks     charged {} of {}   doubled {}   skipped {}   owed {}   late {} (latest by {})   {}",
            ticks.charged,
            ticks.last + ticks.owed,
            ticks.doubled,
            ticks.holes,
            ticks.owed,
            ticks.late,
            Ms(ticks.latest_by),
            by.join("   "),
        )?;
        writeln!(
            f,
            "Lease     turns {}   two at once {}   nobody: longest {}, in all {}",
            holders.turns.len(),
            Ms(holders.overlapped),
            Ms(holders.longest_dark),
            Ms(holders.total_dark),
        )?;
        for turn in &holders.turns {
            let kind = if turn.planned { "handed over" } else { "taken over" };
            let first = turn.to_first_unit.map_or("never".to_owned(), |span| Ms(span).to_string());
            let (from, to, dark) = (turn.from, turn.to, Ms(turn.dark));
            writeln!(f, "          {kind} from {from} to {to}: dark {dark}, first unit after {first}")?;
        }
        let (installs, charges, violations) = (fence.installs, fence.charges, fence.violations.len());
        writeln!(f, "Fence     installs {installs}   commits checked {charges}   violations {violations}\n")
    }
}
