use super::*;

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

fn run(tally: &mut Tally, n: u64, kind: Kind, left: u64, outcome: Outcome, ended: u64) {
    let ticket = tally.leaves(n, kind, 0, ms(left), ms(left));
    tally.ends(ticket, outcome, Some("1.0.0".to_owned()), String::new(), ms(ended));
}

#[test]
fn a_latency_counts_from_the_intended_departure_and_lateness_of_our_own_is_shown() {
    let mut tally = Tally::new("r".to_owned(), 1.0);
    let ticket = tally.leaves(0, Kind::Read, 0, ms(100), ms(130));
    tally.ends(ticket, Outcome::Ok, None, String::new(), ms(150));
    let receipt = tally.receipt();
    assert_eq!((receipt.total.slowest, receipt.latest_departure), (ms(50), ms(30)));
}

#[test]
fn a_request_belongs_to_the_phase_in_which_it_left() {
    let mut tally = Tally::new("r".to_owned(), 1.0);
    tally.mark("before", ms(0));
    let ticket = tally.leaves(0, Kind::Read, 0, ms(10), ms(10));
    tally.mark("upgrade", ms(20));
    tally.ends(ticket, Outcome::Reset, None, "gone".to_owned(), ms(30));
    run(&mut tally, 1, Kind::Read, 40, Outcome::Ok, 41);
    let receipt = tally.receipt();
    let names: Vec<_> = receipt.phases.iter().map(|phase| (phase.name.as_str(), phase.counts.lost())).collect();
    assert_eq!(names, [("before", 1), ("upgrade", 0)], "the unused first phase gave way");
    assert_eq!(receipt.failures[0].phase, "before");
}

#[test]
fn the_longest_gap_is_between_good_answers_and_includes_the_end() {
    let mut tally = Tally::new("r".to_owned(), 1.0);
    run(&mut tally, 0, Kind::Read, 5, Outcome::Ok, 10);
    run(&mut tally, 1, Kind::Read, 20, Outcome::ServiceFault, 25);
    run(&mut tally, 2, Kind::Read, 30, Outcome::Ok, 60);
    assert_eq!(tally.receipt().total.longest_gap, ms(50));
    tally.stopped(ms(200));
    assert_eq!(tally.receipt().total.longest_gap, ms(140), "nothing answered well until the end");
    run(&mut tally, 3, Kind::Read, 199, Outcome::Ok, 900);
    assert_eq!(tally.receipt().total.longest_gap, ms(140), "the wait for a late answer is no gap");
}

#[test]
fn writes_are_remembered_by_whether_they_were_acknowledged() {
    let mut tally = Tally::new("r".to_owned(), 1.0);
    run(&mut tally, 0, Kind::Write, 1, Outcome::Ok, 2);
    run(&mut tally, 1, Kind::Write, 3, Outcome::Timeout, 4);
    run(&mut tally, 2, Kind::Read, 5, Outcome::Ok, 6);
    let receipt = tally.receipt();
    assert_eq!((receipt.acknowledged, receipt.unacknowledged), (vec![0], vec![1]));
}

#[test]
fn lost_faults_on_purpose_and_ours_are_counted_apart() {
    let mut tally = Tally::new("r".to_owned(), 1.0);
    for (n, outcome) in Outcome::ALL.into_iter().enumerate() {
        run(&mut tally, n as u64, Kind::Read, 1, outcome, 2);
    }
    let total = tally.receipt().total;
    assert_eq!((total.sent, total.of(Outcome::Ok), total.lost(), total.ours()), (8, 1, 3, 6));
    assert_eq!(total.versions["1.0.0"], 8);
}

#[test]
fn only_the_first_thousand_failures_are_kept_but_all_are_counted() {
    let mut tally = Tally::new("r".to_owned(), 1.0);
    for n in 0..1500 {
        run(&mut tally, n, Kind::Read, 1, Outcome::Refused, 2);
    }
    let receipt = tally.receipt();
    assert_eq!((receipt.failures.len(), receipt.total.lost()), (1000, 1500));
}
