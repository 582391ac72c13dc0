use handover_proto::keys::EnvKeys;
use handover_store::client::Origin;

use super::*;

const LEASE: LeaseId = 0x77;
const TURN: Revision = 40;

fn keys() -> LeaseKeys {
    EnvKeys::new(&"test".parse().expect("env")).service(&"billing".parse().expect("service")).lease()
}

fn at(ms: u64) -> Boot {
    Boot::from_ns(ms * 1_000_000)
}

fn me() -> InstanceId {
    "00000000000000aa".parse().expect("an id")
}

fn entry(key: String, value: &str, mod_revision: Revision, lease: LeaseId) -> Option<Entry> {
    Some(Entry { key, value: value.into(), mod_revision, create_revision: 3, lease })
}

const OWNER: &str = r#"{"instance":"00000000000000aa","agent":"app-01","host":"h","boot_id":"b","version":"1.0.0"}"#;

fn holder(turn: Revision) -> Option<Entry> {
    let value = format!(
        r#"{{"v":1,"state":"HELD","owner":{OWNER},"lease_id":119,"ttl_s":10,"era":0,"turn":4,
            "op":"00000000000000ff","cause":{{"kind":"acquire"}},"at_ms":0}}"#
    );
    entry(keys().holder(), &value, turn, 0)
}

fn beat(turn: Revision, lease: LeaseId) -> Option<Entry> {
    entry(keys().beat(), r#"{"v":1,"instance":"00000000000000aa","op":"00000000000000ff"}"#, turn, lease)
}

fn candidate(lease: LeaseId) -> Option<Entry> {
    let value = format!(
        r#"{{"v":1,"owner":{OWNER},"lease_id":119,"ttl_s":10,"ready":true,"serving":true,"prepared_for":null,
            "declined":null,"active":null}}"#
    );
    entry(keys().candidate(&me()), &value, 30, lease)
}

fn origin() -> Origin {
    Origin { cluster_id: 1, member_id: 2, raft_term: 3 }
}

/// What a store in good order answers to the holder.
fn good() -> Renewal {
    let reads = vec![holder(TURN), beat(TURN, LEASE), None, None, None, None];
    let barrier = TxnReply { succeeded: true, revision: 50, reads, origin: origin() };
    Renewal { ttl: Duration::from_secs(10), keep_alive: origin(), barrier }
}

fn expected() -> Expectation {
    Expectation {
        lease: LEASE,
        standing: Standing::Holder { turn: TURN, era: Era(0) },
        cluster: Some(1),
        revision: 50,
        min_ttl: Duration::from_secs(10),
        limit: Duration::from_secs(1),
    }
}

fn judge(renewal: &Renewal) -> Verdict {
    accept(&keys(), renewal, at(1_000), at(1_900), &expected())
}

#[test]
fn a_renewal_in_good_order_counts_from_its_sending() {
    assert_eq!(judge(&good()), Verdict::Accepted { base: at(1_000), ttl: Duration::from_secs(10) });
}

#[test]
fn a_longer_ttl_than_asked_for_is_taken_as_answered() {
    let renewal = Renewal { ttl: Duration::from_secs(12), ..good() };
    assert_eq!(judge(&renewal), Verdict::Accepted { base: at(1_000), ttl: Duration::from_secs(12) });
}

#[test]
fn a_ttl_of_zero_or_below_the_configured_one_does_not_count() {
    for ttl in [0, 1, 9] {
        let renewal = Renewal { ttl: Duration::from_secs(ttl), ..good() };
        assert!(matches!(judge(&renewal), Verdict::Rejected(Doubt::Ttl { .. })), "{ttl}");
    }
}

#[test]
fn answers_by_two_members_or_in_two_terms_or_by_another_cluster_do_not_count() {
    let mut member = good();
    member.barrier.origin.member_id = 9;
    assert_eq!(judge(&member), Verdict::Rejected(Doubt::OtherMember));
    let mut term = good();
    term.barrier.origin.raft_term = 4;
    assert_eq!(judge(&term), Verdict::Rejected(Doubt::OtherTerm));
    for first in [true, false] {
        let mut cluster = good();
        let origin = if first { &mut cluster.keep_alive } else { &mut cluster.barrier.origin };
        origin.cluster_id = 9;
        assert_eq!(judge(&cluster), Verdict::Rejected(Doubt::OtherCluster));
    }
    let mut both = good();
    both.keep_alive.cluster_id = 9;
    both.barrier.origin.cluster_id = 9;
    assert_eq!(judge(&both), Verdict::Rejected(Doubt::OtherCluster), "the store was replaced");
}

#[test]
fn a_store_that_went_back_does_not_count() {
    let mut renewal = good();
    renewal.barrier.revision = 49;
    assert_eq!(judge(&renewal), Verdict::Rejected(Doubt::WentBack { shown: 49, known: 50 }));
}

#[test]
fn an_answer_after_the_limit_does_not_count() {
    let verdict = accept(&keys(), &good(), at(1_000), at(2_001), &expected());
    assert!(matches!(verdict, Verdict::Rejected(Doubt::Late { .. })));
    let exact = accept(&keys(), &good(), at(1_000), at(2_000), &expected());
    assert!(matches!(exact, Verdict::Accepted { .. }));
}

#[test]
fn a_raised_era_does_not_count() {
    let mut renewal = good();
    renewal.barrier.reads[2] = entry(keys().era(), r#"{"v":1,"era":1}"#, 45, 0);
    assert_eq!(judge(&renewal), Verdict::Rejected(Doubt::OtherEra));
}

#[test]
fn another_holder_revision_is_ownership_lost_whatever_the_keep_alive_says() {
    for reads in [[holder(TURN + 1), beat(TURN + 1, LEASE)], [None, None]] {
        let mut renewal = Renewal { ttl: Duration::ZERO, ..good() };
        renewal.keep_alive.raft_term = 9;
        renewal.barrier.reads[..2].clone_from_slice(&reads);
        assert_eq!(judge(&renewal), Verdict::OwnershipLost);
    }
}

#[test]
fn a_missing_or_foreign_beat_is_lease_lost() {
    for gone in [None, beat(TURN, LEASE + 1)] {
        let mut renewal = good();
        renewal.barrier.reads[1] = gone;
        assert_eq!(judge(&renewal), Verdict::LeaseLost);
    }
}

#[test]
fn a_candidate_is_judged_by_its_own_key() {
    let expected = Expectation { standing: Standing::Candidate(me()), ..expected() };
    let verdict = |own| {
        let mut renewal = good();
        renewal.barrier.reads = vec![None, None, None, None, None, None, own];
        accept(&keys(), &renewal, at(1_000), at(1_900), &expected)
    };
    assert!(matches!(verdict(candidate(LEASE)), Verdict::Accepted { .. }));
    assert_eq!(verdict(candidate(LEASE + 1)), Verdict::LeaseLost);
    assert_eq!(verdict(None), Verdict::LeaseLost);
}

#[test]
fn an_unreadable_holder_key_never_counts_as_mine() {
    let mut renewal = good();
    renewal.barrier.reads[0] = entry(keys().holder(), "{", TURN, 0);
    assert_eq!(judge(&renewal), Verdict::OwnershipLost);
}
