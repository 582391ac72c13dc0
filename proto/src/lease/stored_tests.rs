//! What earlier versions wrote is read, and nothing of it is changed by reading it.

use super::*;
use crate::assignment::{Assignment, LeaseRules, Prefer};
use crate::numbers::Era;
use crate::stored::{decode, encode};

const OWNER: &str = r#"{"instance":"00000000000000aa","agent":"app-01","host":"h","boot_id":"b","version":"1.0.0"}"#;

fn back<T: serde::Serialize>(value: &T) -> String {
    String::from_utf8(encode(value).expect("json")).expect("text")
}

#[test]
fn a_candidate_of_an_older_agent_goes_last_and_says_nothing_of_what_it_does_not_know() {
    let text = format!(
        r#"{{"v":1,"owner":{OWNER},"lease_id":7,"ttl_s":10,"ready":true,"serving":true,"prepared_for":null,"declined":null,"active":48}}"#
    );
    let read: Candidate = decode("cand", text.as_bytes()).expect("the previous form");
    assert_eq!((read.rank, read.rho_ppm, read.agent_version.as_str()), (u32::MAX, None, ""));
    assert_eq!((read.active_at_ms, read.stored_token), (None, None));
}

#[test]
fn a_holder_of_the_previous_form_is_read_and_written_back_as_it_was() {
    let text = format!(
        r#"{{"v":1,"state":"FREE","last":{OWNER},"stop_proof":"dead","era":0,"turn":3,"op":"00000000000000ff","cause":{{"kind":"release"}},"at_ms":5}}"#
    );
    let read: Holder = decode("holder", text.as_bytes()).expect("the previous form");
    assert_eq!((read.stopped_at_ms, back(&read)), (None, text));
}

#[test]
fn a_ttl_that_etcd_never_granted_is_read_as_the_longest_that_it_grants_and_the_count_of_turns_stops() {
    let most = u64::MAX;
    let text = format!(
        r#"{{"v":1,"state":"HELD","owner":{OWNER},"lease_id":7,"ttl_s":{most},"era":0,"turn":{most},"op":"00000000000000ff","cause":{{"kind":"acquire"}},"at_ms":5}}"#
    );
    let holder: Holder = decode("holder", text.as_bytes()).expect("well formed");
    assert_eq!(holder.held().map(|held| held.ttl_s), Some(9_000_000_000));
    let seen = Seen { value: holder, mod_revision: 3, create_revision: 3, lease: 0 };
    let view = LeaseView { holder: Some(seen), ..LeaseView::default() };
    assert_eq!(super::txn::next_turn(&view), most);
    let text = format!(
        r#"{{"v":1,"owner":{OWNER},"lease_id":7,"ttl_s":{most},"ready":true,"serving":true,"prepared_for":null,"declined":null,"active":48}}"#
    );
    let candidate: Candidate = decode("cand", text.as_bytes()).expect("well formed");
    assert_eq!(candidate.ttl_s, 9_000_000_000);
}

#[test]
fn an_intent_of_the_previous_form_names_its_heir_and_a_park_intent_nobody() {
    let rest = r#""quiesce_timeout_ms":1,"term":1,"cause":{"rollout":null,"step":0,"plan_hash":""}}"#;
    let text = format!(
        r#"{{"v":1,"op":"00000000000000ff","kind":"handoff","from":"00000000000000aa","to":"00000000000000bb",{rest}"#
    );
    let read: Intent = decode("intent", text.as_bytes()).expect("the previous form");
    assert_eq!(back(&read), text);
    let (heir, other) = ("00000000000000bb".parse().expect("an id"), "00000000000000cc".parse().expect("an id"));
    assert!(!read.is_for_other(&heir) && read.is_for_other(&other));
    let park = format!(r#"{{"v":1,"op":"00000000000000ff","kind":"park","from":"00000000000000aa",{rest}"#);
    let park: Intent = decode("intent", park.as_bytes()).expect("a park intent");
    assert_eq!((park.kind, park.to.clone(), park.is_for_other(&other)), (IntentKind::Park, None, false));
}

#[test]
fn an_era_of_the_previous_form_has_nobody_s_name_to_it() {
    let read: EraValue = decode("era", br#"{"v":1,"era":2}"#).expect("the previous form");
    assert_eq!(read, EraValue::of(Era(2)));
}

#[test]
fn a_cause_that_only_a_newer_agent_knows_does_not_make_the_holder_unreadable() {
    let cause: LeaseCause = serde_json::from_str(r#"{"kind":"by-magic","wand":"oak"}"#).expect("readable");
    assert_eq!(cause, LeaseCause::Other);
    let order = BreakGlass {
        by: "ann".into(),
        second: "bob".into(),
        because: "rack 4 burns".into(),
        asserting: Some(Assertion::HostPoweredOff),
    };
    let text =
        r#"{"kind":"break-glass","by":"ann","second":"bob","because":"rack 4 burns","asserting":"host-powered-off"}"#;
    assert_eq!(back(&LeaseCause::BreakGlass(order)), text);
}

#[test]
fn an_assignment_of_the_previous_form_prefers_nobody_and_is_written_as_before() {
    let text = r#"{"v":1,"term":1,"cause":{"rollout":null,"step":0,"plan_hash":""},"slots":{},"routes":[],"drain":{"deadline_ms":1,"at_deadline":"wait"}}"#;
    let mut read: Assignment = decode("assigned", text.as_bytes()).expect("the previous form");
    assert!(read.lease.are_default());
    assert_eq!(back(&read), text);
    read.lease = LeaseRules { prefer: Prefer { version: None, zone: Some("west".into()) } };
    assert!(back(&read).ends_with(r#""lease":{"prefer":{"zone":"west"}}}"#), "{}", back(&read));
}

#[test]
fn version_counts_more_than_zone_and_zone_more_than_traffic() {
    let (new, old) = ("2.0.0".parse().expect("a version"), "1.0.0".parse().expect("a version"));
    let prefer = Prefer { version: Some(new), zone: Some("west".into()) };
    let new = prefer.version.clone().expect("given");
    let order = [
        prefer.rank(&new, Some("west"), true),
        prefer.rank(&new, Some("west"), false),
        prefer.rank(&new, Some("east"), true),
        prefer.rank(&new, None, false),
        prefer.rank(&old, Some("west"), true),
        prefer.rank(&old, None, false),
    ];
    assert!(order.is_sorted() && order[0] == 0, "{order:?}");
    assert_eq!(Prefer::default().rank(&old, None, true), 0, "nothing is preferred");
}
