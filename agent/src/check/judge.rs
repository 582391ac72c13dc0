//! What the facts mean. Pure.

mod store;

use std::time::Duration;

use handover_tls::validity::Alarm;

use super::facts::{Bound, Certificate, Directory, DirectoryState, Facts, Listener, Owner};
use super::units::UnitState;
use super::{Finding, Verdict};
use crate::config::Config;
use crate::driver::DriverSettings;
use crate::lease::settings::LeaseSettings;
use crate::probe::Reading;

/// Between the last request's limit and the end of the process: what the packaged unit leaves, too.
const MARGIN: Duration = Duration::from_secs(10);

/// What the config alone says.
pub fn config(config: &Config) -> Vec<Finding> {
    let front = config.gate.as_ref().map(|gate| format!("behind the gate on {}", gate.listen));
    let front = front.unwrap_or_else(|| "behind balancers that send straight to its instances".into());
    let sentence = format!(
        "agent {} of service {} in {}, {} slot{} {front}",
        config.agent,
        config.service,
        config.env,
        config.slots.len(),
        if config.slots.len() == 1 { "" } else { "s" }
    );
    let mut all = vec![Finding::ok("config", sentence)];
    let thin = config.lease.as_ref().and_then(LeaseSettings::warning);
    all.extend(thin.map(|warning| Finding::warn("config", warning, "give the lease a longer ttl, or accept it")));
    all
}

/// What the host says.
pub fn host(config: &Config, facts: &Facts) -> Vec<Finding> {
    let mut all: Vec<Finding> = facts.directories.iter().map(directory).collect();
    // For a group it may be: that is how several services share one.
    all.extend(facts.keys.iter().filter(|(_, mode)| mode & 0o007 != 0).map(|(path, mode)| {
        let sentence = format!("others may read the private key {} (mode {mode:o})", path.display());
        Finding::fail("directories", sentence, format!("chmod o= {}", path.display()))
    }));
    all.extend(facts.certificates.iter().map(certificate));
    all.extend(facts.listeners.iter().map(|one| listener(one, facts)));
    all.extend(slot_units(facts));
    all.extend(own_units(config, facts));
    all.extend(store::findings(config, &facts.store));
    all.extend(service(facts));
    all
}

fn directory(directory: &Directory) -> Finding {
    const CHECK: &str = "directories";
    let Directory { field, path, state, volatile } = directory;
    let path = path.display();
    let run_as_root = format!("mkdir -p {path}, and let the agent's user write there; or run this as that user");
    match state {
        DirectoryState::NoDirectory => {
            Finding::fail(CHECK, format!("`{field}` {path} is no directory"), "move it away")
        }
        DirectoryState::Missing => {
            Finding::fail(CHECK, format!("`{field}` {path} is not there, and this user cannot make it"), run_as_root)
        }
        DirectoryState::Locked => {
            Finding::fail(CHECK, format!("this user may not write to `{field}` {path}"), run_as_root)
        }
        DirectoryState::Writable | DirectoryState::CanBeMade if *volatile && *field == "state_dir" => {
            let sentence =
                format!("`{field}` {path} is in memory: the agent would forget what it did at the next boot");
            Finding::fail(CHECK, sentence, "choose a directory on a disk, such as /var/lib/handover/SERVICE")
        }
        DirectoryState::CanBeMade if *field == "driver.builds" => {
            let fix = format!("mkdir -p {path}, and put each version into a directory of its own there");
            Finding::warn(CHECK, format!("`{field}` {path} is not there: there is nothing to start"), fix)
        }
        DirectoryState::CanBeMade => Finding::ok(CHECK, format!("`{field}` {path} will be made")),
        DirectoryState::Writable => Finding::ok(CHECK, format!("`{field}` {path} can be written to")),
    }
}

fn certificate(one: &Certificate) -> Finding {
    const CHECK: &str = "certificates";
    let Certificate { field, state } = one;
    let renew = "have it renewed; it is read again by itself";
    match state {
        // The files' sentences end with what to do.
        Err(reason) => Finding::fail(CHECK, format!("`{field}`: {reason}"), "as it says"),
        Ok((until, None)) => Finding::ok(CHECK, format!("`{field}` is valid until {until}")),
        Ok((until, Some(Alarm::Third))) => {
            Finding::warn(CHECK, format!("`{field}` is valid until {until} only"), renew)
        }
        Ok((until, Some(Alarm::Expired))) => {
            Finding::fail(CHECK, format!("`{field}` was valid until {until}: no lease is renewed any more"), renew)
        }
        Ok((until, Some(Alarm::Tenth))) => {
            Finding::fail(CHECK, format!("`{field}` is valid until {until}: then no lease is renewed"), renew)
        }
    }
}

fn listener(one: &Listener, facts: &Facts) -> Finding {
    const CHECK: &str = "ports";
    let Listener { field, address, owner, bound } = one;
    let runs = match owner {
        Owner::Agent | Owner::Slot(_) => facts.agent_runs,
        Owner::Gate => facts.gate_runs,
    };
    let port = address.port();
    let find = format!("ss -ltnp 'sport = :{port}' shows who; stop that, or choose another port");
    match (bound, owner) {
        (Bound::Free, _) if runs && !matches!(owner, Owner::Slot(_)) => {
            let sentence = format!("`{field}`: nobody listens on {address}, although what should runs");
            Finding::warn(CHECK, sentence, "it may still run with an older config: restart the agent, reload the gate")
        }
        (Bound::Free, _) => Finding::ok(CHECK, format!("`{field}`: {address} is free")),
        (Bound::InUse, _) if runs => Finding::ok(CHECK, format!("`{field}`: {address} is in use, as it should be")),
        (Bound::InUse, Owner::Slot(_)) => {
            let sentence = format!("`{field}`: something listens on {address}, and no agent runs");
            Finding::warn(CHECK, sentence, format!("an instance of before is adopted; otherwise: {find}"))
        }
        (Bound::InUse, _) => Finding::fail(CHECK, format!("`{field}`: somebody else listens on {address}"), find),
        (Bound::NotHere, _) => {
            let fix = "ip -br address lists this host's addresses";
            Finding::fail(CHECK, format!("`{field}`: this host has no address {}", address.ip()), fix)
        }
        (Bound::Denied, _) => {
            let sentence = format!("`{field}`: this user may not listen on {address}");
            Finding::fail(CHECK, sentence, "run this as root, as the units do, or choose a port above 1023")
        }
        (Bound::Failed(reason), _) => Finding::fail(CHECK, format!("`{field}`: {address}: {reason}"), "choose another"),
    }
}

