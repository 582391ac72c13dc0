//! A run, told in sentences: who did what, and what the world looked like after it where that changed.

use std::fmt::Write;

use stateright::Model;

use crate::bounds::AGE_MAX;
use crate::rules::{Rules, Step};
use crate::service::Which;
use crate::state::{Etcd, Host, Instance, Kind, Lease, Pause, Phase, Renew, Standing, State, Told, Unit};
use crate::world::Slip;

/// One line for each step, and a line of the state where it changed what matters.
pub fn tell(rules: &Rules, steps: &[Step]) -> String {
    let mut text = String::new();
    let Some(mut state) = rules.init_states().pop() else { return text };
    let _ = writeln!(text, "     at first: {}", picture(rules, &state));
    for (number, step) in steps.iter().enumerate() {
        let _ = writeln!(text, "{:>3}. {}", number + 1, sentence(*step, &state));
        let Some(next) = rules.next_state(&state, *step) else {
            let _ = writeln!(text, "     (this step cannot be taken here)");
            return text;
        };
        let (before, after) = (picture(rules, &state), picture(rules, &next));
        if before != after {
            let _ = writeln!(text, "     {after}");
        }
        state = next;
    }
    text
}

fn name(host: usize) -> char {
    [b'A', b'B', b'C'].get(host).map_or('?', |name| char::from(*name))
}

fn instance(who: Instance) -> String {
    match who.life {
        0 => name(usize::from(who.host)).to_string(),
        life => format!("{}{}", name(usize::from(who.host)), "'".repeat(usize::from(life))),
    }
}

/// What a step is, in words. `state` is the one before it.
pub fn sentence(step: Step, state: &State) -> String {
    match step {
        Step::Tick(None) => "time goes on by one tick".to_owned(),
        Step::Tick(Some((host, Slip::Slow))) => {
            format!("time goes on by one tick; the clock of host {} does not", name(host))
        }
        Step::Tick(Some((host, Slip::Fast))) => {
            format!("time goes on by one tick; the clock of host {} by two", name(host))
        }
        Step::EndLease(host, no, early) => {
            let why = if early { "revokes (before its time)" } else { "expires" };
            format!("etcd {why} lease {}{no}", name(host))
        }
        Step::Deliver(host, slot) => {
            let kind = transaction(state.hosts[host].wires[slot].kind);
            format!("{kind} of agent {} arrives at etcd", name(host))
        }
        Step::Ask(to) => format!("the coordinator asks for a hand-over to {}", name(to)),
        Step::Restore => "etcd is restored from its backup".to_owned(),
        Step::RaiseEra => "the operator raises the era".to_owned(),
        step => of_host(step, state),
    }
}

fn of_host(step: Step, state: &State) -> String {
    let (host, what) = match step {
        Step::Grant(host, short) => {
            (host, if short { "grants itself a lease, for less than it asked" } else { "grants itself a lease" })
        }
        Step::Adopt(host) => (host, "takes up the lease that it finds in the store"),
        Step::Stand(host) => (host, "writes its candidate key"),
        Step::Renew(host, true) => (host, "sends a keep-alive; the leader renews the lease and answers"),
        Step::Renew(host, false) => (host, "sends a keep-alive; a deposed leader answers and renews nothing"),
        Step::RenewAgain(host) => {
            (host, "sends a second keep-alive, which is lost; the answer to the first is still on its way")
        }
        Step::Barrier(host, false) => (host, "gets the answers of keep-alive and barrier, and judges the renewal"),
        Step::Barrier(host, true) => (host, "gets the answers of keep-alive and of a barrier that read an old state"),
        Step::Read(host) => (host, "reads the lease's keys"),
        Step::Observe(host) => (host, "reads that the holder's beat is gone; its quarantine begins"),
        Step::Certify(host) => (host, "gets the certificate of the holder's agent that its service has stopped"),
        Step::Activate(host) => (host, "tells its service ACTIVE"),
        Step::Quiesce(host) => (host, "tells its service QUIESCE"),
        Step::AcceptEra(host) => (host, "believes the restored store, since the era was raised"),
        Step::Take(host) if state.etcd.holder.held => (host, "sends T2 (take over)"),
        Step::Take(host) => (host, "sends T1 (acquire)"),
        Step::HandOver(host) => (host, "sends T3 (hand over)"),
        Step::Release(host) => (host, "sends T4 (release, with a proof of stop)"),
        Step::Mint(host) => (host, "sends T5 (same holder, new token)"),
        Step::Resolve(host) => (host, "learns what became of its transaction, or gives up waiting for an answer"),
        Step::CrashAgent(host) => (host, "crashes"),
        Step::StartAgent(host) => (host, "starts again"),
        step => return of_service(step),
    };
    format!("agent {} {what}", name(host))
}

