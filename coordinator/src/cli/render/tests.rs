use handover_proto::wire::{Freeze, LeaseStatus, OrderStatus, TurnRow, TurnsReply};

use super::*;

fn row(agent: &str, slot: &str, version: &str, reported: &str, assigned: &str) -> FleetRow {
    FleetRow {
        agent: agent.into(),
        slot: slot.into(),
        version: version.into(),
        reported: reported.into(),
        assigned: assigned.into(),
        alive: true,
        reported_shares: true,
        lease: "-".into(),
        ..FleetRow::default()
    }
}

const NOW: u64 = 1_795_271_327_000;

fn example() -> StatusReply {
    let rollout = RolloutStatus {
        rollout: "7f3a2c".into(),
        from_version: "1.4.2".into(),
        to_version: "1.5.0".into(),
        state: "running".into(),
        step: 6,
        steps: 14,
        step_what: "shift reads to 25 %".into(),
        wave: 1,
        waves: 3,
        started_ms: NOW - 192_000,
        can_go_back: true,
        ..RolloutStatus::default()
    };
    let mut fleet = vec![
        row("app-01", "a", "1.4.2", "SERVING", "SERVING"),
        row("app-01", "b", "1.5.0", "SERVING", "SERVING"),
        row("app-03", "a", "1.4.2", "DRAINING", "READY"),
    ];
    (fleet[0].reads, fleet[0].writes, fleet[0].in_flight) = (75, 100, 112);
    (fleet[0].lease, fleet[0].since_ms) = ("held #48".into(), NOW - 518_400_000);
    (fleet[1].reads, fleet[1].in_flight, fleet[1].since_ms) = (25, 31, NOW - 120_000);
    (fleet[2].in_flight, fleet[2].oldest_ms, fleet[2].since_ms) = (4, 9_000, NOW - 11_000);
    let waiting = Blocker { kind: "soak".into(), since_ms: NOW - 3000, waiting_for: "soak of this step".into() };
    StatusReply {
        service: "billing".into(),
        rollout: Some(rollout),
        fleet,
        at_ms: NOW,
        blockers: vec![waiting],
        ..StatusReply::default()
    }
}

#[test]
fn the_status_is_the_picture_of_the_design() {
    let expected = "\
Rollout   7f3a2c  billing  1.4.2 -> 1.5.0   waves 1/3
Status    running   step 6/14  shift reads to 25 %   elapsed 3m12s
Go back   yes
Waiting   soak of this step

AGENT   SLOT  VERSION  REPORTED  ASSIGNED  READ  WRITE  INFLIGHT  LEASE     SINCE
app-01  a     1.4.2    SERVING   SERVING   75 %  100 %  112       held #48  6d
app-01  b     1.5.0    SERVING   SERVING   25 %  0 %    31        -         2m
app-03  a     1.4.2    DRAINING  READY     0 %   0 %    4 (9s)    -         11s";
    assert_eq!(status(&example()).join("\n"), expected);
}

#[test]
fn an_agent_that_is_not_heard_is_marked() {
    let mut reply = example();
    reply.fleet[0].alive = false;
    assert!(fleet(&reply)[1].contains("SERVING?"), "{:?}", fleet(&reply)[1]);
}

#[test]
fn a_fleet_without_a_rollout_says_its_version() {
    let reply = StatusReply { rollout: None, current_version: "1.4.2".into(), ..example() };
    assert_eq!(status(&reply)[0], "billing: no rollout yet; current version 1.4.2");
}

#[test]
fn why_prints_every_blocker_and_says_so_if_there_is_none() {
    assert_eq!(why(&example()), ["soak              3s  soak of this step"]);
    let free = StatusReply { blockers: vec![], ..example() };
    assert_eq!(why(&free), ["nothing is waited for: the rollout moves"]);
}

