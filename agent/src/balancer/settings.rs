//! Which balancers are in front, as it stands in `[balancer]`.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use handover_proto::ids::SlotId;
use serde::Deserialize;

use crate::core::front::{By, Target};

/// `[balancer]`: every kind may be there at once. Empty: nobody is told, and nobody is waited for.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct BalancerSettings {
    /// How long balancers that ask `/ready` take to act on its answer: `fall × interval` and some slack. 0: none does.
    #[serde(with = "crate::duration")]
    pub settle: Duration,
    /// The port that HAProxy's agent-check asks.
    pub agent_check: Option<AgentCheckSettings>,
    /// HAProxies that are told over their Runtime API.
    pub haproxy: Vec<HaproxySettings>,
    /// Envoys that follow a file of endpoints.
    pub envoy: Vec<EnvoySettings>,
}

/// `[balancer.agent_check]`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AgentCheckSettings {
    /// Where HAProxy asks.
    pub listen: SocketAddr,
    /// Longer than two of HAProxy's `agent-inter`: within this every HAProxy has asked.
    #[serde(default = "two_polls", with = "crate::duration")]
    pub settle: Duration,
    /// Where HAProxies ask from; nobody else is answered. Empty: whoever asks is taken for one, waited for in a drain for a
    /// minute after its last question, and recorded.
    #[serde(default)]
    pub from: Vec<IpAddr>,
}

/// `agent-inter` is 2 s where the config of HAProxy does not say otherwise.
fn two_polls() -> Duration {
    Duration::from_secs(5)
}

/// `[[balancer.haproxy]]`: one HAProxy process.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HaproxySettings {
    /// Its stats socket, of level admin.
    pub socket: SocketPlace,
    /// The backend's name.
    pub backend: Name,
    /// This host's server line (mode `proxy`).
    #[serde(default)]
    pub server: Option<Name>,
    /// Each slot's server line (mode `signal`).
    #[serde(default)]
    pub servers: BTreeMap<SlotId, Name>,
}

/// `[[balancer.envoy]]`: one cluster of one Envoy on this host.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EnvoySettings {
    /// The file that its cluster's `eds_config` names. Nobody else writes it.
    pub path: PathBuf,
    /// The cluster's name.
    pub cluster: Name,
    /// Envoy follows its files with inotify, within milliseconds; this is the slack.
    #[serde(default = "a_second", with = "crate::duration")]
    pub settle: Duration,
}

fn a_second() -> Duration {
    Duration::from_secs(1)
}

/// A name that can stand in a command: letters, digits, `-`, `_`, `.` and `:`, as HAProxy itself allows.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(try_from = "String")]
pub struct Name(String);

impl TryFrom<String> for Name {
    type Error = String;
    fn try_from(text: String) -> Result<Self, String> {
        let fits = |c: char| c.is_ascii_alphanumeric() || "-_.:".contains(c);
        match !text.is_empty() && text.len() <= 128 && text.chars().all(fits) {
            true => Ok(Self(text)),
            false => {
                Err(format!("{text:?} is no name of a balancer's config: use letters, digits, '-', '_', '.' and ':'"))
            }
        }
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Where a Runtime API listens.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub enum SocketPlace {
    /// A Unix socket.
    Unix(PathBuf),
    /// `tcp:HOST:PORT`. Plain text and without a password: for a network that is trusted as the host is.
    Tcp(String),
}

impl FromStr for SocketPlace {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        match text.strip_prefix("tcp:") {
            Some(place) if place.rsplit_once(':').is_some_and(|(host, port)| !host.is_empty() && is_port(port)) => {
                Ok(Self::Tcp(place.to_owned()))
            }
            None if text.starts_with('/') => Ok(Self::Unix(text.into())),
            _ => Err(format!("{text:?} is no socket; write \"/run/haproxy/admin.sock\" or \"tcp:127.0.0.1:9999\"")),
        }
    }
}

fn is_port(text: &str) -> bool {
    text.parse::<u16>().is_ok_and(|port| port > 0)
}

impl TryFrom<String> for SocketPlace {
    type Error = String;
    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl fmt::Display for SocketPlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) => path.display().fmt(f),
            Self::Tcp(place) => write!(f, "tcp:{place}"),
        }
    }
}

impl HaproxySettings {
    /// The server line of each target.
    pub fn lines(&self) -> BTreeMap<Target, Name> {
        let host = self.server.iter().map(|name| (Target::Host, name.clone()));
        host.chain(self.servers.iter().map(|(slot, name)| (Target::Slot(slot.clone()), name.clone()))).collect()
    }
}

/// `[balancer]` does not fit the rest of the config.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{field}` {problem}; {fix}")]
pub struct SettingsError {
    /// Which field.
    pub field: &'static str,
    /// What is wrong.
    pub problem: String,
    /// What would do.
    pub fix: &'static str,
}

impl BalancerSettings {
    /// Whether nobody in front acts on what this agent says.
    pub fn are_none(&self) -> bool {
        self.settle.is_zero() && self.agent_check.is_none() && self.haproxy.is_empty() && self.envoy.is_empty()
    }

    /// Checks it against the gate's mode and the slots of the config.
    ///
    /// # Errors
    /// [`SettingsError`] with the first thing that cannot work.
    pub fn check(&self, by: By, slots: &BTreeSet<&SlotId>) -> Result<(), SettingsError> {
        let unfit = |field, problem: String, fix| Err(SettingsError { field, problem, fix });
        if self.agent_check.is_some() && !self.haproxy.is_empty() {
            let fix = "choose one: HAProxy keeps one drain flag for both, and one would undo what the other set";
            return unfit("balancer.agent_check", "is given beside [[balancer.haproxy]]".into(), fix);
        }
        for haproxy in &self.haproxy {
            let named: BTreeSet<&SlotId> = haproxy.servers.keys().collect();
            match by {
                By::Host if haproxy.server.is_none() || !named.is_empty() => {
                    let problem = format!("of {} does not fit mode = \"proxy\"", haproxy.socket);
                    return unfit("balancer.haproxy", problem, "name this host's server line: server = \"app-01\"");
                }
                By::Slot if haproxy.server.is_some() || named != *slots => {
                    let problem = format!("of {} does not fit mode = \"signal\"", haproxy.socket);
                    let fix = "name the server line of every slot and of nothing else: servers = { a = \"app-01\" }";
                    return unfit("balancer.haproxy", problem, fix);
                }
                By::Host | By::Slot => {}
            }
        }
        for envoy in &self.envoy {
            if !envoy.path.is_absolute() {
                let problem = format!("is {}", envoy.path.display());
                return unfit("balancer.envoy.path", problem, "write an absolute path, beginning with /");
            }
            if self.envoy.iter().filter(|other| other.path == envoy.path).count() > 1 {
                let problem = format!("{} is used twice", envoy.path.display());
                return unfit("balancer.envoy.path", problem, "give each cluster a file of its own");
            }
        }
        let told = !self.settle.is_zero() || self.agent_check.is_some() || !self.haproxy.is_empty();
        if by == By::Slot && !told && self.envoy.is_empty() {
            let fix = "say how the balancer in front is told, or how long it takes to act on /ready: settle = \"3s\"";
            return unfit("balancer", "is missing, and with mode = \"signal\" it alone moves traffic".into(), fix);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
