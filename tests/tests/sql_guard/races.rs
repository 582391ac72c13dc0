//! Old holder against new holder, in both orders, with the guard's check and with the weaker ones.

use crate::site::{FENCED, Site, install, state_of};

/// The old holder's transaction: checked under token 10 with `check`, its effect written, not committed.
fn open_unit(site: &Site, check: &str) -> postgres::Client {
    let mut old = site.session();
    old.batch_execute("BEGIN").expect("begin");
    let passed = old.query(check, &[]).expect("the check passes");
    assert_eq!(passed.len(), 1, "the old token is installed, so any check passes");
    old.batch_execute("INSERT INTO charges VALUES (10)").expect("an effect");
    old
}

#[test]
fn an_install_waits_for_the_unit_that_has_passed_the_check_and_then_none_passes() {
    let site = Site::new();
    let mut old = open_unit(&site, "SELECT handover.fence_check('billing', 10)");
    let (pid, installing) = site.aside("user=postgres", "SELECT handover.fence_install('billing', 11, 'b')");
    site.until_blocked(pid);
    assert_eq!((site.stored(), site.charges()), (10, vec![]), "neither the new token nor the old effect is there yet");
    old.batch_execute("COMMIT").expect("the old unit was first, so it commits");
    installing.join().expect("the thread").expect("then the install returns");
    assert_eq!((site.stored(), site.charges()), (11, vec![10]));
    let late = old.batch_execute("BEGIN; SELECT handover.fence_check('billing', 10)").expect_err("fenced");
    assert_eq!(state_of(&late), FENCED);
}

#[test]
fn a_check_that_waits_behind_an_install_is_fenced_and_not_let_through() {
    let site = Site::new();
    let mut new = site.session();
    new.batch_execute("BEGIN").expect("begin");
    install(&mut new, 11, "b").expect("not yet committed");
    let unit = "BEGIN; SELECT handover.fence_check('billing', 10); INSERT INTO charges VALUES (10); COMMIT";
    let (pid, late) = site.aside("user=postgres", unit);
    site.until_blocked(pid);
    new.batch_execute("COMMIT").expect("installed");
    let refusal = late.join().expect("the thread").expect_err("fenced");
    assert_eq!((state_of(&refusal), site.charges()), (FENCED.to_owned(), vec![]));
}

#[test]
fn without_a_row_lock_that_excludes_the_install_the_old_holder_commits_after_it() {
    // M7: why the guard reads FOR SHARE. If these ever wait, the reason for the guard's form is gone.
    let plain = "SELECT 1 FROM handover.scheduler_fence WHERE service = 'billing' AND token = 10";
    for weaker in [plain.to_owned(), format!("{plain} FOR KEY SHARE")] {
        let site = Site::new();
        let mut old = open_unit(&site, &weaker);
        install(&mut site.session(), 11, "b").expect("the install does not wait");
        assert_eq!(site.stored(), 11, "{weaker}");
        old.batch_execute("COMMIT").expect("and the old holder still commits");
        assert_eq!(site.charges(), [10], "an effect under token 10 after token 11 was installed: {weaker}");
    }
}

#[test]
fn a_check_in_a_transaction_of_its_own_protects_nothing() {
    let site = Site::new();
    let mut old = site.session();
    old.batch_execute("SELECT handover.fence_check('billing', 10)").expect("passes, and its lock is gone");
    install(&mut site.session(), 11, "b").expect("the install does not wait");
    old.batch_execute("INSERT INTO charges VALUES (10)").expect("nothing stops it");
    assert_eq!(site.charges(), [10]);
}

#[test]
fn a_dead_holders_open_transaction_holds_the_install_no_longer_than_the_roles_limit() {
    let site = Site::new();
    site.session()
        .batch_execute(
            "CREATE ROLE scheduler LOGIN; GRANT INSERT ON charges TO scheduler;
             SELECT handover.fence_role('scheduler', interval '300 milliseconds')",
        )
        .expect("the role");
    let mut frozen = site.session_with("user=scheduler");
    frozen
        .batch_execute("BEGIN; SELECT handover.fence_check('billing', 10); INSERT INTO charges VALUES (10)")
        .expect("open");
    let (pid, installing) = site.aside("user=postgres", "SELECT handover.fence_install('billing', 11, 'b')");
    site.until_blocked(pid);
    installing.join().expect("the thread").expect("the server ended the idle transaction");
    assert_eq!((site.stored(), site.charges()), (11, vec![]));
    frozen.batch_execute("COMMIT").expect_err("its session was ended by the server");
}

#[test]
fn an_install_may_end_the_sessions_of_older_tokens_instead_of_waiting_for_them() {
    let site = Site::new();
    let mut old = site.session_with("user=postgres application_name=handover:billing:10");
    old.batch_execute("BEGIN; SELECT handover.fence_check('billing', 10)").expect("open");
    let mut other = site.session_with("user=postgres application_name=handover:billing:11");
    let mut boaster = site.session_with("user=postgres application_name=handover:billing:9999999999999999999");
    let mut new = site.session();
    let told: i64 = new.query_one("SELECT handover.fence_evict('billing', 11)", &[]).expect("evict").get(0);
    assert_eq!(told, 1, "only the older token's session");
    install(&mut new, 11, "b").expect("installed");
    old.batch_execute("COMMIT").expect_err("ended");
    other.batch_execute("SELECT 1").expect("left alone");
    boaster.batch_execute("SELECT 1").expect("a number that no token can be stands in nobody's way");
}

#[test]
fn under_repeatable_read_a_late_check_fails_with_40001() {
    let site = Site::new();
    let mut old = site.session();
    // The snapshot is taken before the install, so the check would see the old token.
    old.batch_execute("BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM charges").expect("a snapshot");
    install(&mut site.session(), 11, "b").expect("installed");
    let refusal = old.batch_execute("SELECT handover.fence_check('billing', 10)").expect_err("not let through");
    assert_eq!(state_of(&refusal), "40001");
}
