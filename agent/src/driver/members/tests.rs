use super::*;

const AGENT: i32 = 100;

fn id(n: u64) -> InstanceId {
    format!("{n:016x}").parse().expect("an id")
}

fn key(pid: i32) -> Key {
    Key { pid, start_time_ticks: u64::try_from(pid).expect("positive") * 10 }
}

/// (pid, parent, group, session); the agent's own line is always there.
fn table(rows: &[(i32, i32, i32, i32)]) -> Table {
    let agent = [(1, 0, 1, 1), (50, 1, 50, 50), (AGENT, 50, 50, 50)];
    let all = agent.iter().chain(rows);
    all.map(|&(pid, parent, group, session)| (pid, Row { key: key(pid), parent, group, session, ended: false }))
        .collect()
}

#[derive(Default)]
struct Case {
    rows: Vec<(i32, i32, i32, i32)>,
    own: Vec<i32>,
    marks: Vec<(i32, u64)>,
    known: Vec<i32>,
    adopted: bool,
}

/// The members of instance 7, whose main process is 200.
fn members(case: &Case) -> Vec<i32> {
    let table = table(&case.rows);
    let own = case.own.iter().copied().collect();
    let marks = case.marks.iter().map(|(pid, n)| (*pid, id(*n))).collect();
    let scene = Scene { table: &table, me: AGENT, own: &own, marks: &marks };
    let known = case.known.iter().map(|pid| key(*pid)).collect();
    let line = Line { instance: &id(7), leader: key(200), unbroken: !case.adopted, known: &known };
    scene.members(&line).iter().map(|key| key.pid).collect()
}

#[test]
fn descendants_belong_at_any_depth_whatever_group_they_chose() {
    let case = Case {
        rows: vec![(200, AGENT, 200, 50), (201, 200, 200, 50), (202, 201, 202, 202), (203, 202, 203, 202)],
        own: vec![200],
        ..Case::default()
    };
    assert_eq!(members(&case), [200, 201, 202, 203]);
}

#[test]
fn an_orphan_in_the_leaders_group_belongs() {
    let case = Case { rows: vec![(200, AGENT, 200, 50), (202, AGENT, 200, 50)], own: vec![200], ..Case::default() };
    assert_eq!(members(&case), [200, 202]);
}

#[test]
fn an_orphan_in_its_own_session_belongs_by_its_marks() {
    let rows = vec![(200, AGENT, 200, 50), (202, AGENT, 202, 202), (203, 202, 203, 203)];
    let case = Case { rows, own: vec![200], marks: vec![(202, 7)], ..Case::default() };
    assert_eq!(members(&case), [200, 202, 203]);
}

#[test]
fn an_orphan_without_marks_belongs_if_it_was_seen_before_or_its_session_was() {
    let rows = vec![(200, AGENT, 200, 50), (202, AGENT, 202, 202), (203, AGENT, 203, 202), (204, AGENT, 204, 299)];
    let case = Case { rows, own: vec![200], known: vec![202, 299], ..Case::default() };
    assert_eq!(members(&case), [200, 202, 203, 204]);
}

#[test]
fn an_orphan_of_unknown_descent_belongs_to_nobody() {
    let case = Case { rows: vec![(200, AGENT, 200, 50), (202, AGENT, 202, 202)], own: vec![200], ..Case::default() };
    assert_eq!(members(&case), [200]);
}

#[test]
fn another_instances_orphan_is_not_taken_even_in_a_known_session() {
    let rows = vec![(200, AGENT, 200, 50), (202, AGENT, 202, 299)];
    let case = Case { rows, own: vec![200], marks: vec![(202, 8)], known: vec![299], ..Case::default() };
    assert_eq!(members(&case), [200]);
}

#[test]
fn the_agents_other_children_and_the_agents_own_line_are_never_taken() {
    let case = Case {
        rows: vec![(200, AGENT, 200, 50), (300, AGENT, 200, 50), (301, 300, 300, 50)],
        own: vec![200, 300],
        marks: vec![(1, 7), (50, 7), (AGENT, 7), (300, 7)],
        adopted: true,
        ..Case::default()
    };
    assert_eq!(members(&case), [200]);
}

#[test]
fn marks_count_outside_the_agents_descent_only_for_an_adopted_instance() {
    let rows = vec![(200, 1, 200, 200), (202, 1, 202, 202)];
    let case = |adopted| Case { rows: rows.clone(), marks: vec![(202, 7)], adopted, ..Case::default() };
    assert_eq!(members(&case(true)), [200, 202]);
    assert_eq!(members(&case(false)), [200]);
}

#[test]
fn a_recycled_pid_and_its_group_are_strangers() {
    let mut table = table(&[(200, 1, 200, 200), (201, 1, 200, 200), (202, 201, 200, 200)]);
    table.get_mut(&200).expect("a row").key.start_time_ticks += 1;
    let scene = Scene { table: &table, me: AGENT, own: &BTreeSet::new(), marks: &BTreeMap::new() };
    for unbroken in [true, false] {
        let line = Line { instance: &id(7), leader: key(200), unbroken, known: &BTreeSet::new() };
        assert_eq!(scene.members(&line), BTreeSet::new());
    }
}

#[test]
fn a_group_that_outlives_an_adopted_leader_is_not_trusted_by_its_number_alone() {
    let case = Case { rows: vec![(201, 1, 200, 200)], adopted: true, ..Case::default() };
    assert_eq!(members(&case), [0; 0]);
    let marked = Case { marks: vec![(201, 7)], ..case };
    assert_eq!(members(&marked), [201]);
}
