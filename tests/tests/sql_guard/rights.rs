//! Tokens only ever grow, and the scheduler's role can do nothing to the fence but through the guard.

use crate::site::{FENCED, GUARD, Site, install, state_of};

#[test]
fn a_token_only_ever_grows_and_only_its_installer_may_repeat_it() {
    let site = Site::new();
    let mut session = site.session();
    install(&mut session, 12, "b").expect("higher");
    install(&mut session, 12, "b").expect("the same again");
    for (token, holder) in [(11, "b"), (12, "a"), (10, "a")] {
        let refusal = install(&mut session, token, holder).expect_err("refused");
        assert_eq!(state_of(&refusal), FENCED);
        assert!(refusal.as_db_error().is_some_and(|error| error.message().contains("token 12 of b")), "{refusal:?}");
    }
    assert_eq!(site.stored(), 12);
}

#[test]
fn a_token_of_the_highest_era_fits() {
    let site = Site::new();
    install(&mut site.session(), i64::MAX, "b").expect("63 bits");
    let mut session = site.session();
    session.batch_execute("SELECT handover.fence_protect('charges', 'billing')").expect("protect");
    session
        .batch_execute(&format!("SET handover.token = '{}'; INSERT INTO charges VALUES (1)", i64::MAX))
        .expect("passes");
}

#[test]
fn the_schedulers_role_reaches_the_fence_only_through_the_guard() {
    let site = Site::new();
    let mut owner = site.session();
    owner.batch_execute("CREATE ROLE scheduler LOGIN; CREATE ROLE stranger LOGIN").expect("roles");
    owner.batch_execute("SELECT handover.fence_role('scheduler', interval '2 seconds')").expect("its rights");
    let mut scheduler = site.session_with("user=scheduler");
    install(&mut scheduler, 11, "b").expect("through the guard");
    scheduler.batch_execute("BEGIN; SELECT handover.fence_check('billing', 11); COMMIT").expect("through the guard");
    for direct in [
        "UPDATE handover.scheduler_fence SET token = 0",
        "DELETE FROM handover.scheduler_fence",
        "SELECT handover.fence_role('stranger', interval '1 second')",
    ] {
        assert_eq!(state_of(&scheduler.batch_execute(direct).expect_err("refused")), "42501", "{direct}");
    }
    let mut stranger = site.session_with("user=stranger");
    let refused = stranger.batch_execute("SELECT handover.fence_check('billing', 11)").expect_err("no right at all");
    assert_eq!(state_of(&refused), "42501");
    let limit: String = scheduler.query_one("SHOW statement_timeout", &[]).expect("the limit").get(0);
    assert_eq!(limit, "2s");
}

#[test]
fn applying_the_guard_again_changes_nothing_that_stands() {
    let site = Site::new();
    let mut owner = site.session();
    owner
        .batch_execute("CREATE ROLE scheduler LOGIN; SELECT handover.fence_role('scheduler', interval '2 seconds')")
        .expect("a role");
    owner.batch_execute(GUARD).expect("again");
    assert_eq!(site.stored(), 10);
    let mut scheduler = site.session_with("user=scheduler");
    scheduler.batch_execute("BEGIN; SELECT handover.fence_check('billing', 10); COMMIT").expect("its rights stand");
}

#[test]
fn a_service_without_a_row_is_fenced_until_its_first_install() {
    let site = Site::new();
    let mut session = site.session();
    let refusal = session.batch_execute("SELECT handover.fence_check('mailing', 10)").expect_err("never installed");
    assert!(refusal.as_db_error().is_some_and(|error| error.message().contains("which is none")), "{refusal:?}");
    let stored: i64 = session.query_one("SELECT handover.fence_stored('mailing')", &[]).expect("stored").get(0);
    assert_eq!(stored, 0);
}
