//! What the store's answers mean.

use crate::check::Finding;
use crate::check::facts::{Name, StoreFacts};
use crate::config::Config;
use crate::lease::versions::{Trust, VersionGate};

const CHECK: &str = "store";

pub(super) fn findings(config: &Config, store: &StoreFacts) -> Vec<Finding> {
    let mut all = members(store);
    if store.members.iter().all(|(_, answer)| answer.is_err()) {
        return all;
    }
    all.extend(versions(store));
    all.extend(name(config, store.name.as_ref()));
    all.extend(config.lease.as_ref().and_then(|_| roles(config, store)));
    if store.led == Some(false) {
        let fix = "systemctl enable --now handover, where the coordinator is to run";
        all.push(Finding::warn(CHECK, "no coordinator leads: what runs goes on, and nothing new is ordered", fix));
    }
    all
}

fn members(store: &StoreFacts) -> Vec<Finding> {
    let alone = store.members.iter().all(|(_, answer)| answer.is_err());
    let finding = |(endpoint, answer): &(String, Result<Vec<String>, String>)| match answer {
        Ok(alarms) if alarms.is_empty() => Finding::ok(CHECK, format!("{endpoint} answers")),
        Ok(alarms) => {
            let fix = "etcdctl alarm list; compact and defragment, then etcdctl alarm disarm";
            Finding::fail(CHECK, format!("{endpoint} raises an alarm: {}", alarms.join(", ")), fix)
        }
        Err(reason) if alone => {
            let fix = "start it, or mend `store` in the config; traffic goes on without it, the scheduler does not";
            Finding::fail(CHECK, format!("{endpoint} does not answer: {reason}"), fix)
        }
        Err(reason) => {
            let fix = "start that member, or take it out of `store` in the config";
            Finding::warn(CHECK, format!("{endpoint} does not answer: {reason}"), fix)
        }
    };
    store.members.iter().map(finding).collect()
}

fn versions(store: &StoreFacts) -> Option<Finding> {
    let mut trust = Trust::default();
    trust.learn(store.survey.clone());
    if store.survey.embedded {
        return Some(Finding::ok(CHECK, "it is the embedded store: one process, without replication and roles"));
    }
    let gate = trust.gate();
    let upgrade = "upgrade etcd to 3.4.42, 3.5.28, 3.6.9 or later; until then a lost lease is taken over more slowly";
    match gate {
        VersionGate::Good => Some(Finding::ok(CHECK, gate.to_string())),
        VersionGate::Outdated(_) | VersionGate::Unsafe(_) => Some(Finding::warn(CHECK, gate.to_string(), upgrade)),
        VersionGate::Unknown(_) => Some(Finding::warn(CHECK, gate.to_string(), "see that every member answers")),
    }
}

fn name(config: &Config, name: Option<&Result<Name, String>>) -> Option<Finding> {
    let agent = &config.agent;
    Some(match name? {
        Ok(Name::Ours) => Finding::ok(CHECK, format!("agent {agent} is registered from here")),
        Ok(Name::Free) => Finding::ok(CHECK, format!("the name {agent} is free")),
        Ok(Name::Taken(host)) => {
            let sentence = format!("another agent named {agent} is alive on host {host}");
            Finding::fail(
                CHECK,
                sentence,
                "give this one another `agent` name, or stop the other; a name comes free 30 s later",
            )
        }
        Err(reason) => {
            let fix = format!("give its user the role: handover store setup {} --apply", config.service);
            Finding::fail(CHECK, format!("the store does not let this agent read its own keys: {reason}"), fix)
        }
    })
}

fn roles(config: &Config, store: &StoreFacts) -> Option<Finding> {
    if store.survey.embedded {
        return None;
    }
    let fix = format!(
        "handover store setup {} --apply, once, with root's certificate of etcd (docs/etcd.md)",
        config.service
    );
    Some(match (store.asks, store.survey.guarded) {
        (Some(true), Some(true)) => Finding::ok(CHECK, "roles are on, and only agents may write who holds the lease"),
        (Some(false), _) => {
            Finding::warn(CHECK, "roles are off: whoever reaches the store may write who holds the lease", fix)
        }
        (_, Some(false)) => Finding::warn(CHECK, "nothing shows that only agents may write who holds the lease", fix),
        (None, _) | (_, None) => Finding::warn(CHECK, "whether roles guard the lease could not be read", fix),
    })
}
