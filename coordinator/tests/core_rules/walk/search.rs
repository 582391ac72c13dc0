//! Breadth first over everything that can happen to a model.

use std::collections::{HashMap, VecDeque};

use handover::core::event::{Event, Record};
use handover::core::order::Order;
use handover::core::progress::{Progress, State};

use super::lap::{eligible, lap, ordered};
use super::model::{Health, Host, Kind, Model, Request, Rules, SIDES, Side};
use crate::world::term;

/// All states and moves; the first state is the beginning.
pub(crate) struct Graph {
    pub(crate) states: Vec<Model>,
    pub(crate) moves: Vec<(usize, Kind, usize)>,
    /// Where each state was come to from first, and what was journalled then.
    parents: Vec<Option<(usize, Option<Event>)>>,
}

/// What tells two states apart.
#[derive(PartialEq, Eq, Hash)]
struct Key {
    state: (u8, u32, u32),
    asked: Option<(String, String, String)>,
    asks: u32,
    hosts: Vec<Host>,
    holder: (Option<(usize, Side)>, Option<u32>),
    acting: Vec<(usize, Side)>,
    intent: Option<Request>,
    faults_left: u8,
}

fn key(model: &Model) -> Key {
    let asked = model.progress.asked.as_ref();
    Key {
        state: match &model.progress.state {
            State::Running { step } => (0, *step, 0),
            State::Paused { step, .. } => (1, *step, 0),
            State::GoingBack { step, from_step, .. } => (2, *step as u32, *from_step),
            State::Ended { outcome, .. } => (3, *outcome as u32, 0),
        },
        asked: asked.map(|asked| (asked.op.to_string(), asked.from.to_string(), asked.to.to_string())),
        asks: model.progress.asks,
        hosts: model.hosts.clone(),
        holder: (model.holder, model.holder_op),
        acting: model.acting.iter().copied().collect(),
        intent: model.intent,
        faults_left: model.faults_left,
    }
}

pub(crate) fn started(rules: &Rules) -> Record {
    let event = Event::Started {
        spec_hash: String::new(),
        plan_hash: rules.plan.hash().to_owned(),
        by: "ann".into(),
        op: "0123456789abcdef".parse().expect("an op"),
    };
    Record::after(None, 0, term(), event).expect("a record")
}

pub(crate) fn search(rules: &Rules) -> Graph {
    let first = Model::first(rules, Progress::begin(&rules.plan, &started(rules)).expect("a beginning"));
    let mut graph = Graph { states: vec![first.clone()], moves: Vec::new(), parents: vec![None] };
    let mut known: HashMap<Key, usize> = HashMap::from([(key(&first), 0)]);
    let mut open = VecDeque::from([0]);
    while let Some(index) = open.pop_front() {
        let model = graph.states[index].clone();
        for (kind, event, after) in moves(rules, &model) {
            let after = after.plain();
            let next = graph.states.len();
            let to = *known.entry(key(&after)).or_insert(next);
            if to == next {
                graph.states.push(after);
                graph.parents.push(Some((index, event)));
                open.push_back(next);
            }
            graph.moves.push((index, kind, to));
        }
    }
    graph
}

type Move = (Kind, Option<Event>, Model);

fn moves(rules: &Rules, model: &Model) -> Vec<Move> {
    let mut all = Vec::new();
    if matches!(model.progress.state, State::Ended { .. }) {
        return all;
    }
    coordinator_moves(rules, model, &mut all);
    for number in 0..model.hosts.len() {
        agent_moves(rules, model, number, &mut all);
        process_moves(model, number, &mut all);
    }
    lease_moves(rules, model, &mut all);
    all
}

/// The move, if it is free or there is a fault left to pay for it.
fn push(all: &mut Vec<Move>, kind: Kind, event: Option<Event>, mut after: Model) {
    if !kind.costs() {
        all.push((kind, event, after));
    } else if let Some(left) = after.faults_left.checked_sub(1) {
        after.faults_left = left;
        all.push((kind, event, after));
    }
}

fn coordinator_moves(rules: &Rules, model: &Model, all: &mut Vec<Move>) {
    let lap = |kind: Kind, all: &mut Vec<Move>| {
        let decided = lap(rules, model, kind);
        decided.into_iter().for_each(|(event, after)| push(all, kind, Some(event), after));
    };
    lap(Kind::Lap, all);
    let waits = all.is_empty();
    match model.progress.state {
        // Time only matters to what waits.
        State::GoingBack { .. } if waits => lap(Kind::LateBackLap, all),
        State::GoingBack { .. } => {}
        _ if model.faults_left > 0 => [Kind::ErrorsLap, Kind::LateLap].into_iter().for_each(|kind| lap(kind, all)),
        _ => {}
    }
    let orders = [(Kind::Pause, Order::Pause), (Kind::Resume, Order::Resume)];
    for (kind, order) in orders {
        if let Some((event, after)) = ordered(rules, model, order) {
            push(all, kind, Some(event), after);
        }
    }
    if model.progress.can_go_back(&rules.plan) {
        let (event, after) = ordered(rules, model, Order::Abort).expect("abort is legal before the point of no return");
        push(all, Kind::Abort, Some(event), after);
    }
}

