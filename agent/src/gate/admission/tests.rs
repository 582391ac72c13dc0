mod choice;

use super::*;
use crate::gate::control::UpstreamReport;
use crate::gate::counts::ClassCounts;
use proptest::prelude::*;

const BOUNDS: Bounds = Bounds { held: 3, in_flight: 1000 };
const NOW: Duration = Duration::from_secs(1);

fn upstream(n: u16, reads: u32, writes: u32) -> Upstream {
    Upstream {
        instance: format!("{n:016x}").parse().expect("an id"),
        version: format!("1.{n}.0").parse().expect("a version"),
        address: ([127, 0, 0, 1], 9000 + n).into(),
        reads,
        writes,
        ready: true,
    }
}

fn state(seq: u64, admission: Admission, upstreams: Vec<Upstream>) -> GateState {
    GateState { seq, admission, upstreams }
}

fn open(upstreams: Vec<Upstream>) -> Core {
    let mut core = Core::new(BOUNDS);
    core.apply(state(1, Admission::Open, upstreams), NOW).expect("applied");
    core
}

fn go(core: &mut Core, class: Class) -> Route {
    match core.admit(class, Arrival::New, NOW) {
        Verdict::Go(route) => route,
        other => panic!("not let in: {other:?}"),
    }
}

fn of(core: &Core, n: u16) -> UpstreamReport {
    let instance = upstream(n, 0, 0).instance;
    core.report(NOW).upstreams.into_iter().find(|one| one.instance == instance).expect("reported")
}

#[test]
fn a_new_gate_holds_until_it_hears_of_an_upstream() {
    let mut core = Core::new(BOUNDS);
    assert_eq!(core.admit(Class::Read, Arrival::New, NOW), Verdict::Hold);
    core.apply(state(1, Admission::Open, vec![upstream(1, 1, 1)]), NOW).expect("applied");
    assert!(matches!(core.admit(Class::Read, Arrival::Held, NOW), Verdict::Go(_)));
    assert_eq!((core.report(NOW).held, core.report(NOW).in_flight), (0, 1));
}

#[test]
fn a_balancer_is_sent_away_from_what_leaves_waits_or_could_not_be_reached_a_moment_ago() {
    let mut core = open(vec![upstream(1, 1, 0)]);
    assert_eq!((core.unready(Class::Read, NOW), core.unready(Class::Write, NOW).is_some()), (None, true));
    let route = go(&mut core, Class::Read);
    assert!(matches!(core.admit(Class::Read, Arrival::Again(&[route.key]), NOW), Verdict::Refuse(_)));
    assert!(core.unready(Class::Read, NOW).is_some());
    assert_eq!(core.unready(Class::Read, NOW + PASSED_OVER), None, "it is tried again by then");
    for (seq, admission) in [(2, Admission::LameDuck), (3, Admission::Hold), (4, Admission::Shut)] {
        core.apply(state(seq, admission, vec![upstream(2, 1, 1)]), NOW).expect("applied");
        assert!(core.unready(Class::Read, NOW).is_some(), "{admission:?}");
    }
}

#[test]
fn reads_and_writes_follow_their_own_weights() {
    let mut core = open(vec![upstream(1, 75, 100), upstream(2, 25, 0)]);
    for _ in 0..500 {
        let (read, write) = (go(&mut core, Class::Read), go(&mut core, Class::Write));
        let _ = (core.finish(&read, NOW), core.finish(&write, NOW));
    }
    assert_eq!((of(&core, 1).reads.requests, of(&core, 2).reads.requests), (375, 125));
    assert_eq!((of(&core, 1).writes.requests, of(&core, 2).writes.requests), (500, 0));
}

#[test]
fn one_that_is_not_ready_gets_nothing_and_the_rest_share_its_part() {
    let mut core = open(vec![upstream(1, 50, 1), upstream(2, 30, 1), Upstream { ready: false, ..upstream(3, 20, 1) }]);
    for _ in 0..800 {
        let route = go(&mut core, Class::Read);
        let _ = core.finish(&route, NOW);
    }
    let shares: Vec<u64> = (1..=3).map(|n| of(&core, n).reads.requests).collect();
    assert_eq!(shares, [500, 300, 0]);
}

