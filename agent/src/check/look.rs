//! The look itself: asks the kernel, systemd, the store and the service, and changes nothing.

mod place;
mod store;

use std::net::SocketAddr;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use handover_proto::ids::{InstanceId, SlotId};
use handover_tls::TlsFiles;
use handover_tls::validity;
use tokio::sync::Notify;

use super::facts::{Certificate, Facts, Listener, Owner, SlotFacts};
use super::units::{self, UnitState};
use crate::config::Config;
use crate::driver::{self, Driver, DriverSettings, Opening};
use crate::probe::{Check, ProbeSettings, Reading, Target, look_once};

/// Whatever listens on the host itself answers within milliseconds.
const PATIENCE: Duration = Duration::from_secs(2);

pub(super) async fn look(config: &Config) -> Facts {
    let agent_runs = agent_runs(config).await.unwrap_or(false);
    let gate_runs = config.gate.as_ref().is_some_and(|gate| place::answers(&gate.control));
    Facts {
        agent_runs,
        gate_runs,
        directories: place::directories(config),
        keys: place::keys(config),
        certificates: certificates(config),
        listeners: listeners(config),
        slot_units: slot_units(config).await,
        units: own_units(config),
        store: store::look(config).await,
        slots: slots(config).await,
    }
}

fn certificates(config: &Config) -> Vec<Certificate> {
    let state = |files: &TlsFiles| {
        let tls = files.open().map_err(|error| crate::report::chain(&error))?;
        let validity = tls.validity().ok_or("it does not say until when it is valid")?;
        Ok((validity::text(validity.until), validity.alarm(SystemTime::now())))
    };
    let all = [config.store.tls.as_ref(), config.tls.as_ref()].into_iter().flatten();
    all.map(|files| Certificate { field: format!("{}cert", files.prefix), state: state(files) }).collect()
}

fn listeners(config: &Config) -> Vec<Listener> {
    let fixed = [("listen", config.listen, Owner::Agent), ("operations", config.operations, Owner::Agent)];
    let mut all: Vec<_> = fixed.into_iter().map(|(field, address, owner)| (field.to_owned(), address, owner)).collect();
    all.extend(config.gate.iter().map(|gate| ("gate.listen".to_owned(), gate.listen, Owner::Gate)));
    let check = config.balancer.agent_check.iter();
    all.extend(check.map(|check| ("balancer.agent_check.listen".to_owned(), check.listen, Owner::Agent)));
    let slots = config.slots.iter();
    all.extend(slots.map(|(slot, address)| (format!("slot {slot}"), *address, Owner::Slot(slot.clone()))));
    let listener = |(field, address, owner)| Listener { field, address, owner, bound: place::try_bind(address) };
    all.into_iter().map(listener).collect()
}

/// Opens the driver for one slot after the other, so that each gets its own verdict.
async fn slot_units(config: &Config) -> Vec<Result<SlotId, String>> {
    if !matches!(config.driver, DriverSettings::Systemd(_)) {
        return Vec::new();
    }
    let mut all = Vec::new();
    for slot in config.slots.keys() {
        let opening = Opening {
            owner: driver::Owner {
                env: config.env.clone(),
                service: config.service.clone(),
                agent: config.agent.clone(),
                state_dir: config.state_dir.clone(),
            },
            slots: vec![slot.clone()],
            runtime_dir: config.runtime_dir.clone(),
            finish: config.finish(),
            wake: Arc::new(Notify::new()),
        };
        let opened = Driver::open(&config.driver, opening).await;
        all.push(opened.map(|_| slot.clone()).map_err(|error| crate::report::chain(&error)));
    }
    all
}

fn own_units(config: &Config) -> Option<Vec<UnitState>> {
    let mut command = Command::new("systemctl");
    command.args(["show", units::PROPERTIES, &format!("handover-agent@{}.service", config.service)]);
    command.args(config.gate.iter().map(|_| format!("handover-gate@{}.service", config.service)));
    let done = command.stdin(Stdio::null()).stderr(Stdio::null()).output().ok()?;
    done.status.success().then(|| units::parse(&String::from_utf8_lossy(&done.stdout)))
}

async fn slots(config: &Config) -> Vec<SlotFacts> {
    let mut all = Vec::new();
    for (slot, address) in &config.slots {
        let connected = tokio::time::timeout(PATIENCE, tokio::net::TcpStream::connect(address)).await;
        let probes = match connected {
            Ok(Ok(_)) => probes(config, slot, *address).await,
            Ok(Err(_)) | Err(_) => None,
        };
        all.push(SlotFacts { slot: slot.clone(), probes });
    }
    all
}

/// Whether this config's agent answers on its operations port.
async fn agent_runs(config: &Config) -> Option<bool> {
    let field = format!(
        "name = \"agent\"\naffects = \"report\"\ninterval = \"1s\"\ntimeout = \"1s\"\nhttp = {{ path = \"/status\", field = \"agent\", equals = \"{}\" }}",
        config.agent
    );
    let probe: ProbeSettings = toml::from_str(&field).ok()?;
    let slot = config.slots.keys().next()?;
    let reading = look_once(&probe, &target(config, slot, config.operations)?).await;
    Some(matches!(reading, Reading::Good(_)))
}

/// Where a probe looks. A version and an instance are for placeholders of commands alone, which are not run.
fn target(config: &Config, slot: &SlotId, address: SocketAddr) -> Option<Target> {
    let values = driver::Values {
        port: address.port(),
        version: "0".parse().ok()?,
        slot: slot.clone(),
        builds: config.driver.builds().to_owned(),
        instance: InstanceId::random(),
        state_dir: config.state_dir.clone(),
    };
    Some(Target { host: address.ip(), values })
}

/// What each probe reads there.
async fn probes(config: &Config, slot: &SlotId, address: SocketAddr) -> Option<Vec<(String, Reading)>> {
    let target = target(config, slot, address)?;
    let mut all = Vec::new();
    for probe in &config.probes {
        let reading = match probe.check {
            Check::Exec(_) => Reading::NotTaken("a command, which the agent alone can run".to_owned()),
            Check::Http(_) | Check::Tcp(_) => look_once(probe, &target).await,
        };
        all.push((probe.name.clone(), reading));
    }
    Some(all)
}
