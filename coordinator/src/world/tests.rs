use std::collections::BTreeSet;

use super::*;
use handover_proto::ids::RolloutId;
use handover_store::client::{Change, StoreError};

fn entry(key: &str, value: &str, revision: Revision) -> Entry {
    Entry { key: key.into(), value: value.into(), mod_revision: revision, create_revision: revision, lease: 0 }
}

fn wrote(world: &mut World, entry: Entry) {
    let revision = entry.mod_revision;
    world.wrote(vec![entry], &[], revision);
}

fn world() -> World {
    World::new(&"demo".parse().expect("env"))
}

fn changes(revision: Revision, key: &str, value: Option<&str>) -> WatchItem {
    let value = value.map(|value| entry(key, value, revision));
    WatchItem::Changes { revision, changes: vec![Change { key: key.into(), value }] }
}

#[test]
fn an_own_write_is_not_undone_by_older_news() {
    let mut world = world();
    wrote(&mut world, entry("/k", "new", 7));
    world.follow(changes(5, "/k", Some("old")), 0);
    world.follow(changes(6, "/k", None), 0);
    assert_eq!(world.entry("/k").map(|entry| entry.value.clone()), Some(b"new".to_vec()));
}

#[test]
fn a_late_own_write_does_not_bring_back_what_is_gone() {
    let mut world = world();
    world.follow(changes(6, "/k", Some("old")), 0);
    world.follow(changes(8, "/k", None), 0);
    wrote(&mut world, entry("/k", "late", 7));
    assert_eq!(world.entry("/k"), None);
    wrote(&mut world, entry("/k", "again", 9));
    assert!(world.entry("/k").is_some());
}

#[test]
fn a_reset_forgets_what_was_known() {
    let mut world = world();
    wrote(&mut world, entry("/k", "x", 7));
    world.follow(WatchItem::Reset(Listing { entries: vec![], revision: 9, cluster_id: 1 }), 0);
    assert!(world.entry("/k").is_none() && world.listed);
}

#[test]
fn a_cut_is_remembered_since_its_first_moment_and_ends_with_news() {
    let mut world = world();
    let cut = || {
        WatchItem::Interrupted(StoreError::Unreachable {
            operation: "watching".into(),
            endpoints: "x".into(),
            reason: "refused".into(),
        })
    };
    world.follow(cut(), 100);
    world.follow(cut(), 200);
    assert_eq!(world.cut_off.as_ref().map(|(_, since)| *since), Some(100));
    world.follow(WatchItem::Changes { revision: 1, changes: vec![] }, 300);
    assert_eq!(world.cut_off, None);
}

#[test]
fn services_are_known_by_their_keys_and_rollouts_are_none() {
    let mut world = world();
    let billing: Service = "billing".parse().expect("name");
    let agent: AgentId = "app-01".parse().expect("name");
    let rollout = RolloutId::random();
    let key = world.keys.leader();
    wrote(&mut world, entry(&key, "{}", 1));
    let key = world.keys.rollout(&rollout).event(1);
    wrote(&mut world, entry(&key, "{}", 2));
    let key = world.keys.service(&billing).agent(&agent);
    wrote(&mut world, entry(&key, "{}", 3));
    assert_eq!(world.services(), BTreeSet::from([billing]));
    assert_eq!(world.rollouts(), vec![rollout]);
}

#[test]
fn a_garbled_value_is_an_error_that_names_its_key() {
    let mut world = world();
    let billing: Service = "billing".parse().expect("name");
    let key = world.keys.service(&billing).agent(&"app-01".parse().expect("name"));
    wrote(&mut world, entry(&key, "not json", 3));
    let error = world.registrations(&billing).expect_err("garbled");
    assert!(error.to_string().contains(&key), "{error}");
}

#[test]
fn rollouts_are_ordered_by_their_first_record() {
    let mut world = world();
    let (early, late): (RolloutId, RolloutId) = ("ffffff".parse().expect("id"), "000000".parse().expect("id"));
    let key = world.keys.rollout(&early).event(1);
    wrote(&mut world, entry(&key, "{}", 5));
    let key = world.keys.rollout(&late).event(1);
    wrote(&mut world, entry(&key, "{}", 9));
    let key = world.keys.rollout(&early).event(2);
    wrote(&mut world, entry(&key, "{}", 12));
    assert_eq!(world.rollouts(), vec![early, late]);
}

