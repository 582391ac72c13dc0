use super::*;

const UP: Server = Server { op: 2, admin: 0, weight: 100, initial_weight: 100 };
const NONE: Ours = Ours { drain: false, weight: false };
const DRAIN: Ours = Ours { drain: true, weight: false };
const WEIGHT: Ours = Ours { drain: false, weight: true };
const ALL: Wish = Wish::Serve { percent: 100 };

fn admin(admin: u32) -> Server {
    Server { admin, ..UP }
}

/// What HAProxy does with an order, as measured on 2.6.12.
fn obey(server: &mut Server, order: Order) {
    match order {
        Order::Drain => server.admin = (server.admin & !0x01) | 0x08,
        Order::Ready => server.admin &= !(0x01 | 0x08),
        Order::Weight(weight) => server.weight = weight,
    }
}

/// Steps until nothing more is to be said: the last step, and all orders.
fn settle(wish: Wish, server: &mut Server, ours: &mut Ours) -> (Step, Vec<Order>) {
    let mut said = Vec::new();
    for _ in 0..10 {
        match step(wish, server, *ours) {
            Step::Say(next, order) => {
                *ours = next;
                said.push(order);
                obey(server, order);
            }
            Step::Note(next) => *ours = next,
            end @ (Step::Confirmed | Step::Wait(_)) => return (end, said),
        }
    }
    panic!("no end: {server:?} {ours:?} {said:?}");
}

#[test]
fn our_drain_is_set_confirmed_and_undone() {
    let (mut server, mut ours) = (UP, NONE);
    assert_eq!(step(Wish::Drain, &server, ours), Step::Say(DRAIN, Order::Drain), "remembered before it is said");
    assert_eq!(settle(Wish::Drain, &mut server, &mut ours), (Step::Confirmed, vec![Order::Drain]));
    assert_eq!(ours, DRAIN);
    assert_eq!(settle(ALL, &mut server, &mut ours), (Step::Confirmed, vec![Order::Ready]));
    assert_eq!((server, ours), (UP, NONE), "nothing of ours is left");
    assert_eq!(settle(ALL, &mut server, &mut ours), (Step::Confirmed, vec![]), "ready is not said again");
}

#[test]
fn what_an_operator_set_counts_as_out_and_is_never_undone() {
    for flags in [0x01, 0x02, 0x04, 0x08, 0x10, 0x20, 0x40, 0x09] {
        let mut ours = NONE;
        assert_eq!(settle(Wish::Drain, &mut admin(flags), &mut ours), (Step::Confirmed, vec![]), "{flags:#x}");
        assert_eq!(ours, NONE, "{flags:#x}: an operator's drain does not become ours");
        let (end, said) = settle(ALL, &mut admin(flags), &mut ours);
        assert!(matches!(&end, Step::Wait(why) if why.contains("operator")), "{flags:#x}: {end:?}");
        assert_eq!(said, []);
    }
}

#[test]
fn maintenance_over_our_drain_stays_until_the_operator_ends_it() {
    let mut ours = DRAIN;
    let (end, said) = settle(ALL, &mut admin(0x09), &mut ours);
    assert!(matches!(end, Step::Wait(_)) && said.is_empty(), "ready would end both");
    assert_eq!(ours, DRAIN, "and our part is still to be undone");
    assert_eq!(settle(ALL, &mut admin(0x08), &mut ours).1, [Order::Ready]);
}

#[test]
fn a_drain_that_a_reload_forgot_is_set_again_and_a_forgotten_undo_is_noted() {
    assert_eq!(settle(Wish::Drain, &mut { UP }, &mut { DRAIN }), (Step::Confirmed, vec![Order::Drain]));
    let mut ours = DRAIN;
    assert_eq!(settle(ALL, &mut { UP }, &mut ours), (Step::Confirmed, vec![]));
    assert_eq!(ours, NONE);
}

#[test]
fn a_server_that_haproxy_finds_down_is_not_back() {
    let down = Server { op: 0, ..UP };
    assert!(matches!(step(ALL, &down, NONE), Step::Wait(why) if why.contains("DOWN")));
    assert_eq!(step(Wish::Drain, &down, NONE), Step::Say(DRAIN, Order::Drain), "down may come up again");
}

#[test]
fn weights_are_set_absolute_and_an_operators_are_left_alone() {
    let (mut server, mut ours) = (UP, NONE);
    let quarter = Wish::Serve { percent: 25 };
    assert_eq!(settle(quarter, &mut server, &mut ours), (Step::Confirmed, vec![Order::Weight(25)]));
    assert_eq!(ours, WEIGHT);
    assert_eq!(settle(ALL, &mut server, &mut ours), (Step::Confirmed, vec![Order::Weight(100)]));
    assert_eq!(ours, NONE);
    let mut operators = Server { weight: 70, ..UP };
    assert_eq!(settle(ALL, &mut operators, &mut ours), (Step::Confirmed, vec![]));
    assert_eq!(operators.weight, 70);
    let mut light = Server { weight: 1, initial_weight: 1, ..UP };
    assert_eq!(settle(quarter, &mut light, &mut ours), (Step::Confirmed, vec![]), "never rounded to nothing");
}

/// Whatever state both are in: it ends within a few steps, and only ours is ever lifted.
#[test]
fn every_state_settles() {
    for flags in 0..0x80 {
        for ours in [NONE, DRAIN, WEIGHT, Ours { drain: true, weight: true }] {
            for wish in [ALL, Wish::Serve { percent: 1 }, Wish::Drain] {
                let (mut server, mut now) = (admin(flags), ours);
                let (_, said) = settle(wish, &mut server, &mut now);
                assert!(!said.contains(&Order::Ready) || ours.drain, "{flags:#x} {ours:?} {wish:?}: {said:?}");
                assert_eq!(server.admin & 0x77, flags & 0x77, "no maintenance is ended: {said:?}");
            }
        }
    }
}
