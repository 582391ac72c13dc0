//! The fold: every pair of state and event.

use handover::core::event::{BackStep, Event, Outcome, Record};
use handover::core::order::{Order, order};
use handover::core::plan::Plan;
use handover::core::progress::{Illegal, Progress, State};
use handover_proto::lease::IntentKind;

use crate::world::{plan, serving_fleet, spec, term};

const STEPS: u32 = 6;

/// Start, two shifts, lease, soak, retire.
fn the_plan() -> Plan {
    let plan = plan(&spec("[rollout]\nshift = [\"100%\"]\n"), &serving_fleet(1)).expect("a plan");
    assert_eq!(plan.steps.len() as u32, STEPS);
    plan
}

fn progress(state: State) -> Progress {
    Progress { state, since_ms: 1, started_ms: 1, by: "ann".into(), asked: None, asks: 0, given: true, vouched: false }
}

fn states() -> Vec<State> {
    let text = || String::from("x");
    let mut states = Vec::new();
    for step in 0..STEPS {
        states.push(State::Running { step });
        states.push(State::Paused { step, by: text(), reason: text(), unmeasured: false });
    }
    for step in [BackStep::Routes, BackStep::Lease, BackStep::Stop] {
        states.push(State::GoingBack { step, from_step: 2, by: text(), reason: text() });
    }
    for outcome in [Outcome::Done, Outcome::RolledBack, Outcome::Failed] {
        states.push(State::Ended { outcome, reason: text(), at_ms: 9 });
    }
    states
}

fn events() -> Vec<Event> {
    let text = || String::from("x");
    let op = || "0123456789abcdef".parse().expect("an op");
    let id = || "0123456789abcdef".parse().expect("an instance");
    let mut events = vec![
        Event::Started { spec_hash: text(), plan_hash: text(), by: text(), op: op() },
        Event::Assigned { agents: Vec::new() },
        Event::Asked { op: op(), intent: IntentKind::Handoff, from: id(), to: id() },
        Event::Withdrawn { op: op() },
        Event::Paused { by: text(), reason: text(), unmeasured: false },
        Event::Resumed { by: text() },
        Event::Back { by: text(), reason: text() },
    ];
    events.extend((0..=STEPS).map(|step| Event::Entered { step }));
    events.extend([BackStep::Routes, BackStep::Lease, BackStep::Stop].map(|step| Event::BackEntered { step }));
    let ended = |outcome| Event::Ended { outcome, reason: text() };
    events.extend([Outcome::Done, Outcome::RolledBack, Outcome::Failed].map(ended));
    events
}

/// The diagram of the module's doc, written down a second time.
fn expected(state: &State, event: &Event) -> Option<State> {
    let text = || String::from("x");
    let retire = STEPS - 1;
    match (state, event) {
        (State::Running { step }, Event::Entered { step: to }) if *to == step + 1 && *to < STEPS => {
            Some(State::Running { step: *to })
        }
        (State::Running { step }, Event::Paused { .. }) => {
            Some(State::Paused { step: *step, by: text(), reason: text(), unmeasured: false })
        }
        (State::Paused { step, .. }, Event::Resumed { .. }) => Some(State::Running { step: *step }),
        (State::Running { step } | State::Paused { step, .. }, Event::Back { .. }) if *step != retire => {
            Some(State::GoingBack { step: BackStep::Routes, from_step: *step, by: text(), reason: text() })
        }
        (State::GoingBack { step, from_step, .. }, Event::BackEntered { step: to }) => {
            let arrows = [(BackStep::Routes, BackStep::Lease), (BackStep::Lease, BackStep::Stop)];
            let back = State::GoingBack { step: *to, from_step: *from_step, by: text(), reason: text() };
            arrows.contains(&(*step, *to)).then_some(back)
        }
        (State::Running { step }, Event::Ended { outcome: outcome @ (Outcome::Done | Outcome::Failed), .. })
            if *step == retire =>
        {
            Some(State::Ended { outcome: *outcome, reason: text(), at_ms: 77 })
        }
        (
            State::GoingBack { step: BackStep::Stop, .. },
            Event::Ended { outcome: outcome @ (Outcome::RolledBack | Outcome::Failed), .. },
        ) => Some(State::Ended { outcome: *outcome, reason: text(), at_ms: 77 }),
        (
            State::Running { .. } | State::GoingBack { .. },
            Event::Assigned { .. } | Event::Asked { .. } | Event::Withdrawn { .. },
        ) => Some(state.clone()),
        _ => None,
    }
}

#[test]
fn every_pair_of_state_and_event_is_an_arrow_of_the_diagram_or_illegal() {
    let plan = the_plan();
    let (mut arrows, mut illegal) = (0, 0);
    for state in states() {
        for event in events() {
            let record =
                Record { v: 1, seq: 4, at_ms: 77, term: term(), prev_hash: String::new(), event: event.clone() };
            let before = progress(state.clone());
            match (before.after(&plan, &record), expected(&state, &event)) {
                (Ok(after), Some(to)) => {
                    assert_eq!(after.state, to, "{state:?} on {event:?}");
                    arrows += 1;
                }
                (Err(Illegal::Move { seq, .. }), None) => {
                    assert_eq!(seq, 4);
                    illegal += 1;
                }
                (result, to) => panic!("{state:?} on {event:?}: {result:?}, but the diagram says {to:?}"),
            }
        }
    }
    // Running: 5 entered, 6 paused, 5 back, 2 ended, 18 that stay; paused: 6 resumed, 5 back; going back: 2 + 2, 9 stay.
    assert_eq!((arrows, illegal), (60, 18 * 20 - 60));
}

