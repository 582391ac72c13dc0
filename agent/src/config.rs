//! The agent's config file: text, then fields, then a config that fits together.
//!
//! Whatever is wrong is said with the file, the field and the fix, before anything is started.

mod store;
mod tls;
mod together;

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use handover_proto::ids::{AgentId, Env, Service, SlotId};
use handover_proto::peer::Role;
use handover_store::client::Access;
use handover_tls::{Parties, PartyError, TlsError, TlsFiles};
use serde::Deserialize;

use crate::artifact::ArtifactSettings;
use crate::balancer::settings::BalancerSettings;
use crate::core::front::{By, Target};
use crate::driver::DriverSettings;
use crate::gate::settings::GateSettings;
use crate::lease::settings::LeaseSettings;
use crate::lease::socket::peer::SlotPeer;
use crate::probe::ProbeSettings;
use crate::probe::jobs::DrainSettings;
use crate::probe::settings::check_together;

/// A config file that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// It cannot be read.
    #[error("config {file}: cannot be read; give the right path with --config")]
    Unreadable {
        /// The file.
        file: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// It is not TOML, has a field that there is not, or one of the wrong kind.
    #[error("config {file}: {message}")]
    Field {
        /// The file.
        file: PathBuf,
        /// Line, field and fix.
        message: String,
    },
    /// A file of TLS that it names cannot be used.
    #[error("config {file}: {source}")]
    Tls {
        /// The config file.
        file: PathBuf,
        /// Field, file and fix.
        source: TlsError,
    },
    /// The address, or the certificate with which others are to know this agent, is not right.
    #[error("config {file}: {source}")]
    Parties {
        /// The config file.
        file: PathBuf,
        /// What, and the fix.
        source: Box<PartyError>,
    },
    /// Fields that do not fit together.
    #[error("config {file}: `{field}` {problem}; {fix}")]
    Unfit {
        /// The file.
        file: PathBuf,
        /// The field.
        field: String,
        /// What is wrong with it.
        problem: String,
        /// What would do.
        fix: String,
    },
}

/// As it stands in the file.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    agent: AgentId,
    service: Service,
    #[serde(default)]
    env: Env,
    listen: SocketAddr,
    operations: SocketAddr,
    #[serde(default)]
    host: Option<String>,
    state_dir: PathBuf,
    runtime_dir: PathBuf,
    #[serde(default)]
    store: store::StoreSettings,
    #[serde(default)]
    tls: Option<tls::TlsTable>,
    #[serde(default)]
    labels: BTreeMap<String, String>,
    gate: toml::Table,
    driver: DriverSettings,
    artifact: Option<ArtifactSettings>,
    #[serde(default, rename = "probe")]
    probes: Vec<ProbeSettings>,
    #[serde(default)]
    drain: DrainSettings,
    #[serde(default, deserialize_with = "crate::lease::preset::read")]
    lease: Option<LeaseSettings>,
    #[serde(default)]
    balancer: BalancerSettings,
    #[serde(rename = "slot")]
    slots: Vec<SlotSettings>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct SlotSettings {
    name: SlotId,
    port: u16,
    #[serde(default)]
    address: Option<IpAddr>,
    #[serde(default)]
    user: Option<String>,
    #[serde(default)]
    group: Option<String>,
}