fn agent_moves(rules: &Rules, model: &Model, number: usize, all: &mut Vec<Move>) {
    let host = &model.hosts[number];
    if !host.heard {
        let mut after = model.clone();
        after.hosts[number].heard = true;
        return push(all, Kind::Hear, None, after);
    }
    let mut silent = model.clone();
    silent.hosts[number].heard = false;
    push(all, Kind::Silence, None, silent);
    if host.taken != host.stored {
        let mut after = model.clone();
        after.hosts[number].taken = host.stored;
        for side in SIDES {
            match (rules.wants(host.stored, side), host.side(side)) {
                (true, Health::Absent) => *after.hosts[number].side_mut(side) = Health::Starting,
                (false, _) => after.lose(number, side, Health::Absent),
                (true, _) => {}
            }
        }
        push(all, Kind::Take, None, after);
    }
}

fn process_moves(model: &Model, number: usize, all: &mut Vec<Move>) {
    use Health::{Crashed, Ready, Starting, Unready};
    let arrows: [(Kind, Side, &[Health], Health); 7] = [
        (Kind::CandidateUp, Side::Candidate, &[Starting], Ready),
        (Kind::CandidateUnready, Side::Candidate, &[Ready], Unready),
        (Kind::CandidateHeal, Side::Candidate, &[Unready], Ready),
        (Kind::CandidateCrash, Side::Candidate, &[Starting, Ready, Unready], Crashed),
        (Kind::CandidateRestart, Side::Candidate, &[Crashed], Unready),
        (Kind::CurrentUnready, Side::Current, &[Ready], Unready),
        (Kind::CurrentHeal, Side::Current, &[Unready], Ready),
    ];
    for (kind, side, from, to) in arrows {
        if !from.contains(&model.hosts[number].side(side)) {
            continue;
        }
        let mut after = model.clone();
        if to == Crashed {
            after.lose(number, side, to);
        } else {
            *after.hosts[number].side_mut(side) = to;
        }
        push(all, kind, None, after);
    }
}

fn lease_moves(rules: &Rules, model: &Model, all: &mut Vec<Move>) {
    let open = model.open_intent();
    if let Some(holder) = model.holder {
        if !model.acting.contains(&holder) {
            let mut after = model.clone();
            after.acting.insert(holder);
            push(all, Kind::Work, None, after);
        }
        let Some(request) = open.filter(|request| request.from == holder && !request.declined) else { return };
        let mut declined = model.clone();
        declined.intent = Some(Request { declined: true, ..request });
        push(all, Kind::Decline, None, declined);
        let (to, side) = request.to;
        if model.health(request.to) == Health::Ready && eligible(rules, &model.hosts[to], side) {
            let mut after = model.clone();
            after.acting.remove(&holder);
            (after.holder, after.holder_op) = (Some(request.to), Some(request.op));
            push(all, Kind::HandOver, None, after);
        }
        return;
    }
    for (number, host) in model.hosts.iter().enumerate() {
        for side in SIDES.into_iter().filter(|side| host.side(*side) == Health::Ready && eligible(rules, host, *side)) {
            if open.is_none_or(|request| request.to == (number, side)) {
                let mut after = model.clone();
                after.holder = Some((number, side));
                push(all, Kind::Acquire, None, after);
            }
        }
    }
}

impl Graph {
    /// For each state, whether one of the wanted ones can be reached from it by moves of these kinds alone.
    pub(crate) fn can_reach(&self, wanted: impl Fn(&Model) -> bool, by: impl Fn(Kind) -> bool) -> Vec<bool> {
        let mut before: Vec<Vec<usize>> = vec![Vec::new(); self.states.len()];
        for (from, _, to) in self.moves.iter().filter(|(_, kind, _)| by(*kind)) {
            before[*to].push(*from);
        }
        let mut reaches: Vec<bool> = self.states.iter().map(wanted).collect();
        let mut open: Vec<usize> = (0..reaches.len()).filter(|index| reaches[*index]).collect();
        while let Some(index) = open.pop() {
            for from in before[index].clone() {
                if !reaches[from] {
                    reaches[from] = true;
                    open.push(from);
                }
            }
        }
        reaches
    }

    /// Where a move of this kind leads from each state.
    pub(crate) fn by_kind(&self, kind: Kind) -> HashMap<usize, usize> {
        self.moves.iter().filter(|(_, moved, _)| *moved == kind).map(|(from, _, to)| (*from, *to)).collect()
    }

    /// The journal by which a state was come to first.
    pub(crate) fn journal(&self, rules: &Rules, mut index: usize) -> Vec<Record> {
        let mut events = Vec::new();
        while let Some((parent, event)) = &self.parents[index] {
            events.extend(event.clone());
            index = *parent;
        }
        let mut records = vec![started(rules)];
        for event in events.into_iter().rev() {
            records.push(Record::after(records.last(), 0, term(), event).expect("a record"));
        }
        records
    }
}
