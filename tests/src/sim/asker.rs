//! In runs without a rollout: somebody asks for hand-overs, of whomever, and withdraws what came to nothing.

use handover_proto::assignment::Cause;
use handover_proto::lease::{Intent, IntentKind, LeaseView, RawEntry};
use handover_proto::numbers::{Era, Term};
use handover_proto::stored::encode;

use super::world::{Act, MS, World};

impl World {
    /// The view as the store has it now.
    pub(crate) fn view(&self) -> LeaseView {
        let mut view = LeaseView::default();
        for entry in self.etcd.listing().entries {
            let raw = RawEntry {
                value: &entry.value,
                mod_revision: entry.mod_revision,
                create_revision: entry.create_revision,
                lease: entry.lease,
            };
            // What cannot be read is no part of it.
            drop(view.put(&self.keys, &entry.key, Some(raw)));
        }
        view
    }

    /// Of the heir that an open intent names, or of anybody else.
    pub(crate) fn delete_candidate(&mut self) {
        let view = self.view();
        let heir = view.open_intent().and_then(|intent| intent.value.to.clone());
        let Some(instance) = heir.or_else(|| view.candidates.keys().next().cloned()) else { return };
        self.etcd.write(vec![(self.keys.candidate(&instance), None)]);
        self.stored();
    }

    /// Asks the holder to hand over to some candidate, whether it is ready or not. Gives the heir's host.
    pub(crate) fn ask(&mut self) -> Option<usize> {
        let view = self.view();
        let from = view.holder.as_ref().and_then(|seen| seen.value.held()).map(|held| held.owner.instance.clone())?;
        let others: Vec<_> = view.candidates.keys().filter(|id| **id != from).cloned().collect();
        if others.is_empty() || view.intent.is_some() || self.weather.rollout {
            return None;
        }
        let to = self.chance.one_of(&others).clone();
        let heir = self.ids.get(&to).map(|who| self.services[*who].host)?;
        let op = self.chance.hex().parse().ok()?;
        let term = Term::new(Era(0), 1).ok()?;
        let cause = Cause { rollout: None, step: 0, plan_hash: String::new() };
        let park = self.chance.percent(10);
        let (kind, to) = if park { (IntentKind::Park, None) } else { (IntentKind::Handoff, Some(to)) };
        let intent = Intent { v: 1, op, kind, from, to, quiesce_timeout_ms: 3_000, term, cause };
        let value = encode(&intent).ok()?;
        self.etcd.write(vec![(self.keys.intent(), Some((value, 0)))]);
        self.stored();
        self.count("intents");
        Some(heir)
    }

    /// The asker's turn: withdraws what was declined, done or came to nothing.
    pub(crate) fn coordinate(&mut self, n: usize) {
        self.at(700 * MS, Act::Coordinate { n });
        if !self.etcd.keys.contains_key(&self.keys.intent()) {
            return;
        }
        let view = self.view();
        let Some(intent) = &view.intent else { return };
        let holder = view.holder.as_ref().and_then(|seen| seen.value.held()).map(|held| &held.owner.instance);
        let declined = view.candidates.get(&intent.value.from).and_then(|seen| seen.value.declined.as_ref());
        let stale = holder != Some(&intent.value.from) || declined == Some(&intent.value.op);
        if view.open_intent().is_none() || stale || self.chance.percent(8) {
            self.etcd.write(vec![(self.keys.intent(), None)]);
            self.stored();
        }
    }
}