#[test]
fn with_nobody_ready_for_its_class_a_request_is_held_even_if_the_gate_is_open() {
    let mut core = open(vec![upstream(1, 1, 0), Upstream { ready: false, ..upstream(2, 0, 1) }]);
    assert!(matches!(core.admit(Class::Read, Arrival::New, NOW), Verdict::Go(_)));
    assert_eq!(core.admit(Class::Write, Arrival::New, NOW), Verdict::Hold);
}

#[test]
fn only_so_many_are_held_and_a_place_given_up_can_be_taken() {
    let mut core = Core::new(BOUNDS);
    for _ in 0..BOUNDS.held {
        assert_eq!(core.admit(Class::Read, Arrival::New, NOW), Verdict::Hold);
    }
    assert_eq!(core.admit(Class::Read, Arrival::New, NOW), Verdict::Refuse(Reason::HoldFull));
    assert_eq!(core.admit(Class::Read, Arrival::Held, NOW), Verdict::Hold, "one that waits keeps its place");
    core.leave_hold();
    assert_eq!(core.admit(Class::Read, Arrival::New, NOW), Verdict::Hold);
    assert_eq!(core.report(NOW).held, BOUNDS.held);
}

#[test]
fn shut_refuses_new_and_held_requests_and_lame_duck_serves() {
    let mut core = Core::new(BOUNDS);
    assert_eq!(core.admit(Class::Read, Arrival::New, NOW), Verdict::Hold);
    core.apply(state(1, Admission::Shut, vec![upstream(1, 1, 1)]), NOW).expect("applied");
    assert_eq!(core.admit(Class::Read, Arrival::Held, NOW), Verdict::Refuse(Reason::Shut));
    assert_eq!(core.report(NOW).held, 0);
    assert_eq!(core.admit(Class::Read, Arrival::New, NOW), Verdict::Refuse(Reason::Shut));
    core.apply(state(2, Admission::LameDuck, vec![upstream(1, 1, 1)]), NOW).expect("applied");
    assert!(matches!(core.admit(Class::Read, Arrival::New, NOW), Verdict::Go(_)));
}

#[test]
fn the_in_flight_limit_refuses_and_a_finished_request_makes_room() {
    let mut core = Core::new(Bounds { held: 1, in_flight: 2 });
    core.apply(state(1, Admission::Open, vec![upstream(1, 1, 1)]), NOW).expect("applied");
    let first = go(&mut core, Class::Read);
    go(&mut core, Class::Read);
    assert_eq!(core.admit(Class::Read, Arrival::New, NOW), Verdict::Refuse(Reason::InFlightLimit));
    let _ = core.finish(&first, NOW);
    go(&mut core, Class::Read);
}

#[test]
fn another_try_goes_to_one_not_tried_and_never_back() {
    let mut core = open(vec![upstream(1, 1, 1), upstream(2, 1, 1)]);
    let first = go(&mut core, Class::Read);
    let Verdict::Go(second) = core.admit(Class::Read, Arrival::Again(&[first.key]), NOW) else { panic!("nobody else") };
    assert_ne!(first.key, second.key);
    let both = [first.key, second.key];
    assert_eq!(core.admit(Class::Read, Arrival::Again(&both), NOW), Verdict::Refuse(Reason::Connect));
}