fn slot_units(facts: &Facts) -> Vec<Finding> {
    let finding = |unit: &Result<_, String>| match unit {
        Ok(slot) => Finding::ok("units", format!("the unit of slot {slot} fits")),
        // The driver's sentences end with what to write.
        Err(sentence) => Finding::fail("units", sentence.clone(), "as it says; then systemctl daemon-reload"),
    };
    facts.slot_units.iter().map(finding).collect()
}

fn own_units(config: &Config, facts: &Facts) -> Vec<Finding> {
    const CHECK: &str = "units";
    let Some(units) = &facts.units else {
        return match config.driver {
            DriverSettings::Systemd(_) => Vec::new(),
            _ => vec![Finding::ok(CHECK, "there is no systemd here: whatever starts the agent has to start it again")],
        };
    };
    let mut all: Vec<Finding> = units.iter().map(own_unit).collect();
    all.extend(units.iter().filter_map(|unit| cut_short(config, unit)));
    let starts_itself = !matches!(config.driver, DriverSettings::Systemd(_));
    let confined = |unit: &&UnitState| unit.name.starts_with("handover-agent@") && unit.loaded && unit.confined;
    all.extend(units.iter().find(confined).filter(|_| starts_itself).map(|unit| {
        let sentence = format!("instances that the agent starts itself would live in the sandbox of {}", unit.name);
        let from = "/usr/share/doc/handover-agent/examples/unconfined.conf";
        let fix = format!(
            "install -D -m644 {from} /etc/systemd/system/{}.d/unconfined.conf; systemctl daemon-reload",
            unit.name
        );
        Finding::fail(CHECK, sentence, fix)
    }));
    all
}

/// The gate finishes what is in flight when it is told to stop; systemd must not end it before.
fn cut_short(config: &Config, unit: &UnitState) -> Option<Finding> {
    let wants =
        config.gate.as_ref().filter(|_| unit.name.starts_with("handover-gate@") && unit.loaded)?.limits.stop_time;
    let limit = unit.stop_limit.filter(|limit| *limit <= wants)?;
    let text = crate::duration::render;
    let sentence = format!(
        "{} is killed {} after it was told to stop (TimeoutStopSec=), and requests may finish for {} (limits.stop_time)",
        unit.name,
        text(limit),
        text(wants)
    );
    let longer = wants.saturating_add(MARGIN).as_secs();
    let fix =
        format!("systemctl edit {}: [Service] TimeoutStopSec={longer}s; or a shorter limits.stop_time", unit.name);
    Some(Finding::fail("units", sentence, fix))
}

fn own_unit(unit: &UnitState) -> Finding {
    const CHECK: &str = "units";
    let name = &unit.name;
    if !unit.loaded {
        let fix = "apt install ./handover-agent_VERSION_ARCH.deb, or copy systemd/ to /etc/systemd/system";
        return Finding::warn(CHECK, format!("{name} is not installed"), fix);
    }
    match (unit.active, unit.enabled) {
        (true, true) => Finding::ok(CHECK, format!("{name} runs, and is started at each boot")),
        (true, false) => {
            let fix = format!("systemctl enable {name}");
            Finding::warn(CHECK, format!("{name} runs, but not after the next boot"), fix)
        }
        (false, true) => {
            let fix = format!("systemctl start {name}; journalctl -u {name} says why if it does not come up");
            Finding::warn(CHECK, format!("{name} does not run"), fix)
        }
        (false, false) => Finding::warn(
            CHECK,
            format!("{name} neither runs nor is started at a boot"),
            format!("systemctl enable --now {name}"),
        ),
    }
}

fn service(facts: &Facts) -> Vec<Finding> {
    const CHECK: &str = "service";
    let mut all = Vec::new();
    for slot in &facts.slots {
        let name = &slot.slot;
        let Some(probes) = &slot.probes else {
            all.push(Finding::ok(CHECK, format!("slot {name}: nothing runs there")));
            continue;
        };
        all.extend(probes.iter().map(|(probe, reading)| match reading {
            Reading::Good(text) => Finding::ok(CHECK, format!("slot {name}, {probe}: {text}")),
            Reading::Bad(text) => {
                let fix = "ask it with curl; the instance's log says more. Until it holds it gets no traffic";
                Finding::warn(CHECK, format!("slot {name}, {probe}: {text}"), fix)
            }
            Reading::NotTaken(why) => Finding::ok(CHECK, format!("slot {name}, {probe}: not looked at ({why})")),
        }));
    }
    all
}

/// 0: nothing fails; 1 otherwise.
pub fn exit_code(findings: &[Finding]) -> u8 {
    u8::from(findings.iter().any(|finding| finding.verdict == Verdict::Fail))
}

#[cfg(test)]
mod tests;
