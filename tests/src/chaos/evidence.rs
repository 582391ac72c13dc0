//! From what was recorded and logged to the rows that the checkers look at. No judgement here.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::Result;
use serde_json::Value;

use super::checkers::register::{Claim, Keys, Register, Told, Written};
use super::checkers::{blockers, floor, ops};
use super::record::{Change, Life, Record, Said, Watched};
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

/// Writes of the holder key, in all lives.
pub fn turns(record: &Record, watched: &Watched, by_hand: &[i64]) -> Vec<ops::Turn> {
    let mut turns = Vec::new();
    for life in &record.lives {
        for (revision, changes) in &life.changes {
            let by_operator = by_hand.contains(revision);
            let of_holder = |change: &&Change| change.key == watched.holder;
            if let Some(change) = changes.iter().find(of_holder) {
                turns.extend(turn(*revision, change, by_operator));
            }
        }
    }
    turns
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
        let watched = Watched { prefix: "p/".into(), holder: "p/holder".into(), beat: "p/beat".into() };
        let change = |key: &str, value: Option<&str>, heard: u64| Change {
            key: key.to_owned(),
            value: value.map(|value| value.as_bytes().to_vec()),
            heard: BootNs(heard),
        };
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