#[test]
fn an_older_state_and_the_same_number_with_other_content_are_refused_each_in_its_own_way() {
    let mut core = open(vec![upstream(1, 1, 1)]);
    core.apply(state(5, Admission::Open, vec![upstream(2, 1, 1)]), NOW).expect("applied");
    let again = state(5, Admission::Open, vec![upstream(2, 1, 1)]);
    assert_eq!(core.apply(again.clone(), NOW), Ok(()), "the same again is accepted");
    let older = core.apply(state(4, Admission::Shut, vec![]), NOW);
    assert_eq!(older, Err(Refusal::Older { seq: 4, applied: 5 }));
    assert_eq!(core.apply(state(5, Admission::Shut, vec![]), NOW), Err(Refusal::Conflict { seq: 5 }));
    let twice = core.apply(state(6, Admission::Open, vec![upstream(3, 1, 1), upstream(3, 2, 2)]), NOW);
    assert!(matches!(twice, Err(Refusal::Duplicate { seq: 6, .. })), "{twice:?}");
    assert_eq!(core.state(), &again, "a refused state changes nothing");
}

#[test]
fn work_in_flight_is_counted_on_its_upstream_after_weight_and_listing_are_gone() {
    let mut core = open(vec![upstream(1, 1, 1)]);
    let (a, b) = (go(&mut core, Class::Read), go(&mut core, Class::Write));
    core.apply(state(2, Admission::Open, vec![upstream(1, 0, 0), upstream(2, 1, 1)]), NOW).expect("applied");
    assert_eq!(of(&core, 1).in_flight, 2);
    core.apply(state(3, Admission::Open, vec![upstream(2, 1, 1)]), NOW).expect("applied");
    core.forget_departed(NOW + DEPARTED_KEPT * 2);
    assert_eq!((of(&core, 1).in_flight, of(&core, 1).listed), (2, false));
    assert_eq!(core.finish(&a, NOW), News::Counters);
    assert_eq!(core.finish(&b, NOW), News::Urgent, "the last one of an upstream without weight");
    core.forget_departed(NOW + DEPARTED_KEPT - Duration::from_millis(1));
    assert_eq!(of(&core, 1).in_flight, 0);
    core.forget_departed(NOW + DEPARTED_KEPT);
    assert_eq!(core.report(NOW).upstreams.len(), 1);
}

#[test]
fn the_last_request_of_an_upstream_that_still_has_weight_is_no_urgent_news() {
    let mut core = open(vec![upstream(1, 0, 1)]);
    let route = go(&mut core, Class::Write);
    assert_eq!(core.finish(&route, NOW), News::Counters);
}

#[test]
fn the_first_error_of_an_upstream_is_urgent_and_the_second_is_not() {
    let mut core = open(vec![upstream(1, 1, 1)]);
    let (a, b) = (go(&mut core, Class::Read), go(&mut core, Class::Write));
    assert_eq!(core.record(&a, Event::Answered { status: 200, after: NOW }), News::Counters);
    assert_eq!(core.record(&a, Event::Lost), News::Urgent);
    assert_eq!(core.record(&b, Event::NoAnswer), News::Counters);
}

#[test]
fn the_oldest_age_is_that_of_the_request_that_is_longest_in_flight() {
    let mut core = open(vec![upstream(1, 1, 1)]);
    let Verdict::Go(old) = core.admit(Class::Read, Arrival::New, Duration::from_secs(1)) else { panic!() };
    let Verdict::Go(_) = core.admit(Class::Read, Arrival::New, Duration::from_secs(3)) else { panic!() };
    let at = Duration::from_secs(10);
    assert_eq!(core.report(at).upstreams[0].oldest_ms, 9000);
    assert_eq!(core.report(at).upstreams[0].last_request_ms_ago, Some(7000));
    let _ = core.finish(&old, at);
    assert_eq!(core.report(at).upstreams[0].oldest_ms, 7000);
}