/// A config that fits together.
#[derive(Debug, Clone)]
pub struct Config {
    /// The agent's name.
    pub agent: AgentId,
    /// The service it cares for.
    pub service: Service,
    /// The environment, the first part of every store key.
    pub env: Env,
    /// Where its gRPC surface listens.
    pub listen: SocketAddr,
    /// Where its operations port listens.
    pub operations: SocketAddr,
    /// The host's name, for people.
    pub host: String,
    /// What must survive a restart.
    pub state_dir: PathBuf,
    /// Sockets and `lease.json`; may vanish at a boot.
    pub runtime_dir: PathBuf,
    /// The way to the store.
    pub store: Access,
    /// TLS between agent and coordinators; none: plain text, on loopback alone.
    pub tls: Option<TlsFiles>,
    /// Free labels, for plans.
    pub labels: BTreeMap<String, String>,
    /// The gate; none: balancers send straight to the instances (mode `signal`).
    pub gate: Option<GateSettings>,
    /// The balancers in front.
    pub balancer: BalancerSettings,
    /// How instances are started and stopped.
    pub driver: DriverSettings,
    /// What is demanded of a version before it is started; none: nothing.
    pub artifact: Option<ArtifactSettings>,
    /// What readiness and liveness are made of.
    pub probes: Vec<ProbeSettings>,
    /// What is asked for the drain ledger.
    pub drain: DrainSettings,
    /// The scheduler lease; none: the service has no scheduler.
    pub lease: Option<LeaseSettings>,
    /// Where an instance can run, and where it listens then.
    pub slots: BTreeMap<SlotId, SocketAddr>,
    /// As whom the instances of slots run, where that is not as the agent: who may ask on `lease.sock`.
    pub callers: BTreeMap<SlotId, SlotPeer>,
}

impl Config {
    /// Reads and checks a config file.
    ///
    /// # Errors
    /// [`ConfigError`], with everything that is needed to mend it.
    pub fn read(path: &Path) -> Result<Self, ConfigError> {
        let text = std::fs::read_to_string(path)
            .map_err(|source| ConfigError::Unreadable { file: path.to_owned(), source })?;
        let config = Self::parse(path, &text)?;
        if let Some(files) = &config.store.tls {
            files.open().map_err(|source| ConfigError::Tls { file: path.to_owned(), source })?;
        }
        let fault = |error| ConfigError::Parties { file: path.to_owned(), source: Box::new(error) };
        let parties = config.parties().map_err(|source| ConfigError::Tls { file: path.to_owned(), source })?;
        parties
            .may_listen(config.listen)
            .and_then(|()| parties.am(Role::Agent(config.agent.clone())))
            .map_err(fault)?;
        Ok(config)
    }

    /// Checks the text of a config file; `path` is for messages.
    ///
    /// # Errors
    /// As [`Config::read`].
    pub fn parse(path: &Path, text: &str) -> Result<Self, ConfigError> {
        let field = |message: String| ConfigError::Field { file: path.to_owned(), message };
        let mut file: File = toml::from_str(text).map_err(|error| field(error.to_string()))?;
        let gate = gate(path, &mut file)?;
        let unfit = |field: &str, problem: String, fix: &str| ConfigError::Unfit {
            file: path.to_owned(),
            field: field.to_owned(),
            problem,
            fix: fix.to_owned(),
        };
        if let Some(gate) = &gate {
            gate.check().map_err(|error| field(error.to_string()))?;
        }
        check_together(&file.probes).map_err(|error| field(error.to_string()))?;
        if let Some(lease) = &file.lease {
            lease.check().map_err(|error| field(error.to_string()))?;
        }
        for (name, dir) in [("state_dir", &file.state_dir), ("runtime_dir", &file.runtime_dir)] {
            if !dir.is_absolute() {
                return Err(unfit(name, format!("is {}", dir.display()), "write an absolute path, beginning with /"));
            }
        }
        let tls = file.tls.take().map(tls::TlsTable::files).transpose().map_err(|error| field(error.to_string()))?;
        if tls.is_none() && !file.listen.ip().is_loopback() {
            let fix = "give ca, cert and key in [tls], or use 127.0.0.1: plain text is for loopback alone";
            return Err(unfit("listen", format!("is {}, which others can reach", file.listen), fix));
        }
        let (slots, callers) = (slots(&file, &unfit)?, callers(&file, &unfit)?);
        file.driver.check(slots.len()).map_err(|error| field(format!("in [driver]: {error}")))?;
        together::check(&file, gate.is_some(), &unfit)?;
        check_ports(&file, gate.as_ref(), &slots, &unfit)?;
        let by = if gate.is_some() { By::Host } else { By::Slot };
        file.balancer.check(by, &slots.keys().collect()).map_err(|error| field(error.to_string()))?;
        let store = file.store.access().map_err(|error| field(error.to_string()))?;
        let host = file.host.or_else(host_name).unwrap_or_else(|| "unknown".into());
        Ok(Self {
            agent: file.agent,
            service: file.service,
            env: file.env,
            listen: file.listen,
            operations: file.operations,
            host,
            state_dir: file.state_dir,
            runtime_dir: file.runtime_dir,
            store,
            tls,
            labels: file.labels,
            gate,
            balancer: file.balancer,
            driver: file.driver,
            artifact: file.artifact,
            probes: file.probes,
            drain: file.drain,
            lease: file.lease,
            slots,
            callers,
        })
    }

