//! What the things seen mean for each rule. Pure.

use super::findings::{Finding, Findings, Rule, Verdict};
use super::seen::{Quiesce, Reply, Seen, Silence};
use crate::lease::record::AckState;

const COUNT: &str = "report `progress` in each acknowledgement: a number that grows with each unit that ended";
use Verdict::{Fail, NotCheckable, Pass};

/// One finding for each rule.
pub fn judge(seen: &Seen) -> Findings {
    Findings::new(Rule::ALL.map(|rule| one(rule, seen)).into())
}

fn one(rule: Rule, seen: &Seen) -> Finding {
    match rule {
        Rule::A1 => starts(seen),
        Rule::A2 => units(seen),
        Rule::A3 => fence(seen),
        Rule::A4 => quiesced(seen),
        Rule::A5 => starts_stopped(seen),
        Rule::A6 => forks(seen),
        Rule::A7 => Rule::A7.found(
            NotCheckable,
            "what leaves the service for other systems does not pass by the agent",
            "review it: one row in an outbox, written in the fenced transaction; sent by whoever holds; the receiver's \
             idempotency key is made from that row, never from the token or the time",
        ),
        Rule::A8 => is_final(seen),
    }
}

fn not_reached(rule: Rule, seen: &Seen) -> Finding {
    let why = seen.broke_off.as_deref().unwrap_or("the play did not come to it");
    rule.found(NotCheckable, format!("not reached: {why}"), "mend that first, then run the kit again")
}

fn progress(reply: &Reply) -> Option<u64> {
    reply.as_ref().ok().and_then(|ack| ack.progress)
}

/// Units that ended between two answers; none: not counted.
fn grown(first: &Reply, second: &Reply) -> Option<u64> {
    Some(progress(second)?.saturating_sub(progress(first)?))
}

fn starts(seen: &Seen) -> Finding {
    let rule = Rule::A1;
    if let Some(Quiesce { before, answer: Err(error), after, .. }) = &seen.quiesce {
        // One may have been under way, and ended.
        let more = grown(&Ok(before.clone()), after).unwrap_or(0);
        if more > 1 + before.in_flight {
            let what = format!("{more} units ended after QUIESCE was sent, which was not answered ({error})");
            return rule.found(Fail, what, "on any record but ACTIVE, finish the present unit and start none");
        }
    }
    let Some(Silence { first, second }) = &seen.silence else { return not_reached(rule, seen) };
    match grown(first, second) {
        Some(0) => rule.found(Pass, "after silence no unit ended that was started after the soft deadline", ""),
        Some(more) => rule.found(
            Fail,
            format!("{more} units ended in {:?} after soft deadline + c_unit, in silence", seen.settle),
            "compare CLOCK_BOOTTIME with the soft deadline immediately before each unit, not only when a record comes",
        ),
        None => rule.found(NotCheckable, "its units are not counted", COUNT),
    }
}

fn units(seen: &Seen) -> Finding {
    let rule = Rule::A2;
    let Some(Silence { first, second }) = &seen.silence else { return not_reached(rule, seen) };
    let change =
        "declare in `c_unit_ms` what the longest unit takes, and let longer ones check the hard deadline inside";
    let late = [first, second].into_iter().find_map(|reply| match reply {
        Ok(ack) if ack.in_flight > 0 => Some(format!("{} units in flight after the hard deadline", ack.in_flight)),
        Ok(_) => None,
        Err(error) => Some(format!("no answer after the hard deadline: a unit seems to hang ({error})")),
    });
    match (late, seen.c_unit) {
        (Some(what), _) => rule.found(Fail, what, change),
        (None, None) => rule.found(NotCheckable, "it declares no longest unit", "report `c_unit_ms`"),
        (None, Some(c_unit)) => {
            rule.found(Pass, format!("nothing in flight at the hard deadline; c_unit {c_unit:?}"), "")
        }
    }
}

fn fence(seen: &Seen) -> Finding {
    let rule = Rule::A3;
    let install = "install each token before the first unit, and refuse ACTIVE (FAILED) if the stored token is higher";
    if let Some(Ok(ack)) = &seen.older
        && ack.state == AckState::Started
    {
        return rule.found(Fail, "it took up work under a token below one that it had worked under", install);
    }
    let wrong = seen.stored.iter().find(|(token, stored)| stored.as_ref().is_some_and(|s| *s != token.to_string()));
    if let Some((token, stored)) = wrong {
        let stored = stored.as_deref().unwrap_or("none");
        return rule.found(Fail, format!("STARTED under token {token} with {stored} stored"), install);
    }
    let Some(fence) = &seen.fence else {
        let refused = seen.older.is_some();
        let what = if refused { "it refuses a token below the installed one" } else { "the play did not come to it" };
        return rule.found(
            NotCheckable,
            format!("{what}; whether each write checks the fence cannot be told from outside"),
            "give --sql (and --install-sql, if the fence is not Handover's): the kit then installs a higher token beneath it",
        );
    };
    if let Err(error) = &fence.installed {
        return rule.found(
            NotCheckable,
            format!("the kit's own install failed: {error}"),
            "mend --sql or --install-sql",
        );
    }
    match grown(&fence.first, &fence.second) {
        Some(0) => rule.found(Pass, "once a higher token was installed beneath it, no more units ended", ""),
        Some(more) => rule.found(
            Fail,
            format!("{more} units ended after a higher token was installed beneath it"),
            "begin every transaction of the scheduler with handover.fence_check (docs/postgresql.md), and stop for good \
             when it says FENCED",
        ),
        None => rule.found(NotCheckable, "its units are not counted", COUNT),
    }
}

