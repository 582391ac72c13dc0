//! From what was recorded and logged to the rows that the checkers look at. No judgement here.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::Result;
use serde_json::Value;

use super::checkers::register::{Claim, Keys, Register, Told, Written};
use super::checkers::{blockers, floor, ops};
use super::record::{Change, Life, Record, Said, Watched};
use crate::billing::activity::{Event, Line};
use crate::clock::BootNs;

/// The register's history in one life of the cluster, beginning from these keys; with the keys at its end.
pub fn register(life: &Life, start: Keys, watched: &Watched, by_hand: &[i64], claims: &[Claim]) -> Register {
    let mut keys = start;
    let mut written = Vec::new();
    for (revision, changes) in &life.changes {
        let mut op = None;
        let mut touched = None;
        for change in changes {
            let now = if change.value.is_some() { *revision } else { 0 };
            if change.key == watched.holder {
                keys.holder = now;
                op = change.value.as_deref().and_then(op_of);
            } else if change.key == watched.beat {
                keys.beat = now;
            } else {
                continue;
            }
            touched = Some(touched.map_or(change.heard, |heard: BootNs| heard.min(change.heard)));
        }
        if let Some(heard) = touched {
            let by_operator = by_hand.contains(revision);
            written.push(Written { revision: *revision, heard, keys, op, by_operator });
        }
    }
    Register { written, reads: life.reads.clone(), claims: claims.to_vec(), missed: life.missed }
}

fn op_of(value: &[u8]) -> Option<String> {
    let value: Value = serde_json::from_slice(value).ok()?;
    value["op"].as_str().map(str::to_owned)
}

/// What agents were answered, by their logs.
///
/// # Errors
/// If a log cannot be read.
pub fn claims(logs: &[&Path]) -> Result<Vec<Claim>> {
    let mut claims = Vec::new();
    for log in logs {
        let text = String::from_utf8_lossy(&std::fs::read(log)?).into_owned();
        claims.extend(text.lines().filter_map(claim));
    }
    Ok(claims)
}

/// `… answer op=… sent_boot_ns=… told="committed" revision=7`
fn claim(line: &str) -> Option<Claim> {
    let (_, rest) = line.split_once(": answer op=")?;
    let fields: BTreeMap<&str, &str> = rest.split(' ').skip(1).filter_map(|field| field.split_once('=')).collect();
    let told = match fields.get("told")?.trim_matches('"') {
        "committed" => Told::Committed(fields.get("revision")?.parse().ok()?),
        "refused" => Told::Refused,
        _ => Told::Open,
    };
    let op = rest.split(' ').next()?.to_owned();
    Some(Claim { op, invoke: BootNs(fields.get("sent_boot_ns")?.parse().ok()?), told })
}

/// Every revision of the history that the store has at the end: what a restore took away is not in it.
pub fn surviving(record: &Record) -> impl Iterator<Item = (i64, &[Change])> {
    record.lives.iter().enumerate().flat_map(|(number, life)| {
        let until = record.lives.get(number + 1).map_or(i64::MAX, |next| next.after);
        life.changes.range(..=until).map(|(revision, changes)| (*revision, changes.as_slice()))
    })
}

/// How many turns a restore took away.
pub fn lost(record: &Record, watched: &Watched) -> usize {
    let of_holder = |changes: &&Vec<Change>| changes.iter().any(|change| change.key == watched.holder);
    let lost = |pair: &[Life]| pair[0].changes.range(pair[1].after + 1..).filter(|(_, all)| of_holder(all)).count();
    record.lives.windows(2).map(lost).sum()
}

/// Writes of the holder key that a restore has not taken away.
pub fn turns(record: &Record, watched: &Watched, by_hand: &[i64]) -> Vec<ops::Turn> {
    let mut turns = Vec::new();
    for (revision, changes) in surviving(record) {
        let of_holder = |change: &&Change| change.key == watched.holder;
        if let Some(change) = changes.iter().find(of_holder) {
            turns.extend(turn(revision, change, by_hand.contains(&revision)));
        }
    }
    turns
}

