use handover_proto::keys::EnvKeys;
use handover_proto::txn::Op;
use handover_store::client::Origin;

use super::*;

fn keys() -> LeaseKeys {
    EnvKeys::new(&"test".parse().expect("env")).service(&"billing".parse().expect("service")).lease()
}

fn at(ms: u64) -> Boot {
    Boot::from_ns(ms * 1_000_000)
}

fn holder(turn: Revision) -> Entry {
    let value = r#"{"v":1,"state":"HELD","owner":{"instance":"00000000000000aa","agent":"app-01","host":"h","boot_id":"b",
        "version":"1.0.0"},"lease_id":119,"ttl_s":10,"era":0,"turn":4,"op":"00000000000000ff",
        "cause":{"kind":"acquire"},"at_ms":0}"#;
    entry(keys().holder(), value, turn)
}

/// Two people have raised it.
const ERA_ONE: &str = r#"{"v":1,"era":1}"#;

fn beat(turn: Revision) -> Entry {
    entry(keys().beat(), r#"{"v":1,"instance":"00000000000000aa","op":"00000000000000ff"}"#, turn)
}

fn entry(key: String, value: &str, mod_revision: Revision) -> Entry {
    Entry { key, value: value.into(), mod_revision, create_revision: 3, lease: 0 }
}

fn listing(entries: Vec<Entry>, revision: Revision) -> Listing {
    Listing { entries, revision, cluster_id: 1 }
}

fn read(reads: [Option<Entry>; 2], revision: Revision) -> (Txn, TxnReply) {
    let [holder, beat] = reads;
    let origin = Origin { cluster_id: 1, member_id: 1, raft_term: 1 };
    let reads = vec![holder, beat, None, None, None, None];
    (handover_proto::lease::read(&keys()), TxnReply { succeeded: true, revision, reads, origin })
}

fn held(turn: Revision) -> Picture {
    let mut picture = Picture::new(keys(), Belief::default());
    picture.apply_listing(&listing(vec![holder(turn), beat(turn)], turn), at(1));
    picture
}

fn gone(key: String) -> Change {
    Change { key, value: None }
}

fn stands(entry: Entry) -> Change {
    Change { key: entry.key.clone(), value: Some(entry) }
}

#[test]
fn it_is_known_only_after_a_listing() {
    let mut picture = Picture::new(keys(), Belief::default());
    let (asked, reply) = read([None, None], 4);
    picture.apply_read(&asked, &reply, 0, at(1));
    assert!(!picture.is_known(), "a read shows no candidates");
    picture.apply_listing(&listing(vec![], 4), at(2));
    assert!(picture.is_known());
}

#[test]
fn news_older_than_a_read_that_overtook_them_are_dropped() {
    let mut picture = held(10);
    let (asked, reply) = read([Some(holder(20)), Some(beat(20))], 25);
    picture.apply_read(&asked, &reply, 0, at(2));
    picture.apply_changes(12, &[gone(keys().beat())], at(3));
    picture.apply_changes(20, &[stands(holder(20)), stands(beat(20))], at(3));
    assert_eq!((picture.view().turn_revision(), picture.view().beat_revision()), (20, 20));
    picture.apply_changes(26, &[gone(keys().beat())], at(4));
    assert!(picture.view().beat.is_none(), "newer ones are not");
}

#[test]
fn a_listing_removes_what_it_does_not_show_unless_that_is_newer() {
    let mut picture = held(10);
    picture.apply_changes(30, &[stands(holder(30)), stands(beat(30))], at(2));
    picture.apply_listing(&listing(vec![], 20), at(3));
    assert_eq!(picture.view().turn_revision(), 30);
    picture.apply_listing(&listing(vec![holder(30)], 40), at(4));
    assert!(picture.view().beat.is_none());
}

#[test]
fn the_quarantine_is_counted_from_a_read_and_not_from_the_watch() {
    let mut picture = held(10);
    picture.apply_changes(12, &[gone(keys().beat())], at(5_000));
    assert_eq!((picture.beat_gone(), picture.vacant()), (None, Some(at(5_000))));
    let (asked, reply) = read([Some(holder(10)), None], 12);
    picture.apply_read(&asked, &reply, 0, at(5_100));
    assert_eq!(picture.beat_gone(), Some(at(5_100)));
    let (asked, reply) = read([Some(holder(10)), None], 15);
    picture.apply_read(&asked, &reply, 0, at(6_000));
    assert_eq!(picture.beat_gone(), Some(at(5_100)), "later reads do not begin it anew");
}

#[test]
fn a_beat_that_reappears_or_another_turn_begins_the_count_anew() {
    let mut picture = held(10);
    let (asked, reply) = read([Some(holder(10)), None], 12);
    picture.apply_read(&asked, &reply, 0, at(1_000));
    assert!(picture.beat_gone().is_some());
    picture.apply_changes(13, &[stands(holder(13)), stands(beat(13))], at(2_000));
    assert_eq!(picture.beat_gone(), None);
    let (asked, reply) = read([Some(holder(13)), None], 14);
    picture.apply_read(&asked, &reply, 0, at(3_000));
    assert_eq!(picture.beat_gone(), Some(at(3_000)));
    let (asked, reply) = read([Some(holder(15)), None], 16);
    picture.apply_read(&asked, &reply, 0, at(4_000));
    assert_eq!(picture.beat_gone(), Some(at(4_000)), "another turn, another count");
}

#[test]
fn another_cluster_is_not_taken_in_and_nobody_acts_on_it() {
    let mut picture = held(10);
    let other = Listing { cluster_id: 2, ..listing(vec![], 99) };
    picture.apply_listing(&other, at(2));
    assert_eq!(picture.view().turn_revision(), 10);
    assert!(picture.trouble().expect("trouble").contains("another cluster"));
}

#[test]
fn a_store_that_shows_less_than_the_turn_that_an_earlier_process_saw_is_believed_once_the_era_is_raised() {
    let mut picture = Picture::new(keys(), Belief::remembered(Some(1), Era(0), 12, false));
    // The copy is older than the first turn: nothing but its revision tells.
    picture.apply_listing(&listing(vec![], 3), at(0));
    for ms in [1, 1000, 2001] {
        let (asked, reply) = read([None, None], 4);
        assert!(!picture.apply_read(&asked, &reply, picture.revision(), at(ms)));
    }
    assert!(picture.trouble().is_some_and(|trouble| trouble.contains("from revision 12 to 4")));

    let (asked, mut reply) = read([None, None], 5);
    let era = keys().era();
    let place = asked.then.iter().position(|op| *op == Op::Get(era.clone())).expect("a read shows the era");
    reply.reads[place] = Some(entry(era, ERA_ONE, 5));
    assert!(picture.apply_read(&asked, &reply, picture.revision(), at(3000)) && picture.wants_listing());
    assert_eq!(picture.revision(), 5, "turns of the lost store do not compare");
    let (asked, reply) = read([Some(holder(11)), Some(beat(11))], 11);
    assert!(picture.apply_read(&asked, &reply, picture.revision(), at(3001)), "its first turn is below the lost one");
    assert_eq!(picture.trouble(), None);
}

#[test]
fn holder_and_beat_of_different_transactions_are_trouble() {
    let mut picture = held(10);
    assert_eq!(picture.trouble(), None);
    picture.apply_changes(11, &[stands(beat(11))], at(2));
    assert!(picture.trouble().expect("trouble").contains("corrupt"));
}

#[test]
fn an_unreadable_holder_is_trouble_and_an_unreadable_candidate_is_no_candidate() {
    let mut picture = held(10);
    let candidate = format!("{}00000000000000aa", keys().candidates());
    picture.apply_changes(11, &[stands(entry(candidate, "{", 11))], at(2));
    assert_eq!((picture.trouble(), picture.view().candidates.len()), (None, 0));
    picture.apply_changes(12, &[stands(entry(keys().holder(), "{", 12))], at(2));
    assert!(picture.trouble().expect("trouble").contains("holder"));
    picture.apply_changes(13, &[stands(holder(13)), stands(beat(13))], at(2));
    assert_eq!(picture.trouble(), None, "and it passes when the key is readable again");
}
