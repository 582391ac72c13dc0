//! The form for services that cannot change their SQL: a trigger that checks the session's token.

use crate::site::{FENCED, Site, install, state_of};

fn protected() -> Site {
    let site = Site::new();
    site.session().batch_execute("SELECT handover.fence_protect('charges', 'billing')").expect("protect");
    site
}

#[test]
fn every_kind_of_write_needs_the_installed_token_and_reads_need_none() {
    let site = protected();
    let writes =
        ["INSERT INTO charges VALUES (1)", "UPDATE charges SET token = 2", "DELETE FROM charges", "TRUNCATE charges"];
    for (token, passes) in [(None, false), (Some("9"), false), (Some("ten"), false), (Some("10"), true)] {
        let mut session = site.session();
        if let Some(token) = token {
            session.batch_execute(&format!("SET handover.token = '{token}'")).expect("a setting");
        }
        session.batch_execute("SELECT count(*) FROM charges").expect("reads are free");
        for write in writes {
            let outcome = session.batch_execute(write).map_err(|error| state_of(&error));
            let expected = if passes { Ok(()) } else { Err(FENCED.to_owned()) };
            assert_eq!(outcome, expected, "{write} with token {token:?}");
        }
    }
}

#[test]
fn a_written_statement_keeps_the_install_waiting_until_its_transaction_ends() {
    let site = protected();
    let mut old = site.session();
    old.batch_execute("SET handover.token = '10'; BEGIN; INSERT INTO charges VALUES (10)").expect("an open unit");
    let (pid, installing) = site.aside("user=postgres", "SELECT handover.fence_install('billing', 11, 'b')");
    site.until_blocked(pid);
    old.batch_execute("COMMIT").expect("commits first");
    installing.join().expect("the thread").expect("installed");
    let late = old.batch_execute("INSERT INTO charges VALUES (10)").expect_err("fenced");
    assert_eq!((state_of(&late), site.charges()), (FENCED.to_owned(), vec![10]));
}

#[test]
fn a_refusal_says_what_to_do() {
    let site = protected();
    let refusal = site.session().batch_execute("INSERT INTO charges VALUES (1)").expect_err("no token");
    let error = refusal.as_db_error().expect("from the server");
    assert!(error.message().contains("charges") && error.message().contains("billing"), "{error}");
    assert!(error.hint().is_some_and(|hint| hint.contains("SET handover.token")), "{error:?}");
}

#[test]
fn protecting_twice_checks_once_and_other_tables_stay_free() {
    let site = protected();
    let mut owner = site.session();
    owner
        .batch_execute("SELECT handover.fence_protect('charges', 'billing'); CREATE TABLE other (x int)")
        .expect("again");
    let count: i64 = owner
        .query_one("SELECT count(*) FROM pg_trigger WHERE tgname = 'handover_fence'", &[])
        .expect("triggers")
        .get(0);
    assert_eq!(count, 1);
    owner.batch_execute("INSERT INTO other VALUES (1)").expect("not protected");
    install(&mut owner, 11, "b").expect("the fence itself is no protected table");
}