/// Who led, one after the other, and what was decided meanwhile: assignments, requests to the holder, journals. Both by
/// revision; what a restore took away is not in it.
pub fn reigns(record: &Record, watched: &Watched) -> (Vec<ops::Decision>, Vec<ops::Record>, usize) {
    let (mut reign, mut reigns) = (None, 0);
    let (mut decisions, mut records) = (Vec::new(), Vec::new());
    for (revision, changes) in surviving(record) {
        for Change { key, value, .. } in changes {
            if *key == watched.leader {
                let begins = value.is_some() && reign.is_none();
                reigns += usize::from(begins);
                reign = value.as_ref().and(reign.or(Some(revision)));
            }
        }
        for Change { key, value, .. } in changes {
            let Some(value) = value.as_deref().and_then(|value| serde_json::from_slice::<Value>(value).ok()) else {
                continue;
            };
            let Some(term) = value["term"].as_i64() else { continue };
            let what = key.strip_prefix(&watched.prefix).unwrap_or(key).to_owned();
            if let Some((journal, seq)) = what.split_once("/events/") {
                let (journal, seq) = (journal.to_owned(), seq.parse().unwrap_or_default());
                records.push(ops::Record { journal, seq, term, what: value["event"].to_string() });
            }
            if DECIDED.iter().any(|part| what.contains(part)) {
                decisions.push(ops::Decision { what, revision, term, reign });
            }
        }
    }
    (decisions, records, reigns)
}

/// Keys that only a leader writes, each with his term.
const DECIDED: [&str; 3] = ["/assigned/", "/lease/intent", "/events/"];

/// What each agent's service worked under, by time. Instances are known by the turns that they had, lost ones as well.
pub fn works(record: &Record, watched: &Watched, lines: &[Line]) -> Vec<ops::Work> {
    let all = record.lives.iter().flat_map(|life| life.changes.values().flatten());
    let held = all.filter(|change| change.key == watched.holder).filter_map(|change| {
        let value: Value = serde_json::from_slice(change.value.as_deref()?).ok()?;
        let text = |field: &str| value["owner"][field].as_str().map(str::to_owned);
        Some((text("instance")?, text("agent")?))
    });
    let agents: BTreeMap<String, String> = held.collect();
    let works = lines.iter().filter(|line| line.event == Event::Active).filter_map(|line| {
        let agent = agents.get(&line.instance.to_string())?.clone();
        Some(ops::Work { agent, token: line.token.as_i64() })
    });
    works.collect()
}

fn turn(revision: i64, change: &Change, by_operator: bool) -> Option<ops::Turn> {
    let value: Value = change.value.as_deref().and_then(|value| serde_json::from_slice(value).ok()).unwrap_or_default();
    let owner = [&value["owner"], &value["last"]].into_iter().find_map(|owner| owner["instance"].as_str());
    let (op, turn) = (value["op"].as_str().map(str::to_owned), value["turn"].as_u64());
    if (op.is_none() || turn.is_none()) && !by_operator {
        return None;
    }
    Some(ops::Turn {
        revision,
        op: op.unwrap_or_else(|| format!("by hand at {revision}")),
        turn: turn.unwrap_or_default(),
        era: u16::try_from(value["era"].as_u64().unwrap_or_default()).unwrap_or(u16::MAX),
        owner: owner.unwrap_or_default().to_owned(),
        held: value["state"] == "HELD",
        by_operator,
    })
}

/// Whether each host's gate sends requests to its service, and whether that is ready, as its agent says.
pub fn floor(said: &[Said]) -> Vec<floor::Sample> {
    let sample = |said: &Said| {
        let slots = said.report.as_ref()?["slots"].as_array().cloned().unwrap_or_default();
        let ready = slots.iter().any(|slot| slot["instance"]["ready"] == true);
        let serves = slots.iter().any(|slot| slot["instance"]["writes"].as_u64().unwrap_or_default() > 0);
        Some(floor::Sample { at: said.at, host: said.agent.clone(), ready, serves })
    };
    said.iter().filter_map(sample).collect()
}

/// What waits, and whether it says for what: each agent's lease, and each agent's assignment.
pub fn blockers(said: &[Said]) -> Vec<blockers::Sample> {
    let mut samples = Vec::new();
    for Said { at, agent, report } in said {
        let Some(report) = report else { continue };
        let text = |value: &Value| value.as_str().filter(|text| !text.is_empty()).map(str::to_owned);
        let lease = &report["lease"];
        let state = lease["state"].as_str().unwrap_or_default();
        let settled = ["holder", "none"].contains(&state);
        let blocker = text(&lease["reason"]);
        samples.push(blockers::Sample { at: *at, object: format!("lease at {agent}"), settled, blocker });
        let reached = report["accepted"] == report["reached"];
        let blocker = text(&report["blocker"]["waiting_for"]);
        samples.push(blockers::Sample { at: *at, object: format!("assignment of {agent}"), settled: reached, blocker });
    }
    samples
}

#[cfg(test)]
mod tests {
    use super::*;

    fn watched() -> Watched {
        let [prefix, holder, beat, leader] = ["p/", "p/holder", "p/beat", "p/leader"].map(str::to_owned);
        Watched { prefix, holder, beat, leader }
    }

