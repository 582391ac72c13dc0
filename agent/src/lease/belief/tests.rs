use super::*;

fn at(ms: u64) -> Boot {
    Boot::from_ns(ms * 1_000_000)
}

fn shown(revision: Revision, floor: Revision) -> Shown {
    Shown { cluster: 1, revision, floor, least: floor, era: Some(Era(0)), rewritten: None }
}

fn believing() -> Belief {
    let mut belief = Belief::default();
    assert_eq!(belief.judge(&shown(10, 0), at(0)), Worth::Counts);
    belief
}

#[test]
fn the_first_cluster_that_answers_is_believed_and_another_one_is_not() {
    let mut belief = believing();
    let other = Shown { cluster: 2, ..shown(99, 0) };
    assert_eq!((belief.judge(&other, at(1)), belief.cluster()), (Worth::Nothing, Some(1)));
    let trouble = belief.trouble().expect("refused");
    assert!(trouble.contains("another cluster") && trouble.contains("handover lease era --raise "), "{trouble}");
    assert_eq!((belief.judge(&shown(11, 10), at(2)), belief.trouble()), (Worth::Counts, None), "the old one is back");
}

#[test]
fn one_low_answer_is_a_doubt_and_low_answers_for_two_seconds_are_a_restore() {
    let mut belief = believing();
    assert_eq!(belief.judge(&shown(9, 10), at(0)), Worth::Nothing);
    assert!(belief.doubt().is_some() && belief.trouble().is_none());
    assert_eq!((belief.judge(&shown(12, 10), at(500)), belief.doubt()), (Worth::Counts, None), "it was stale");
    for ms in [600, 1600, 2599] {
        belief.judge(&shown(9, 12), at(ms));
        assert_eq!(belief.trouble(), None);
    }
    belief.judge(&shown(9, 12), at(2600));
    let trouble = belief.trouble().expect("refused");
    assert!(trouble.contains("from revision 12 to 9"), "{trouble}");
}

#[test]
fn a_store_that_went_back_stays_refused_when_its_revisions_have_grown_past_the_known_ones() {
    let mut belief = believing();
    for ms in [0, 2000] {
        belief.judge(&shown(5, 10), at(ms));
    }
    assert_eq!(belief.judge(&shown(50, 10), at(3000)), Worth::Nothing);
    assert!(belief.trouble().is_some() && belief.went_back());
    let next = Belief::remembered(belief.cluster(), belief.era(), 8, true);
    assert!(next.trouble().is_some(), "the next process knows it too");
}

#[test]
fn a_holder_key_of_an_older_revision_in_a_newer_answer_is_a_restore_at_once() {
    let mut belief = believing();
    let rewritten = Shown { rewritten: Some((4, 8)), ..shown(11, 10) };
    assert_eq!(belief.judge(&rewritten, at(0)), Worth::Nothing);
    assert!(belief.went_back());
}

#[test]
fn a_refused_store_is_believed_anew_with_a_higher_era_and_not_with_the_same() {
    for other in [1, 2] {
        let mut belief = Belief::remembered(Some(1), Era(3), 8, true);
        let answer =
            |era| Shown { cluster: other, revision: 2, floor: 0, least: 0, era: Some(Era(era)), rewritten: None };
        for era in [0, 3] {
            assert_eq!(belief.judge(&answer(era), at(0)), Worth::Nothing, "era {era}");
        }
        assert_eq!(belief.judge(&Shown { era: None, ..answer(0) }, at(0)), Worth::Nothing);
        assert_eq!(belief.judge(&answer(4), at(0)), Worth::Anew);
        assert_eq!((belief.cluster(), belief.era(), belief.trouble()), (Some(other), Era(4), None));
        assert_eq!(belief.last_turn(), 0, "its revisions do not compare with the old ones");
    }
}

#[test]
fn an_era_raised_in_a_believed_store_makes_nothing_forgotten() {
    let mut belief = believing();
    let raised = Shown { era: Some(Era(1)), ..shown(11, 10) };
    assert_eq!((belief.judge(&raised, at(0)), belief.era()), (Worth::Counts, Era(1)));
}

#[test]
fn an_era_that_is_first_seen_in_an_answer_without_a_comparable_revision_makes_everything_forgotten() {
    let mut belief = believing();
    let raised = Shown { era: Some(Era(1)), ..shown(3, 0) };
    assert_eq!((belief.judge(&raised, at(0)), belief.era()), (Worth::Anew, Era(1)), "the store may have gone back");
    let mut first = Belief::default();
    assert_eq!(first.judge(&raised, at(0)), Worth::Counts, "there is nothing to forget");
}

#[test]
fn an_era_raised_in_the_middle_of_a_doubt_makes_everything_forgotten() {
    let mut belief = believing();
    assert_eq!(belief.judge(&shown(3, 10), at(0)), Worth::Nothing);
    let raised = Shown { era: Some(Era(1)), ..shown(4, 10) };
    assert_eq!((belief.judge(&raised, at(1)), belief.doubt()), (Worth::Anew, None), "the raise was for this restore");
}

#[test]
fn what_an_earlier_process_saw_is_the_least_that_an_intact_store_answers_with() {
    let mut belief = Belief::remembered(Some(1), Era(0), 12, false);
    let least = belief.least();
    for ms in [0, 2000] {
        assert_eq!(belief.judge(&Shown { least, ..shown(4, 0) }, at(ms)), Worth::Nothing);
    }
    assert!(belief.trouble().is_some_and(|trouble| trouble.contains("from revision 12 to 4")));
}
