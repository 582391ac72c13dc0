//! The nemeses of `SAFETY.md` §3.1, as one closed list. Each begins something at the running site, says what it did and what
//! that may cost, and leaves behind how it is undone.
//!
//! | number | file |
//! |---|---|
//! | N1 kills, N2 stops | [`process`] |
//! | N3 cuts, N4 bad wires | [`network`] |
//! | N5 slow disk, N6 members, N7 space and history, N8 an operator's hand | [`store`] |
//! | N10 wall clocks | [`clock`] |
//! | N16 the database | [`database`] |
//! | N17 the service itself | [`app`] |
//! | N18 two coordinators | [`coordinator`] |
//! | several of them, each when the one before has come to its end | [`plot`] |

pub mod app;
pub mod clock;
pub mod coordinator;
pub mod database;
pub mod network;
pub mod plot;
pub mod process;
pub mod store;

use std::time::Duration;

use anyhow::{Context, Result};
use serde::Serialize;
use serde_json::Value;

use super::checkers::Window;
use super::record::Recorder;
use super::site::Site;
use crate::clock::BootNs;
use app::AppFault;
use coordinator::Rival;
use database::DatabaseFault;
use network::{Bend, Cut};
use plot::Plot;
use process::Victim;
use store::{Hand, StoreFault};

/// Everything that can be done to a site.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub enum Nemesis {
    /// N1.
    Kill(Victim),
    /// N2.
    Freeze(Victim),
    /// N3.
    Cut(Cut),
    /// N4, at the holder's host.
    Wire(Bend),
    /// N5 to N7.
    Store(StoreFault),
    /// N8.
    Operator(Hand),
    /// N10, at the holder's host: the wall clock moves by so many seconds.
    Clock(i64),
    /// N10, at the holder's host: the wall clock runs so many per cent too fast; too slow, if negative.
    Slew(i8),
    /// N16.
    Database(DatabaseFault),
    /// N17, at the holder's host.
    App(AppFault),
    /// N18.
    Coordinator(Rival),
    /// N3 to N5, in several parts.
    Plot(Plot),
}

impl Nemesis {
    /// Whether it needs coordinators, or an operator at a terminal.
    pub fn needs_coordinators(&self) -> bool {
        matches!(
            self,
            Self::Coordinator(_)
                | Self::Cut(Cut::HolderCoordinators)
                | Self::Store(StoreFault::Restore | StoreFault::RestoreAlike)
        )
    }

    /// Whether agents need wires to etcd that can be bent.
    pub fn needs_wires(&self) -> bool {
        matches!(self, Self::Wire(_) | Self::Plot(Plot::LateRelease | Plot::DeposedAnswer))
    }

    /// Its number in `SAFETY.md` §3.1.
    pub fn number(&self) -> &'static str {
        match self {
            Self::Kill(_) => "N1",
            Self::Freeze(_) => "N2",
            Self::Cut(_) => "N3",
            Self::Wire(_) => "N4",
            Self::Store(StoreFault::StallWal) => "N5",
            Self::Store(
                StoreFault::MoveLeader
                | StoreFault::LoseMember
                | StoreFault::ReplaceMember
                | StoreFault::LoseQuorum
                | StoreFault::RestartAll,
            ) => "N6",
            Self::Store(StoreFault::NoSpace | StoreFault::Compact | StoreFault::Restore | StoreFault::RestoreAlike) => {
                "N7"
            }
            Self::Operator(_) => "N8",
            Self::Clock(_) | Self::Slew(_) => "N10",
            Self::Database(_) => "N16",
            Self::App(_) => "N17",
            Self::Coordinator(_) => "N18",
            Self::Plot(Plot::Reborn) => "N3",
            Self::Plot(Plot::LateRelease) => "N4",
            Self::Plot(Plot::DeposedAnswer) => "N5",
        }
    }
}

/// What was done, and what the checkers have to know of it.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Deed {
    /// The nemesis's number and what it hit.
    pub what: String,
    /// The nemesis alone, for sums over schedules.
    pub cause: String,
    /// From its beginning until it was undone.
    pub window: Option<Window>,
    /// How long the work may rest after that (`SAFETY.md` §1.9).
    pub after: Duration,
    /// Hosts whose traffic may suffer.
    pub hosts: Vec<String>,
    /// How long beyond its end it may.
    pub traffic_after: Duration,
    /// Hosts whose agent says nothing meanwhile.
    pub silent: Vec<String>,
    /// Instances that were stopped without noticing.
    pub paused: Vec<String>,
    /// The service lies about its own work: what it did not keep to, nobody can hold it to but the fence.
    pub lies: bool,
    /// Revisions above this one may be an operator's.
    pub by_hand: Vec<i64>,
    /// Why it could not be done, if it could not.
    pub failed: Option<String>,
}

/// How a deed is undone.
#[derive(Default)]
pub enum Undo {
    /// Nothing to do.
    #[default]
    Nothing,
    /// Let these process groups go on.
    Continue(Vec<i32>),
    /// Let these pairs talk again.
    Heal(Vec<(String, String)>),
    /// Straighten the wires of a host.
    Straighten(usize),
    /// Each of these.
    All(Vec<Undo>),
    /// Put a new member in the place of one that was removed.
    NewMember(usize),
    /// End this helper of ours: a tracer, or a client that holds a lock.
    End(crate::fleet::Process),
    /// Start these members again.
    Members(Vec<usize>),
    /// Start an agent again.
    Agent(usize),
    /// Start a gate again.
    Gate(usize),
    /// Start these coordinators again.
    Coordinators(Vec<usize>),
    /// Take the alarm back.
    Disarm,
    /// Delete a key that nobody can read.
    Delete(String),
    /// Set the wall clock of a host right.
    SetClock(usize),
    /// Let the service of a host behave.
    Behave(usize),
    /// Let the database go on.
    Unlock(Box<postgres::Client>),
    /// The era is raised by an operator: `handover lease era --raise`.
    RaiseEra,
}

