//! What agents ask of each other and of the members: certificates, versions.

use std::time::Duration;

use handover_agent::lease::certificate::{Certificate, Certified};
use handover_agent::lease::event::Event;
use handover_agent::lease::versions::Survey;
use handover_proto::ids::AgentId;
use handover_proto::lease::{StopProof, raise_era};
use handover_proto::numbers::{Era, Token};

use super::etcd::Answers;
use super::fact::{Fact, Who};
use super::world::{Act, MS, SECOND, World};

/// Longest question for a certificate.
const LIMIT_US: u64 = SECOND;
/// How often an agent looks whether its state file says what it is to certify.
const AGAIN_US: u64 = 5 * MS;

/// A question for a certificate on its way.
#[derive(Debug, Clone)]
pub(crate) struct Question {
    pub(crate) of: usize,
    by: (usize, u32),
    token: Token,
    deadline: u64,
    heard: bool,
}

impl World {
    pub(crate) fn ask_certificate(&mut self, host: usize, agent: &AgentId, token: Token) {
        let life = self.hosts[host].life;
        let of = agent.as_str().strip_prefix("app-").and_then(|n| n.parse::<usize>().ok()).filter(|n| *n < 3);
        let deadline = self.now + LIMIT_US;
        let reachable = of.filter(|of| !self.apart(host, *of));
        match reachable.filter(|_| !self.lost()) {
            Some(of) => {
                let question = Question { of, by: (host, life), token, deadline, heard: false };
                let way = self.chance.within(100, 10 * MS);
                self.at(way, Act::Certify(Box::new(question)));
            }
            None => self.certificate(LIMIT_US, (host, life), token, Err("no answer".to_owned())),
        }
    }

    /// Whether two hosts do not hear each other.
    fn apart(&self, one: usize, other: usize) -> bool {
        let away = |host: usize| self.hosts[host].lost || self.hosts[host].alone_until > self.now;
        away(one) || away(other)
    }

    pub(crate) fn certify(&mut self, question: Question) {
        let Question { of, by, token, deadline, heard } = question;
        let boot = self.hosts[of].clock.boot(self.now);
        let Some(core) = self.hosts[of].core.as_mut() else {
            return self.certificate(MS, by, token, Err("refused".to_owned()));
        };
        if self.now >= deadline {
            return self.certificate(0, by, token, Err("no answer".to_owned()));
        }
        if !heard {
            core.apply(Event::CertifyAsked(token), boot);
            self.at(AGAIN_US, Act::Certify(Box::new(Question { heard: true, ..question })));
            return self.lap(of);
        }
        let result = match core.certify(token) {
            Certified::Unwritten => {
                return self.at(AGAIN_US, Act::Certify(Box::new(Question { heard, ..question })));
            }
            Certified::No(why) => Err(why),
            Certified::Stopped { proof, may_return, .. } => {
                self.certified.insert(token.get());
                self.count("certificates");
                self.fact(Fact::Certified { token: token.get(), dead: proof == StopProof::Dead });
                Ok(Certificate { token, proof, stopped_at_ms: None, may_return })
            }
        };
        let lost = self.lost() || self.apart(by.0, of);
        let result = if lost { Err("lost".to_owned()) } else { result };
        self.certificate(self.now.min(deadline).abs_diff(deadline).min(5 * MS), by, token, result);
    }

    fn certificate(
        &mut self,
        wait: u64,
        (host, life): (usize, u32),
        token: Token,
        result: Result<Certificate, String>,
    ) {
        self.tell(wait, host, life, Event::Certified { token, result });
    }

    /// Every member says its version, as far as it can be reached.
    pub(crate) fn survey(&mut self, host: usize) {
        let life = self.hosts[host].life;
        let heard = |world: &Self, member: usize| {
            !world.hosts[host].is_cut(member, world.now) && world.etcd.answers(member, world.now) != Answers::Not
        };
        let members: Vec<usize> = (0..3).filter(|member| heard(self, *member)).collect();
        let version = self.weather.habits.version();
        let any = !members.is_empty();
        let survey = Survey {
            versions: members.iter().map(|member| (*member as u64 + 1, version.to_owned())).collect(),
            members: any.then(|| (1..=3).collect()),
            guarded: any.then_some(self.weather.habits.trusted),
            embedded: false,
        };
        let wait = if members.len() == 3 { 10 * MS } else { Duration::from_secs(2).as_micros() as u64 };
        self.tell(wait, host, life, Event::Surveyed(survey));
    }

    /// The store goes back to a copy; two people notice.
    pub(crate) fn restore(&mut self) {
        let renamed = self.chance.percent(50);
        if !self.etcd.restore(renamed, self.now) {
            return;
        }
        self.count("restores");
        self.read_log = 0;
        let holder = self.etcd.keys.get(&self.keys.holder()).map_or(0, |entry| entry.mod_revision);
        self.present = self.holder_now();
        let turn = self.present.map(|(who, token, _)| (token, who));
        self.fact(Fact::Restored { holder, turn });
        for host in 0..self.hosts.len() {
            // The watch is told that its revision is of the future, and begins anew.
            self.hosts[host].cursor = None;
            let lag = self.chance.within(1, 1500) * MS;
            self.pump_soon(host, lag);
        }
        let after = self.chance.within(500, 4000) * MS;
        self.at(after, Act::RaiseEra);
    }

    /// The turn that the store shows.
    fn holder_now(&self) -> Option<(Who, i64, i64)> {
        let view = self.view();
        let held = view.holder.as_ref().and_then(|seen| seen.value.held())?;
        let token = view.token().ok()??.get();
        Some((self.ids.get(&held.owner.instance).copied()?, token, held.lease_id))
    }

    /// `handover lease era --raise`, by two people who know the highest era.
    pub(crate) fn raise_era(&mut self) {
        let view = self.view();
        let era = Era(view.era.0.0.max(self.era) + 1);
        if let Ok(txn) = raise_era(&self.keys, &view, era, ("ann", "bob", "store restored")) {
            let origin = self.etcd.origin(0, Answers::Well);
            let answers = self.etcd.answers(self.etcd.leader, self.now) == Answers::Well;
            if answers && self.etcd.txn(&txn, origin, self.now).is_ok_and(|reply| reply.succeeded) {
                self.era = era.0;
                self.fact(Fact::Nemesis(format!("the era is raised to {}", era.0)));
                return self.stored();
            }
        }
        self.at(SECOND, Act::RaiseEra);
    }
}