#[test]
fn turns_stand_in_the_order_in_which_they_were_though_their_count_began_anew() {
    use handover_proto::lease::{Held, Holder, HolderState, LeaseCause, Owner, Seen};
    use handover_proto::numbers::{Era, Term};

    let service = "billing".parse().expect("a service");
    let mut world = world();
    let owner = Owner {
        instance: "00000000000000aa".parse().expect("an id"),
        agent: "app-01".parse().expect("an agent"),
        host: "app-01".to_owned(),
        boot_id: "boot".to_owned(),
        version: "1.0.0".parse().expect("a version"),
    };
    // The holder key was deleted after turn 500; and a restore took revisions back.
    for (turn, revision, era) in [(500, 70, 0), (1, 80, 0), (2, 60, 1)] {
        let value = Holder {
            v: 1,
            state: HolderState::Held(Held { owner: owner.clone(), lease_id: 7, ttl_s: 10 }),
            era: Era(era),
            turn,
            op: "00000000000000bb".parse().expect("an op"),
            cause: LeaseCause::Acquire,
            at_ms: 0,
            stopped_at_ms: None,
        };
        let holder = Seen { value, mod_revision: revision, create_revision: revision, lease: 0 };
        let record = crate::core::turns::TurnRecord::of(&holder, &[], Term::new(Era(0), 1).expect("a term"));
        let key = world.keys.service(&service).turn(turn);
        let text = String::from_utf8(handover_proto::stored::encode(&record).expect("json")).expect("text");
        wrote(&mut world, entry(&key, &text, 100 + revision));
    }
    let turns: Vec<u64> = world.turns(&service).expect("readable").iter().map(|turn| turn.turn).collect();
    assert_eq!(turns, [500, 1, 2], "the newest one is last");
}

#[test]
fn an_order_that_nobody_can_read_stops_no_other_and_its_number_is_not_given_again() {
    let mut world = world();
    let service = "billing".parse().expect("a service");
    let keys = world.keys.service(&service);
    let order = r#"{"v":1,"number":3,"op":"00000000000000cc","what":{"kind":"freeze"},"by":"ann","because":"","at_ms":1,
        "phase":{"phase":"due","due_ms":1,"late_ms":1},"asks":0,"lines":[]}"#;
    assert_eq!(world.next_order(&service), 1);
    wrote(&mut world, entry(&keys.order(3), order, 7));
    wrote(&mut world, entry(&keys.order(5), &order.replace("freeze", "levitate"), 8));
    assert_eq!(world.orders(&service).iter().map(|order| order.number).collect::<Vec<_>>(), [3]);
    let unreadable = world.unreadable_orders(&service);
    assert!(matches!(&unreadable[..], [(5, error)] if error.to_string().contains(&keys.order(5))), "{unreadable:?}");
    assert_eq!(world.next_order(&service), 6);
}

#[test]
fn a_staging_that_nobody_can_read_stops_nothing_else() {
    let mut world = world();
    let service = "billing".parse().expect("a service");
    let key = world.keys.service(&service).staging();
    let request = r#"{"v":1,"term":7,"cause":{"rollout":null,"step":3,"plan_hash":""},"version":"1.5.0","hosts":[]}"#;
    wrote(&mut world, entry(&key, request, 7));
    assert_eq!(world.fleet(&service, 1).expect("a fleet").staging.expect("asked").serial, Serial(7));
    let later = request.replace("\"v\":1", "\"v\":2");
    for (unreadable, revision) in [("not json", 8), (r#"{"v":1}"#, 9), (later.as_str(), 10)] {
        wrote(&mut world, entry(&key, unreadable, revision));
        let error = world.staging(&service).expect_err("unreadable");
        assert!(error.to_string().contains(&key), "{error}");
        assert_eq!(world.fleet(&service, 1).expect("a fleet").staging, None, "{unreadable}");
    }
}
