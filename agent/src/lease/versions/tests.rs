use super::*;

fn survey(versions: &[&str], size: usize) -> Survey {
    let versions = (1..).zip(versions).map(|(member, version)| (member, (*version).to_owned())).collect();
    let members = (1..).take(size).collect();
    Survey { versions, members: Some(members), guarded: Some(true), embedded: false }
}

fn trust(versions: &[&str]) -> Trust {
    let mut trust = Trust::default();
    assert!(trust.learn(survey(versions, versions.len())));
    trust
}

#[test]
fn versions_are_judged_by_the_release_that_mended_them() {
    for good in ["3.4.42", "3.5.28", "3.6.9", "3.7.0", "4.0.0"] {
        assert_eq!(judge(good), VersionGate::Good, "{good}");
    }
    for outdated in ["3.4.31", "3.5.13", "3.5.27", "3.6.0", "3.6.8"] {
        assert_eq!(judge(outdated), VersionGate::Outdated(outdated.to_owned()));
    }
    for bad in ["3.4.23", "3.4.30", "3.5.0", "3.5.12", "3.3.99", "2.9.9", "3.5.13-rc.1"] {
        assert_eq!(judge(bad), VersionGate::Unsafe(bad.to_owned()));
    }
    for odd in ["", "3.5", "three", "3.5.13.1", "3.6.0-rc.0"] {
        assert!(matches!(judge(odd), VersionGate::Unknown(_)), "{odd}");
    }
}

#[test]
fn the_worst_member_counts() {
    assert_eq!(trust(&["3.5.30", "3.5.28"]).gate(), VersionGate::Good);
    assert_eq!(trust(&["3.5.30", "3.5.16"]).gate(), VersionGate::Outdated("3.5.16".to_owned()));
    assert_eq!(trust(&["3.5.30", "3.4.23", "3.5.16"]).gate(), VersionGate::Unsafe("3.4.23".to_owned()));
}

#[test]
fn a_member_that_has_never_answered_makes_the_versions_unknown() {
    let mut trust = Trust::default();
    assert!(trust.why_long().expect("unknown").contains("no member"));
    assert!(!trust.learn(survey(&["3.5.30", "3.5.30"], 3)));
    let why = trust.why_long().expect("one is missing");
    assert!(why.contains("1 of 3"), "{why}");
}

#[test]
fn a_member_that_answers_no_more_keeps_its_version_and_one_that_left_does_not() {
    let mut trust = trust(&["3.5.30", "3.5.30", "3.4.23"]);
    assert!(!trust.learn(survey(&["3.5.30", "3.5.30"], 3)));
    assert_eq!(trust.gate(), VersionGate::Unsafe("3.4.23".to_owned()));
    assert!(trust.learn(survey(&["3.5.30", "3.5.30"], 2)));
    assert_eq!(trust.gate(), VersionGate::Good);
}

#[test]
fn a_member_in_the_place_of_another_is_unknown_until_it_says_its_version() {
    let mut trust = trust(&["3.5.30", "3.5.30", "3.5.30"]);
    let members = Some([1, 2, 4].into());
    assert!(!trust.learn(Survey { members, ..survey(&["3.5.30", "3.5.30"], 3) }));
    assert!(matches!(trust.gate(), VersionGate::Unknown(_)));
}

#[test]
fn the_short_quarantine_needs_sound_versions_and_the_guard() {
    assert_eq!(trust(&["3.5.13"]).why_long(), None);
    let mut open = trust(&["3.5.30"]);
    open.learn(Survey { guarded: Some(false), ..survey(&["3.5.30"], 1) });
    assert!(open.why_long().expect("no guard").contains("handover store setup"));
    assert!(trust(&["3.4.23"]).why_long().expect("early revoke").contains("3.4.23"));
}

#[test]
fn an_embedded_store_is_never_guarded() {
    let mut embedded = Trust::default();
    assert!(embedded.learn(Survey { embedded: true, ..survey(&["handover-0.1.0"], 1) }));
    assert_eq!((embedded.gate(), embedded.is_guarded()), (VersionGate::Good, false));
    assert!(embedded.why_long().expect("no roles").contains("embedded"));
}

#[test]
fn a_guard_that_cannot_be_read_stays_as_it_was_read_last() {
    let mut trust = trust(&["3.5.30"]);
    assert!(!trust.learn(Survey { guarded: None, ..survey(&["3.5.30"], 1) }));
    assert!(trust.is_guarded());
}