#[test]
fn a_request_that_became_a_tunnel_is_counted_apart_until_it_ends() {
    let mut core = open(vec![upstream(1, 1, 1)]);
    let (tunnel, request) = (go(&mut core, Class::Read), go(&mut core, Class::Read));
    let _ = core.record(&tunnel, Event::Answered { status: 101, after: NOW });
    assert_eq!(core.upgrade(&tunnel, NOW), News::Counters);
    let one = of(&core, 1);
    assert_eq!((one.in_flight, one.upgraded, one.upgraded_total, core.report(NOW).in_flight), (1, 1, 1, 1));
    assert_eq!(core.report(NOW * 5).upstreams[0].oldest_upgraded_ms, 4000);
    assert_eq!(core.drained_since(&tunnel), None);
    core.apply(state(2, Admission::Open, vec![upstream(1, 0, 0)]), NOW * 2).expect("applied");
    core.apply(state(3, Admission::Open, vec![]), NOW * 3).expect("applied");
    assert_eq!(core.drained_since(&tunnel), Some(NOW * 2), "since it gets nothing new");
    assert_eq!(core.finish(&request, NOW), News::Counters, "a tunnel is left");
    core.forget_departed(NOW + DEPARTED_KEPT * 2);
    core.closes_upgraded(&tunnel);
    assert_eq!((of(&core, 1).upgraded, of(&core, 1).upgraded_closed), (1, 1), "as long as it is open it is reported");
    assert_eq!(core.finish(&tunnel, NOW), News::Urgent, "the last work of an upstream without weight");
    assert_eq!(of(&core, 1).upgraded, 0);
}

#[test]
fn a_drain_that_is_taken_back_is_over_and_a_lame_duck_drains_everybody() {
    let mut core = open(vec![upstream(1, 1, 1)]);
    let tunnel = go(&mut core, Class::Read);
    let _ = core.upgrade(&tunnel, NOW);
    core.apply(state(2, Admission::LameDuck, vec![upstream(1, 1, 1)]), NOW).expect("applied");
    assert_eq!(core.drained_since(&tunnel), Some(NOW));
    core.apply(state(3, Admission::Open, vec![upstream(1, 1, 1)]), NOW).expect("applied");
    assert_eq!(core.drained_since(&tunnel), None);
}

#[test]
fn an_instance_at_another_address_is_another_upstream() {
    let mut core = open(vec![upstream(1, 1, 1)]);
    let before = go(&mut core, Class::Read);
    let moved = Upstream { address: ([127, 0, 0, 1], 1).into(), ..upstream(1, 1, 1) };
    core.apply(state(2, Admission::Open, vec![moved]), NOW).expect("applied");
    let after = go(&mut core, Class::Read);
    assert_ne!(before.key, after.key);
    assert_eq!(core.listed_keys(), [after.key]);
}

/// What can happen to a gate.
#[derive(Debug, Clone)]
enum Step {
    Admit(Class),
    Wake(Class),
    GiveUp,
    Again(usize),
    Record(usize, Event),
    Finish(usize),
    Apply(Admission, Vec<(u16, u32, u32, bool)>),
    Forget,
}

fn any_step() -> impl Strategy<Value = Step> {
    let class = prop_oneof![Just(Class::Read), Just(Class::Write)];
    let admission = prop_oneof![
        4 => Just(Admission::Open),
        1 => Just(Admission::LameDuck),
        1 => Just(Admission::Hold),
        1 => Just(Admission::Shut),
    ];
    let event = prop_oneof![
        (200_u16..600).prop_map(|status| Event::Answered { status, after: NOW }),
        Just(Event::NoAnswer),
        Just(Event::ClientLeft),
    ];
    let upstreams = prop::collection::vec((1_u16..5, 0_u32..4, 0_u32..4, any::<bool>()), 0..4);
    prop_oneof![
        6 => class.clone().prop_map(Step::Admit),
        2 => class.prop_map(Step::Wake),
        1 => Just(Step::GiveUp),
        1 => any::<usize>().prop_map(Step::Again),
        3 => (any::<usize>(), event).prop_map(|(n, event)| Step::Record(n, event)),
        5 => any::<usize>().prop_map(Step::Finish),
        2 => (admission, upstreams).prop_map(|(a, u)| Step::Apply(a, u)),
        1 => Just(Step::Forget),
    ]
}

/// The model beside the core: the routes that are out, whether an event was recorded for each, and how many are held.
#[derive(Default)]
struct Model {
    out: Vec<(Route, bool)>,
    held: u64,
    now: Duration,
    requests: u64,
}