#[test]
fn nothing_leads_from_going_back_to_going_forward() {
    let plan = the_plan();
    for state in states() {
        if !matches!(state, State::GoingBack { .. } | State::Ended { .. }) {
            continue;
        }
        for event in events() {
            let record = Record { v: 1, seq: 4, at_ms: 77, term: term(), prev_hash: String::new(), event };
            let after = progress(state.clone()).after(&plan, &record);
            assert!(!after.is_ok_and(|after| matches!(after.state, State::Running { .. } | State::Paused { .. })));
        }
    }
}

fn records(plan: &Plan, events: Vec<Event>) -> Vec<Record> {
    let started = Event::Started {
        spec_hash: String::new(),
        plan_hash: plan.hash().to_owned(),
        by: "ann".into(),
        op: "0123456789abcdef".parse().expect("an op"),
    };
    let mut records: Vec<Record> = Vec::new();
    for event in [vec![started], events].concat() {
        let at_ms = 100 * (records.len() as u64 + 1);
        records.push(Record::after(records.last(), at_ms, term(), event).expect("a record"));
    }
    records
}

#[test]
fn deadlines_count_from_the_step_and_again_from_a_resume() {
    let plan = the_plan();
    let since = |events: Vec<Event>| Progress::fold(&plan, &records(&plan, events)).expect("legal").since_ms;
    let assigned = || Event::Assigned { agents: Vec::new() };
    let paused = || Event::Paused { by: "ann".into(), reason: String::new(), unmeasured: false };
    let withdrawn = || Event::Withdrawn { op: "0123456789abcdef".parse().expect("an op") };
    assert_eq!(since(vec![withdrawn()]), 100);
    assert_eq!(since(vec![assigned(), assigned()]), 200, "the first step begins for hosts with what they get first");
    assert_eq!(since(vec![Event::Entered { step: 1 }, assigned()]), 200);
    assert_eq!(since(vec![Event::Entered { step: 1 }, paused()]), 200);
    assert_eq!(since(vec![Event::Entered { step: 1 }, paused(), Event::Resumed { by: "ann".into() }]), 400);
    assert_eq!(since(vec![Event::Back { by: "ann".into(), reason: String::new() }, assigned()]), 200);
}

#[test]
fn a_request_is_remembered_until_it_is_withdrawn_or_somebody_resumes() {
    let plan = the_plan();
    let id = || "0123456789abcdef".parse().expect("an id");
    let asked = || Event::Asked {
        op: "0123456789abcdef".parse().expect("an op"),
        intent: IntentKind::Handoff,
        from: id(),
        to: id(),
    };
    let fold = |events: Vec<Event>| Progress::fold(&plan, &records(&plan, events)).expect("legal");
    let one = fold(vec![asked()]);
    assert_eq!((one.asks, one.asked.map(|asked| asked.at_ms)), (1, Some(200)));
    let withdrawn = fold(vec![asked(), Event::Withdrawn { op: "0123456789abcdef".parse().expect("an op") }]);
    assert_eq!((withdrawn.asks, withdrawn.asked), (1, None));
    let paused = Event::Paused { by: "ann".into(), reason: String::new(), unmeasured: false };
    let resumed = fold(vec![asked(), paused, Event::Resumed { by: "ann".into() }, asked()]);
    assert_eq!((resumed.asks, resumed.asked.map(|asked| asked.at_ms)), (2, Some(500)), "asked anew, with another id");
}

#[test]
fn a_journal_without_a_start_or_of_another_plan_is_refused() {
    let plan = the_plan();
    assert_eq!(Progress::fold(&plan, &[]), Err(Illegal::NoStart));
    let headless = Record::after(None, 0, term(), Event::Entered { step: 1 }).expect("a record");
    assert_eq!(Progress::fold(&plan, &[headless]), Err(Illegal::NoStart));
    let other = crate::world::plan(&spec(""), &serving_fleet(2)).expect("a plan");
    assert!(matches!(Progress::fold(&plan, &records(&other, Vec::new())), Err(Illegal::OtherPlan { .. })));
}

#[test]
fn every_order_in_every_state_gives_an_event_that_the_state_takes_or_a_refusal() {
    let plan = the_plan();
    let mut given = 0;
    for state in states() {
        let before = progress(state.clone());
        for what in [Order::Pause, Order::Resume, Order::Abort, Order::Rollback] {
            let Ok(event) = order(&plan, &before, what, "ann", "because") else { continue };
            let record = Record { v: 1, seq: 4, at_ms: 77, term: term(), prev_hash: String::new(), event };
            let after = before.clone().after(&plan, &record).expect("an order's event is legal").state;
            match what {
                Order::Pause => assert!(matches!(after, State::Paused { .. })),
                Order::Resume => assert!(matches!(after, State::Running { .. })),
                Order::Rollback => assert!(matches!(after, State::GoingBack { .. })),
                Order::Abort => assert!(matches!(after, State::GoingBack { .. } | State::Ended { .. })),
            }
            given += 1;
        }
    }
    // Pause and resume at 6 steps each; abort and rollback at 5 steps, running or paused; abort at the way back's last.
    assert_eq!(given, 6 + 6 + 2 * 5 * 2 + 1);
}