fn of_service(step: Step) -> String {
    let whose = |which: Which| match which {
        Which::Present => "its unit of work",
        Which::Left => "the unit of work of its dead process",
    };
    let (host, what) = match step {
        Step::Install(host) => (host, "installs its token".to_owned()),
        Step::Begin(host) => (host, "begins a unit of work".to_owned()),
        Step::Check(host, which) => (host, format!("checks the fence in {}", whose(which))),
        Step::Commit(host, which) => (host, format!("commits {}", whose(which))),
        Step::EndUnit(host, which) => (host, format!("ends {} without an effect", whose(which))),
        Step::Abort(host) => (host, "has its transaction aborted by the database".to_owned()),
        Step::Hang(host) => (host, "hangs in its unit of work, whatever it is told".to_owned()),
        Step::Kill(host) => (host, "is killed, every process of it".to_owned()),
        Step::Crash(host, false) => (host, "crashes".to_owned()),
        Step::Crash(host, true) => (host, "crashes; a child of it works on".to_owned()),
        Step::StartProcess(host) => (host, "is started anew".to_owned()),
        Step::Pause(host, Pause::Undetected) => return format!("host {} is paused, with all its clocks", name(host)),
        Step::Pause(host, _) => return format!("host {} is suspended", name(host)),
        Step::Resume(host) => return format!("host {} goes on", name(host)),
        step => return format!("{step:?}"),
    };
    format!("service {} {what}", name(host))
}

fn transaction(kind: Kind) -> &'static str {
    match kind {
        Kind::None => "nothing",
        Kind::Acquire => "T1",
        Kind::TakeOver => "T2",
        Kind::HandOver => "T3",
        Kind::Release => "T4",
        Kind::Mint => "T5",
    }
}

/// The state in one line, without what is as it always is.
pub fn picture(rules: &Rules, state: &State) -> String {
    let hosts = state.hosts.iter().take(usize::from(rules.bounds.hosts)).enumerate();
    let hosts: Vec<String> = hosts.map(|(number, host)| of(number, host, &state.etcd)).collect();
    format!("[{} | {} | fence #{}]", store(&state.etcd), hosts.join(" | "), state.fence.token)
}

fn store(etcd: &Etcd) -> String {
    let holder = &etcd.holder;
    let mut text = match (holder.rev, holder.held) {
        (0, _) => "never held".to_owned(),
        (rev, true) => format!("HELD by {} #{rev}", instance(holder.who)),
        (rev, false) => format!("FREE #{rev}"),
    };
    match etcd.beat {
        Some(beat) => {
            let _ = write!(
                text,
                ", beat of {} #{} on lease {}{}",
                instance(beat.who),
                beat.rev,
                name(usize::from(beat.who.host)),
                beat.lease
            );
        }
        None if holder.held => text.push_str(", no beat"),
        None => {}
    }
    if let Some(intent) = etcd.open_intent() {
        let _ = write!(text, ", intent {} to {}", instance(intent.from), instance(intent.to));
    }
    text
}

fn of(number: usize, host: &Host, etcd: &Etcd) -> String {
    let (agent, service) = (&host.agent, &host.service);
    let mut text = format!("{}:", instance(Instance { host: number as u8, life: service.life }));
    if host.pause != Pause::No {
        text.push_str(" PAUSED");
    }
    if !agent.up {
        text.push_str(" agent down");
    }
    match etcd.lease(number as u8, agent.lease) {
        Lease::Alive { left, .. } => {
            let _ = write!(text, " lease {}{} has {left}", name(number), agent.lease);
        }
        Lease::Dead if agent.lease != 0 => {
            let _ = write!(text, " lease {}{} is dead", name(number), agent.lease);
        }
        Lease::Dead => {}
    }
    if agent.age < AGE_MAX {
        let _ = write!(text, ", base {} old", agent.age);
    }
    if let Renew::Acked { age, .. } = agent.renew {
        let _ = write!(text, ", answer {age} old");
    }
    match agent.turn.map(|turn| (turn.rev, turn.standing)) {
        Some((rev, Standing::Good)) => drop(write!(text, ", turn #{rev}")),
        Some((rev, Standing::Lost)) => drop(write!(text, ", turn #{rev} lost")),
        Some((rev, Standing::Over)) => drop(write!(text, ", turn #{rev} over")),
        None => {}
    }
    if let Some(wait) = agent.wait {
        let _ = write!(text, ", has waited {}", wait.waited);
    }
    match (service.up, service.told) {
        (false, _) => text.push_str(", service dead"),
        (true, Told::Active) => drop(write!(text, ", told ACTIVE #{} ({} old)", service.token, service.age)),
        (true, Told::Quiesce) => text.push_str(", told QUIESCE"),
        (true, Told::Stopped) => {}
    }
    text + &unit(&service.unit, "works") + &unit(&service.rest, "left behind:")
}

fn unit(unit: &Unit, word: &str) -> String {
    let hung = if unit.hung { ", hung" } else { "" };
    match unit.phase {
        Phase::None => String::new(),
        Phase::Begun => format!(", {word} (#{}{hung})", unit.token),
        Phase::Checked => format!(", {word} (#{}, has passed the fence{hung})", unit.token),
        Phase::Doomed => format!(", {word} (#{}, cannot commit{hung})", unit.token),
        Phase::Orphan => format!(", {word} a COMMIT under way (#{})", unit.token),
    }
}