impl Model {
    fn take(&mut self, core: &Core, verdict: Verdict) {
        if let Verdict::Go(route) = verdict {
            let listed = core.state().upstreams.iter().find(|one| one.instance == route.upstream.instance);
            let listed = listed.expect("only listed upstreams are chosen");
            let weight = if route.class == Class::Read { listed.reads } else { listed.writes };
            assert!(listed.ready && weight > 0, "chosen although not ready or without weight: {listed:?}");
            self.requests += 1;
            self.out.push((route, false));
        }
    }

    fn step(&mut self, core: &mut Core, step: Step) {
        self.now += Duration::from_secs(1);
        match step {
            Step::Admit(class) => {
                let verdict = core.admit(class, Arrival::New, self.now);
                self.held += u64::from(verdict == Verdict::Hold);
                self.take(core, verdict);
            }
            Step::Wake(class) if self.held > 0 => {
                let verdict = core.admit(class, Arrival::Held, self.now);
                self.held -= u64::from(verdict != Verdict::Hold);
                self.take(core, verdict);
            }
            Step::GiveUp if self.held > 0 => {
                core.leave_hold();
                self.held -= 1;
            }
            Step::Again(n) if !self.out.is_empty() => {
                let (route, _) = self.out[n % self.out.len()].clone();
                let verdict = core.admit(route.class, Arrival::Again(&[route.key]), self.now);
                self.take(core, verdict);
            }
            Step::Record(n, event) if !self.out.is_empty() => {
                let index = n % self.out.len();
                let (route, settled) = &mut self.out[index];
                if !*settled {
                    let _ = core.record(route, event);
                    *settled = true;
                }
            }
            Step::Finish(n) if !self.out.is_empty() => {
                let (route, _) = self.out.swap_remove(n % self.out.len());
                let _ = core.finish(&route, self.now);
                let _ = core.finish(&route, self.now);
            }
            Step::Apply(admission, list) => {
                let mut upstreams: Vec<Upstream> =
                    list.into_iter().map(|(n, r, w, ready)| Upstream { ready, ..upstream(n, r, w) }).collect();
                upstreams.sort_by(|a, b| a.instance.cmp(&b.instance));
                upstreams.dedup_by(|a, b| a.instance == b.instance);
                core.apply(state(core.state().seq + 1, admission, upstreams), self.now).expect("applied");
            }
            Step::Forget => core.forget_departed(self.now),
            _ => {}
        }
    }

    fn check(&self, core: &Core) {
        let report = core.report(self.now);
        assert_eq!(report.in_flight, self.out.len() as u64);
        assert_eq!(report.held, self.held);
        assert!(report.held <= BOUNDS.held);
        assert_eq!(report.upstreams.iter().map(|one| one.in_flight).sum::<u64>(), report.in_flight);
        for one in &report.upstreams {
            let waiting =
                self.out.iter().filter(|(route, settled)| !settled && route.upstream.instance == one.instance);
            let waiting = waiting.count() as u64;
            let settled = |counts: &ClassCounts| {
                counts.answered() + counts.connect_errors + counts.no_answer + counts.client_left
            };
            let requests = one.reads.requests + one.writes.requests;
            assert_eq!(requests, settled(&one.reads) + settled(&one.writes) + waiting, "{one:?}");
        }
    }
}

proptest! {
    #[test]
    fn whatever_happens_the_books_balance_and_only_ready_upstreams_with_weight_are_chosen(
        steps in prop::collection::vec(any_step(), 1..120)
    ) {
        let mut core = Core::new(BOUNDS);
        let mut model = Model::default();
        for step in steps {
            model.step(&mut core, step);
            model.check(&core);
        }
        for (route, _) in std::mem::take(&mut model.out) {
            let _ = core.finish(&route, model.now);
        }
        model.check(&core);
        assert!(core.report(model.now).upstreams.iter().all(|one| one.in_flight == 0));
    }
}
