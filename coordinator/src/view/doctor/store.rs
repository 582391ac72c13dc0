//! The store's health.

use handover_proto::wire::Finding;

use super::{age, fail, ok, warn};
use crate::core::store_health::{self, Grade, Member};
use crate::world::World;

const CHECK: &str = "store";

pub(super) fn findings(world: &World, at_ms: u64) -> Vec<Finding> {
    let mut all = Vec::new();
    if let Some((reason, since_ms)) = &world.cut_off {
        let sentence = format!("the coordinator has not followed the store for {}: {reason}", age(*since_ms, at_ms));
        all.push(fail(CHECK, sentence, "start its members, or mend the way to them; a majority must answer"));
    }
    let (silent, answering): (Vec<_>, Vec<_>) = world.members.iter().partition(|member| member.answer.is_err());
    let majority = answering.len() * 2 > world.members.len();
    all.extend(silent.into_iter().map(|member| one_silent(member, majority)));
    all.extend(store_health::alarms(&world.members).into_iter().map(|alarm| {
        let fix = "etcdctl alarm list; compact and defragment, then etcdctl alarm disarm";
        fail(CHECK, format!("a member raises an alarm: {alarm}"), fix)
    }));
    if answering.is_empty() {
        return all;
    }
    let sentence = store_health::sentence(&world.members, world.guard());
    let upgrade = "upgrade etcd to 3.4.42, 3.5.28, 3.6.9 or later, one member after the other";
    let embedded = answering.iter().any(|member| member.answer.as_ref().is_ok_and(|said| said.embedded));
    all.push(match store_health::grade(answering) {
        Grade::Good if embedded || world.guard() => ok(CHECK, sentence),
        Grade::Good => warn(CHECK, sentence, "handover store setup SERVICE --apply (docs/etcd.md)"),
        Grade::Old | Grade::Unsafe => warn(CHECK, sentence, upgrade),
    });
    all
}

fn one_silent(member: &Member, majority: bool) -> Finding {
    let reason = member.answer.as_ref().err().cloned().unwrap_or_default();
    let sentence = format!("member {} does not answer: {reason}", member.endpoint);
    if majority {
        warn(CHECK, sentence, "start it: one more that fails may be one too many")
    } else {
        fail(
            CHECK,
            sentence,
            "start it: without a majority the scheduler stops and nothing is ordered; traffic goes on",
        )
    }
}
