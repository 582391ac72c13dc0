//! Marks in a process's environment: whose it is. An agent that has lost its state file finds its instances by them.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

use handover_proto::ids::{AgentId, Env, InstanceId, Service, SlotId, Version};

use super::StartSpec;

const INSTANCE: &str = "HANDOVER_INSTANCE";
const SLOT: &str = "HANDOVER_SLOT";
const VERSION: &str = "HANDOVER_VERSION";
const AGENT: &str = "HANDOVER_AGENT";
const STATE_DIR: &str = "HANDOVER_STATE_DIR";

/// The agent on whose behalf instances run. Two agents of one host differ in it, and so do two of one name that belong
/// to different installations.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Owner {
    /// The installation.
    pub env: Env,
    /// The service.
    pub service: Service,
    /// The agent's name.
    pub agent: AgentId,
    /// Its state directory, an absolute path.
    pub state_dir: PathBuf,
}

impl Owner {
    fn text(&self) -> String {
        format!("{}/{}/{}", self.env, self.service, self.agent)
    }

    /// What [`read`] finds in the processes of this start.
    pub(super) fn marks(&self, spec: &StartSpec) -> [(&'static str, String); 5] {
        self.marks_of(&spec.instance, &spec.slot, &spec.version)
    }

    /// The same, by its parts.
    pub(super) fn marks_of(
        &self,
        instance: &InstanceId,
        slot: &SlotId,
        version: &Version,
    ) -> [(&'static str, String); 5] {
        [
            (INSTANCE, instance.to_string()),
            (SLOT, slot.to_string()),
            (VERSION, version.to_string()),
            (AGENT, self.text()),
            (STATE_DIR, self.state_dir.to_string_lossy().into_owned()),
        ]
    }
}

/// What a process's environment says of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Marks {
    pub(super) instance: InstanceId,
    pub(super) slot: SlotId,
    pub(super) version: Version,
    agent: String,
    state_dir: String,
}

impl Marks {
    pub(super) fn are_of(&self, owner: &Owner) -> bool {
        self.agent == owner.text() && self.state_dir == owner.state_dir.to_string_lossy()
    }
}

/// The marks of one process. None if it has none, has ended, has overwritten its environment, or may not be looked at:
/// the marks help to find, and nothing is proven by their absence.
pub(super) fn read(pid: i32) -> Option<Marks> {
    parse(&fs::read(format!("/proc/{pid}/environ")).ok()?)
}

fn parse(environ: &[u8]) -> Option<Marks> {
    let text = String::from_utf8_lossy(environ);
    let vars: BTreeMap<&str, &str> = text.split('\0').filter_map(|entry| entry.split_once('=')).collect();
    Some(Marks {
        instance: vars.get(INSTANCE)?.parse().ok()?,
        slot: vars.get(SLOT)?.parse().ok()?,
        version: vars.get(VERSION)?.parse().ok()?,
        agent: (*vars.get(AGENT)?).to_owned(),
        state_dir: (*vars.get(STATE_DIR)?).to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn owner(agent: &str, state_dir: &str) -> Owner {
        Owner {
            env: "prod".parse().expect("env"),
            service: "billing".parse().expect("service"),
            agent: agent.parse().expect("agent"),
            state_dir: state_dir.into(),
        }
    }

    fn environ(owner: &Owner) -> Vec<u8> {
        let spec = StartSpec {
            slot: "a".parse().expect("slot"),
            instance: "00000000000000aa".parse().expect("instance"),
            version: "1.4.2".parse().expect("version"),
            command: vec![],
            env: vec![],
            directory: "/".into(),
            output: "/dev/null".into(),
        };
        let vars = owner.marks(&spec).map(|(name, value)| format!("{name}={value}\0"));
        format!("PATH=/bin\0{}LAST=1\0", vars.concat()).into_bytes()
    }

    #[test]
    fn the_marks_of_a_start_are_read_back() {
        let marks = parse(&environ(&owner("app-01", "/s"))).expect("marks");
        assert_eq!((marks.instance.as_str(), marks.slot.as_str()), ("00000000000000aa", "a"));
        assert_eq!(marks.version.as_str(), "1.4.2");
        assert!(marks.are_of(&owner("app-01", "/s")));
    }

    #[test]
    fn another_agents_process_is_not_ours_even_under_the_same_name() {
        let marks = parse(&environ(&owner("app-01", "/s"))).expect("marks");
        assert!(!marks.are_of(&owner("app-02", "/s")));
        assert!(!marks.are_of(&owner("app-01", "/other")));
    }

    #[test]
    fn a_process_without_all_marks_has_none() {
        assert_eq!(parse(b""), None);
        assert_eq!(parse(b"HANDOVER_INSTANCE=00000000000000aa\0"), None);
        let environ = environ(&owner("app-01", "/s"));
        let broken = String::from_utf8(environ).expect("text").replace("00000000000000aa", "not an id");
        assert_eq!(parse(broken.as_bytes()), None);
    }
}