    fn change(key: &str, value: Option<&str>, heard: u64) -> Change {
        let value = value.map(|value| value.as_bytes().to_vec());
        Change { key: key.to_owned(), value, heard: BootNs(heard) }
    }

    /// A leader of revision 2 decides at 3 and 6, one of 8 at 9; what came after 5 is lost, and one of 7 decides at 8.
    fn restored() -> Record {
        let life = |after: i64, all: &[(i64, &str, Option<&str>)]| {
            let mut life = Life { after, ..Life::default() };
            for (revision, key, value) in all {
                life.changes.entry(*revision).or_default().push(change(key, *value, 1));
            }
            life
        };
        let held = |agent: &str| {
            format!(r#"{{"op":"{agent}","turn":1,"owner":{{"instance":"{agent:0>16}","agent":"{agent}"}}}}"#)
        };
        let (a, b) = (held("a"), held("b"));
        let before = [
            (2, "p/leader", Some("{}")),
            (3, "p/s/assigned/a", Some(r#"{"term":2}"#)),
            (4, "p/holder", Some(a.as_str())),
            (6, "p/rollouts/r/events/00000001", Some(r#"{"term":2,"event":"x"}"#)),
            (7, "p/holder", Some(b.as_str())),
            (8, "p/leader", None),
        ];
        let after = [
            (6, "p/leader", None),
            (7, "p/leader", Some("{}")),
            (8, "p/s/lease/intent", Some(r#"{"term":7}"#)),
            (9, "p/rollouts/r/events/00000001", Some(r#"{"term":2,"event":"y"}"#)),
        ];
        Record { lives: vec![life(0, &before), life(5, &after)], ..Record::default() }
    }

    #[test]
    fn what_a_restore_took_away_is_nobodys_decision_and_each_other_one_is_told_with_who_led() {
        let (decisions, records, reigns) = reigns(&restored(), &watched());
        let seen: Vec<_> = decisions.iter().map(|d| (d.revision, d.term, d.reign)).collect();
        assert_eq!(seen, [(3, 2, Some(2)), (8, 7, Some(7)), (9, 2, Some(7))]);
        assert_eq!((records.len(), records[0].seq, records[0].what.as_str(), reigns), (1, 1, "\"y\"", 2));
        assert_eq!((turns(&restored(), &watched(), &[]).len(), lost(&restored(), &watched())), (1, 1));
    }

    #[test]
    fn works_are_told_by_agent_also_those_of_lost_turns() {
        let line = |instance: &str, token: i64| Line {
            at_boot_ns: BootNs(0),
            instance: format!("{instance:0>16}").parse().expect("id"),
            version: "1.0.0".parse().expect("version"),
            token: crate::billing::contract::Token::try_from(token).expect("token"),
            event: Event::Active,
        };
        let works = works(&restored(), &watched(), &[line("a", 4), line("b", 7), line("c", 9)]);
        let seen: Vec<_> = works.iter().map(|work| (work.agent.as_str(), work.token)).collect();
        assert_eq!(seen, [("a", 4), ("b", 7)]);
    }

    #[test]
    fn an_agents_answer_is_read_from_its_log() {
        let line = "2026-11-21T14:00:00Z DEBUG handover_agent::lease::effects: answer op=0af3 sent_boot_ns=77 \
                    told=\"committed\" revision=12";
        let expected = Claim { op: "0af3".into(), invoke: BootNs(77), told: Told::Committed(12) };
        assert_eq!(claim(line), Some(expected));
        assert_eq!(claim("2026-11-21T14:00:00Z INFO handover_agent::lease: holds the lease"), None);
    }

    #[test]
    fn a_transaction_of_both_keys_is_one_write_and_an_expiry_another() {
        let watched = watched();
        let mut life = Life::default();
        life.changes.insert(5, vec![change("p/holder", Some("{\"op\":\"a\"}"), 9), change("p/beat", Some("{}"), 8)]);
        life.changes.insert(6, vec![change("p/cand/x", Some("{}"), 9)]);
        life.changes.insert(7, vec![change("p/beat", None, 20)]);
        let written = register(&life, Keys::default(), &watched, &[], &[]).written;
        let seen: Vec<_> = written.iter().map(|w| (w.revision, w.keys, w.op.as_deref(), w.heard.0)).collect();
        let both = Keys { holder: 5, beat: 5 };
        assert_eq!(seen, [(5, both, Some("a"), 8), (7, Keys { holder: 5, beat: 0 }, None, 20)]);
    }
}