fn quiesced(seen: &Seen) -> Finding {
    let rule = Rule::A4;
    let Some(Quiesce { before, answer, after, installed }) = &seen.quiesce else { return not_reached(rule, seen) };
    let wait =
        "answer QUIESCE when the present unit has ended, with timers disarmed and transactions closed, not before";
    let ack = match answer {
        Ok(ack) if ack.state == AckState::Quiesced => ack,
        Ok(ack) => {
            let what = format!("QUIESCE was answered by {:?}: {}", ack.state, ack.detail);
            return rule.found(Fail, what, wait);
        }
        Err(error) => {
            let what =
                format!("QUIESCE was not answered by the hard deadline ({error}); the agent would have killed it");
            return rule.found(Fail, what, wait);
        }
    };
    if ack.in_flight > 0 {
        return rule.found(Fail, format!("QUIESCED with {} units in flight", ack.in_flight), wait);
    }
    if let Some(Err(error)) = installed {
        let what = format!("after QUIESCED the next token could not be installed at once: {error}");
        return rule.found(Fail, what, wait);
    }
    // What a false QUIESCED counts may be false as well: the answer before it is the least that it had done.
    let floor = before.progress.max(ack.progress);
    match (floor, progress(after)) {
        (Some(floor), Some(after)) if after > floor => {
            let more = after - floor;
            let what = format!("{more} units ended in {:?} after it had said QUIESCED", seen.settle);
            rule.found(Fail, what, wait)
        }
        (Some(_), Some(_)) => rule.found(Pass, format!("no unit ended in {:?} after QUIESCED", seen.settle), ""),
        (_, None) | (None, _) => match after {
            Ok(_) => rule.found(NotCheckable, "it said QUIESCED; its units are not counted", COUNT),
            Err(error) => rule.found(NotCheckable, format!("QUIESCED, and then no answer: {error}"), COUNT),
        },
    }
}

fn starts_stopped(seen: &Seen) -> Finding {
    let rule = Rule::A5;
    let Some((first, second)) = &seen.greeting else { return not_reached(rule, seen) };
    let change = "begin as if STOPPED had been told: no unit, no timer, until the first ACTIVE";
    let ack = match first {
        Ok(ack) => ack,
        Err(error) => return rule.found(Fail, format!("STOPPED was not answered: {error}"), change),
    };
    if ack.state != AckState::Quiesced || ack.in_flight > 0 {
        let what = format!("before any ACTIVE it answered {:?} with {} units in flight", ack.state, ack.in_flight);
        return rule.found(Fail, what, change);
    }
    match (ack.progress, grown(first, second)) {
        (Some(0), Some(0)) => rule.found(Pass, "no unit ended before the first ACTIVE", ""),
        (_, Some(more)) if more > 0 => rule.found(Fail, format!("{more} units ended before the first ACTIVE"), change),
        (Some(done), _) => rule.found(
            NotCheckable,
            format!("it rests, but has ended {done} units since its start: it was not fresh"),
            "start the service anew right before the kit",
        ),
        (None, _) => rule.found(NotCheckable, "it says that it rests; its units are not counted", COUNT),
    }
}

fn forks(seen: &Seen) -> Finding {
    let rule = Rule::A6;
    match &seen.leaked {
        None => not_reached(rule, seen),
        Some(Err(error)) => rule.found(
            NotCheckable,
            format!("its processes cannot be seen: {error}"),
            "run the kit on the service's host, as its user or root, or give --pid",
        ),
        Some(Ok(left)) if left.is_empty() => {
            rule.found(Pass, "no process that was born in the turn outlived QUIESCED", "")
        }
        Some(Ok(left)) => rule.found(
            Fail,
            format!("born in the turn and alive after QUIESCED: {}", left.join(", ")),
            "wait for the children of a unit before it ends; after QUIESCED none may be left",
        ),
    }
}

fn is_final(seen: &Seen) -> Finding {
    let rule = Rule::A8;
    let Some(stale) = &seen.stale else { return not_reached(rule, seen) };
    let change = "keep the highest `seq` that you have seen and drop records below it; after QUIESCED or FENCED only an \
                  ACTIVE with a higher one begins anew";
    let resumed = progress(&stale.after).zip(stale.before).map(|(after, before)| after.saturating_sub(before));
    match (&stale.answer, resumed) {
        (Ok(ack), _) if ack.state == AckState::Started => {
            rule.found(Fail, "an ACTIVE with a number below that of the QUIESCE was answered by STARTED", change)
        }
        (_, Some(more)) if more > 0 => {
            rule.found(Fail, format!("{more} units ended after an ACTIVE from before the QUIESCE"), change)
        }
        (_, Some(_)) => rule.found(Pass, "an ACTIVE from before the QUIESCE changed nothing", ""),
        (_, None) => rule.found(NotCheckable, "it did not say STARTED; its units are not counted", COUNT),
    }
}

#[cfg(test)]
mod tests;
