use handover_proto::wire::LeaseStatus;

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