    /// The other processes of the environment, as this agent reaches and recognises them.
    ///
    /// # Errors
    /// [`TlsError`] if a file of `[tls]` cannot be used.
    pub fn parties(&self) -> Result<Parties, TlsError> {
        let tls = self.tls.as_ref().map(TlsFiles::open).transpose()?;
        Ok(Parties::new(self.env.clone(), tls))
    }

    /// What balancers send requests to, and where it listens.
    pub fn targets(&self) -> BTreeMap<Target, SocketAddr> {
        match &self.gate {
            Some(gate) => BTreeMap::from([(Target::Host, gate.listen)]),
            None => self.slots.iter().map(|(slot, address)| (Target::Slot(slot.clone()), *address)).collect(),
        }
    }

    /// Between what balancers in front choose.
    pub fn by(&self) -> By {
        if self.gate.is_some() { By::Host } else { By::Slot }
    }

    /// How long requests may wait in the gate while nothing runs behind it; none at all: zero. None: there is no gate, or
    /// balancers are told to send elsewhere meanwhile.
    pub fn may_hold(&self) -> Option<Duration> {
        let hold = self.gate.as_ref().map(|gate| &gate.hold).filter(|_| self.balancer.are_none())?;
        Some(if hold.count > 0 { hold.time } else { Duration::ZERO })
    }

    /// Time between SIGTERM and SIGKILL.
    pub fn grace(&self) -> Duration {
        self.driver.grace()
    }

    /// The longest that an instance may take to finish its work, and the field that says so: nothing that stops instances
    /// by itself may be quicker.
    pub fn finish(&self) -> (String, Duration) {
        let jobs = self
            .drain
            .jobs
            .iter()
            .filter_map(|jobs| Some((format!("drain.jobs {}, deadline", jobs.name), jobs.policy?.deadline())));
        let grace = ("driver.grace".to_owned(), self.grace());
        jobs.fold(grace, |longest, one| if one.1 > longest.1 { one } else { longest })
    }
}

type Unfit<'a> = dyn Fn(&str, String, &str) -> ConfigError + 'a;

/// The gate's table, with the paths that follow from the directories put in; none in mode `signal`.
fn gate(path: &Path, file: &mut File) -> Result<Option<GateSettings>, ConfigError> {
    let unfit = |problem: &str, fix: &str| ConfigError::Unfit {
        file: path.to_owned(),
        field: "gate.mode".into(),
        problem: problem.into(),
        fix: fix.into(),
    };
    match file.gate.get("mode").and_then(toml::Value::as_str) {
        Some("proxy" | "tcp") => {}
        Some("signal") if file.gate.len() == 1 => return Ok(None),
        Some("signal") => {
            let fix = "leave everything else in [gate] away, or use \"proxy\" or \"tcp\"";
            return Err(unfit("is \"signal\": there is no gate then, and nothing to set about it", fix));
        }
        Some(other) => return Err(unfit(&format!("is {other:?}"), "use \"proxy\", \"tcp\" or \"signal\"")),
        None => {
            let fix = "say mode = \"proxy\" or \"tcp\": a gate is then in front of the instances; or \"signal\": a balancer is";
            return Err(unfit("is missing", fix));
        }
    }
    let defaults = [("control", file.runtime_dir.join("gate.sock")), ("state_file", file.state_dir.join("gate.json"))];
    for (name, default) in defaults {
        let default = toml::Value::String(default.to_string_lossy().into_owned());
        file.gate.entry(name).or_insert(default);
    }
    let message = |error: toml::de::Error| format!("in [gate]: {error}");
    let table = std::mem::take(&mut file.gate);
    let gate = table.try_into();
    gate.map(Some).map_err(|error| ConfigError::Field { file: path.to_owned(), message: message(error) })
}