/// Everything that a nemesis may touch.
pub struct Scene<'a> {
    /// The site.
    pub site: &'a mut Site,
    /// What is being recorded.
    pub recorder: &'a Recorder,
}

impl Scene<'_> {
    /// Index of the host whose turn it is in the store; else of one whose agent says that it holds; else of one that has a
    /// token, though it may not use it; else the first.
    pub fn holder(&self) -> usize {
        let said = |host: &super::site::host::Host| self.recorder.last_said(&host.spot.name).unwrap_or_default();
        let holds = |host: &super::site::host::Host| {
            ["holder", "starting", "quiescing"].contains(&said(host)["lease"]["state"].as_str().unwrap_or_default())
        };
        let has_token = |host: &super::site::host::Host| {
            said(host)["lease"]["token"].as_str().is_some_and(|token| !token.is_empty())
        };
        let hosts = &self.site.hosts;
        let stored = self.recorder.holders_agent().and_then(|agent| self.site.host_of(&agent));
        let says = || hosts.iter().position(holds).or_else(|| hosts.iter().position(has_token));
        stored.or_else(says).unwrap_or(0)
    }

    /// The instance of a host, as its agent last said.
    pub fn instance(&self, host: usize) -> Option<String> {
        let said = self.recorder.last_said(&self.site.hosts[host].spot.name)?;
        instance_in(&said)
    }

    /// The host's name.
    pub fn name(&self, host: usize) -> String {
        self.site.hosts[host].spot.name.clone()
    }

    /// The etcd member that leads.
    ///
    /// # Errors
    /// If none does.
    pub fn leader(&self) -> Result<usize> {
        self.site.etcd.leader().context("no etcd member leads")
    }

    /// Begins it. An error says that it could not be done, and that nothing was.
    ///
    /// # Errors
    /// If the system refuses, or what is to be hit is not there.
    pub fn begin(&mut self, nemesis: Nemesis) -> Result<(Deed, Undo)> {
        let from = BootNs::now();
        let (mut deed, undo) = match nemesis {
            Nemesis::Kill(victim) => process::kill(self, victim)?,
            Nemesis::Freeze(victim) => process::freeze(self, victim)?,
            Nemesis::Cut(cut) => network::cut(self, cut)?,
            Nemesis::Wire(bend) => network::bend(self, bend)?,
            Nemesis::Store(fault) => store::begin(self, fault)?,
            Nemesis::Operator(hand) => store::meddle(self, hand)?,
            Nemesis::Clock(seconds) => clock::step(self, seconds)?,
            Nemesis::Slew(percent) => clock::slew(self, percent)?,
            Nemesis::Database(fault) => database::begin(self, fault)?,
            Nemesis::App(fault) => app::begin(self, fault)?,
            Nemesis::Coordinator(rival) => coordinator::begin(self, rival)?,
            Nemesis::Plot(plot) => plot::begin(self, plot)?,
        };
        deed.what = format!("{} {}", nemesis.number(), deed.what);
        deed.cause = format!("{} {nemesis:?}", nemesis.number());
        deed.traffic_after = deed.traffic_after.max(super::bounds::TRAFFIC_BACK);
        deed.window = Some(Window { from, to: BootNs::now() });
        Ok((deed, undo))
    }

    /// Undoes it; the deed's window ends here.
    ///
    /// # Errors
    /// If something does not come back: then the rest of the run is worth nothing.
    pub fn undo(&mut self, deed: &mut Deed, undo: Undo) -> Result<()> {
        self.take_back(deed, undo)?;
        if let Some(window) = &mut deed.window {
            window.to = BootNs::now();
        }
        Ok(())
    }

    fn take_back(&mut self, deed: &mut Deed, undo: Undo) -> Result<()> {
        match undo {
            Undo::Nothing => {}
            Undo::Continue(groups) => process::go_on(&groups),
            Undo::Heal(pairs) => self.site.net.heal(&pairs)?,
            Undo::Straighten(host) => network::straighten(self.site, host)?,
            Undo::End(mut helper) => drop(helper.kill()),
            Undo::Members(members) => store::start_members(self, &members)?,
            Undo::Agent(host) => self.site.start_agent(host)?,
            Undo::Gate(host) => {
                let shared = self.site.shared.clone();
                self.site.hosts[host].start_gate(&shared)?;
            }
            Undo::Coordinators(which) => coordinator::start(self, &which)?,
            Undo::Disarm => store::disarm(self)?,
            Undo::Delete(key) => deed.by_hand.extend(store::delete(self, &key)?),
            Undo::SetClock(host) => clock::set_right(self.site, host)?,
            Undo::Behave(host) => self.site.hosts[host].behave(&self.site.shared, "")?,
            Undo::Unlock(client) => drop(client),
            Undo::RaiseEra => coordinator::raise_era(self)?,
            Undo::All(all) => all.into_iter().try_for_each(|undo| self.take_back(deed, undo))?,
            Undo::NewMember(member) => store::add_member(self, member)?,
        }
        Ok(())
    }
}

/// The first instance that a report names.
pub fn instance_in(report: &Value) -> Option<String> {
    let slots = report["slots"].as_array()?;
    slots.iter().find_map(|slot| slot["instance"]["instance"].as_str()).map(str::to_owned)
}