#[test]
fn why_tells_what_sent_the_last_rollout_back() {
    let last = |state: &str| {
        let rollout = example().rollout.expect("a rollout");
        let rollout = RolloutStatus { state: state.into(), reason: "app-01: out of memory".into(), ..rollout };
        why(&StatusReply { blockers: vec![], rollout: Some(rollout), ..example() })
    };
    let told = last("rolled-back");
    assert_eq!(told.len(), 2, "{told:?}");
    assert!(told[1].contains("to 1.5.0) was rolled back: app-01: out of memory"), "{told:?}");
    assert!(last("failed")[1].contains(" failed: app-01"));
    assert_eq!(last("done").len(), 1);
}

#[test]
fn a_plan_without_changes_is_one_line() {
    let reply = PlanReply { service: "billing".into(), to_version: "1.5.0".into(), ..PlanReply::default() };
    assert_eq!(plan(&reply), ["billing is at 1.5.0 already; nothing to do"]);
}

#[test]
fn a_free_lease_names_the_last_holder_and_how_it_ended() {
    let status = LeaseStatus {
        state: "free".into(),
        agent: "app-01".into(),
        cause: "release".into(),
        guard: "timed only".into(),
        ..LeaseStatus::default()
    };
    let text = lease(&status, NOW).join("\n");
    assert!(text.contains("Last      app-01") && text.contains("Cause     release"), "{text}");
    assert!(text.contains("Could     nobody else"), "{text}");
}

#[test]
fn a_dark_lease_and_open_orders_stand_above_the_fleet() {
    let freeze = Freeze { by: "ann".into(), because: "etcd".into(), at_ms: NOW - 5000 };
    let dark = LeaseStatus {
        dark_since_ms: NOW - 12_000,
        dark_because: "app-01 is lost".into(),
        freeze: Some(freeze),
        ..LeaseStatus::default()
    };
    let order = OrderStatus {
        number: 4,
        sentence: "drain app-03".into(),
        by: "bob".into(),
        state: "emptying".into(),
        ..OrderStatus::default()
    };
    let over = OrderStatus { number: 3, ended_ms: 1, ..OrderStatus::default() };
    let reply = StatusReply { lease: Some(dark), orders: vec![over, order], ..example() };
    assert_eq!(
        notes(&reply),
        [
            "Dark      for 12s, since 2026-11-21 14:28:35Z: app-01 is lost",
            "Frozen    by ann since 2026-11-21 14:28:42Z: etcd",
            "Order     4: drain app-03, by bob (emptying)",
        ]
    );
    assert!(notes(&example()).is_empty(), "nothing is out of the ordinary");
}

#[test]
fn the_deadline_says_how_fresh_the_right_is_and_when_nobody_knows() {
    let held = |remaining_soft_ms| LeaseStatus {
        state: "held".into(),
        agent: "app-01".into(),
        remaining_soft_ms,
        holder_state: "holder".into(),
        ..LeaseStatus::default()
    };
    let line = |status: LeaseStatus| {
        lease(&status, NOW).into_iter().find(|line| line.starts_with("Deadline")).expect("a line")
    };
    assert_eq!(line(held(Some(5200))), "Deadline  5s left, renewed all the time  (holder)");
    assert!(line(held(Some(-300))).starts_with("Deadline  passed 0.3s ago"));
    assert!(line(held(None)).contains("not heard"));
}

#[test]
fn the_history_is_a_table_with_its_gaps() {
    let row = TurnRow {
        turn: 7,
        token: "61".into(),
        agent: "app-02".into(),
        version: "1.0.0".into(),
        held: true,
        at_ms: NOW - 60_000,
        cause: "handed over (order 4)".into(),
        dark_ms: Some(44),
        ..TurnRow::default()
    };
    let gap = TurnRow { turn: 5, gap_to: 6, ..TurnRow::default() };
    let text = turns(&TurnsReply { turns: vec![row, gap], at_ms: NOW });
    assert!(text[1].contains("44 ms") && text[1].ends_with("holds (1m)"), "{text:?}");
    assert!(text[2].starts_with("5-6") && text[2].contains("gap: no coordinator saw it"), "{text:?}");
}

#[test]
fn without_a_report_shares_are_not_shown_as_nothing() {
    let mut reply = example();
    reply.fleet.iter_mut().for_each(|row| row.reported_shares = false);
    assert!(!fleet(&reply).join("\n").contains('%'), "{:?}", fleet(&reply));
}