fn slots(file: &File, unfit: &Unfit<'_>) -> Result<BTreeMap<SlotId, SocketAddr>, ConfigError> {
    let mut slots = BTreeMap::new();
    for slot in &file.slots {
        let address = SocketAddr::new(slot.address.unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST)), slot.port);
        if slots.insert(slot.name.clone(), address).is_some() {
            return Err(unfit("slot.name", format!("{:?} is used twice", slot.name.as_str()), "name each slot once"));
        }
    }
    if slots.is_empty() {
        return Err(unfit("slot", "is empty".into(), "add at least one [[slot]] with a name and a port"));
    }
    Ok(slots)
}

/// As whom the instances of slots run, where the config says so.
fn callers(file: &File, unfit: &Unfit<'_>) -> Result<BTreeMap<SlotId, SlotPeer>, ConfigError> {
    let user = |name: &str| nix::unistd::User::from_name(name).ok().flatten().map(|user| user.uid.as_raw());
    let group = |name: &str| nix::unistd::Group::from_name(name).ok().flatten().map(|group| group.gid.as_raw());
    let id = |field: &str, name: &Option<String>, find: &dyn Fn(&str) -> Option<u32>| match name {
        Some(name) => match name.parse().ok().or_else(|| find(name)) {
            Some(id) => Ok(Some(id)),
            None => Err(unfit(field, format!("is {name:?}, which this host does not know"), "give a name or a number")),
        },
        None => Ok(None),
    };
    let peer = |slot: &SlotSettings| {
        let (uid, gid) = (id("slot.user", &slot.user, &user)?, id("slot.group", &slot.group, &group)?);
        Ok((slot.name.clone(), SlotPeer { uid, gid }))
    };
    file.slots.iter().map(peer).filter(|peer| !matches!(peer, Ok((_, peer)) if *peer == SlotPeer::default())).collect()
}

/// Two listeners on one port would be found only when the second one starts, in the middle of a rollout.
fn check_ports(
    file: &File,
    gate: Option<&GateSettings>,
    slots: &BTreeMap<SlotId, SocketAddr>,
    unfit: &Unfit<'_>,
) -> Result<(), ConfigError> {
    let check = file.balancer.agent_check.as_ref().map(|check| ("balancer.agent_check.listen", check.listen));
    let fixed = [("listen", file.listen), ("operations", file.operations)].into_iter().chain(check);
    let named = fixed.chain(gate.map(|gate| ("gate.listen", gate.listen)));
    let named = named.map(|(name, address)| (name.to_owned(), address));
    let mut seen = BTreeSet::new();
    for (name, address) in named.chain(slots.iter().map(|(slot, address)| (format!("slot {slot}"), *address))) {
        if address.port() == 0 {
            return Err(unfit(&name, "has port 0".into(), "name a port, since others must find it"));
        }
        if !seen.insert(address.port()) {
            let problem = format!("has port {}, which another field has too", address.port());
            return Err(unfit(&name, problem, "give each listener a port of its own"));
        }
    }
    Ok(())
}

fn host_name() -> Option<String> {
    nix::unistd::gethostname().ok()?.into_string().ok()
}

#[cfg(test)]
mod tests;
