//! The journal's records and their chain.

use handover::core::event::{
    BackStep, Event, JournalError, MAX_RECORD_BYTES, NO_HASH, Outcome, Record, check_chain, sha256_hex,
};

use crate::world::{agent, term};

fn journal() -> Vec<Record> {
    let mut records: Vec<Record> = Vec::new();
    for event in every_event() {
        let seq = records.len() as u64;
        records.push(Record::after(records.last(), 1000 + seq, term(), event).expect("a record"));
    }
    records
}

fn every_event() -> Vec<Event> {
    let op = || "0123456789abcdef".parse().expect("an op");
    let instance = || "fedcba9876543210".parse().expect("an instance");
    let (by, reason) = (String::from("ann"), String::from("because"));
    vec![
        Event::Started { spec_hash: "s".into(), plan_hash: "p".into(), by: by.clone(), op: op() },
        Event::Entered { step: 1 },
        Event::Assigned { agents: vec![agent(1), agent(2)] },
        Event::Asked { op: op(), intent: handover_proto::lease::IntentKind::Return, from: instance(), to: instance() },
        Event::Withdrawn { op: op() },
        Event::Paused { by: by.clone(), reason: reason.clone(), unmeasured: false },
        Event::Resumed { by: by.clone() },
        Event::Back { by, reason: reason.clone() },
        Event::BackEntered { step: BackStep::Lease },
        Event::Ended { outcome: Outcome::RolledBack, reason },
    ]
}

#[test]
fn a_journal_that_was_only_appended_to_is_whole() {
    let records = journal();
    check_chain(&records).expect("a whole chain");
    assert_eq!((records[0].seq, records[0].prev_hash.as_str()), (1, NO_HASH));
    assert_eq!(records[1].prev_hash, records[0].hash().expect("a hash"));
    check_chain(&[]).expect("nothing is whole");
}

#[test]
fn any_change_to_any_record_but_the_last_breaks_the_chain() {
    let whole = journal();
    for index in 0..whole.len() - 1 {
        let mut changed = whole.clone();
        changed[index].at_ms += 1;
        let error = check_chain(&changed).expect_err("a broken chain");
        assert!(matches!(error, JournalError::Broken { seq, .. } if seq == index as u64 + 2), "{error}");
        let mut missing = whole.clone();
        missing.remove(index);
        assert!(matches!(check_chain(&missing), Err(JournalError::Broken { seq, .. }) if seq == index as u64 + 1));
    }
    let mut swapped = whole;
    swapped.swap(3, 4);
    check_chain(&swapped).expect_err("a broken chain");
}

#[test]
fn every_event_reads_back_as_it_was_written() {
    for record in journal() {
        let bytes = record.bytes().expect("bytes");
        let read: Record = serde_json::from_slice(&bytes).expect("a record");
        assert_eq!(read, record);
        assert_eq!(read.bytes().expect("bytes"), bytes, "always the same bytes");
    }
}

#[test]
fn a_record_of_this_version_is_readable_for_ever() {
    let stored = r#"{"v":1,"seq":2,"at_ms":5,"term":7,"prev_hash":"ab","event":{"kind":"asked","op":"0123456789abcdef","intent":"handoff","from":"fedcba9876543210","to":"fedcba9876543211"}}"#;
    let record: Record = serde_json::from_str(stored).expect("a record");
    assert_eq!(String::from_utf8(record.bytes().expect("bytes")).expect("text"), stored);
    let of_the_future = stored.replace("asked", "teleported");
    serde_json::from_str::<Record>(&of_the_future).expect_err("an event that nobody here understands is not skipped");
}

#[test]
fn a_record_that_is_too_large_is_refused() {
    let paused = |length: usize| Event::Paused { by: "ann".into(), reason: "x".repeat(length), unmeasured: false };
    Record::after(None, 0, term(), paused(MAX_RECORD_BYTES - 500)).expect("a record");
    let error = Record::after(None, 0, term(), paused(MAX_RECORD_BYTES)).expect_err("too large");
    assert!(matches!(error, JournalError::TooLarge { seq: 1, .. }) && error.to_string().contains("shorter"), "{error}");
    let agents = (0..100).map(|number| format!("{number:063}").parse().expect("an agent")).collect();
    Record::after(None, 0, term(), Event::Assigned { agents }).expect("as many as one decision can have");
}

#[test]
fn hashes_are_sha_256() {
    assert_eq!(sha256_hex(b"abc"), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
}
