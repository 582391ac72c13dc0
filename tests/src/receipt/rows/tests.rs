use std::io::Write;
use std::time::Duration;

use rusqlite::Connection;

use super::*;
use crate::billing::contract::Token;
use crate::billing::ledger::{Ledger, Payment, Writer};

#[test]
fn the_ledgers_rows_come_in_the_order_of_commits_and_a_tampered_row_is_seen() {
    let dir = tempfile::tempdir().expect("dir");
    let path = dir.path().join("ledger.db");
    let writer =
        Writer { instance: "00000000000000aa".parse().expect("id"), version: "1.0.0".parse().expect("version") };
    let mut billing = Ledger::open(&path.clone().into(), writer, Duration::from_secs(5)).expect("open");
    let token = Token::try_from(5).expect("token");
    billing.install(token, Duration::from_millis(100), BootNs(7)).expect("install");
    billing.charge(token, BootNs(u64::MAX), || ()).expect("charge");
    billing.charge(token, BootNs(u64::MAX), || ()).expect("charge");
    billing.pay(&[Payment { key: "k".to_owned(), account: "a".to_owned(), cents: 3 }]).expect("pay");

    let rows = ledger(&path.clone().into()).expect("read");
    let what: Vec<_> = rows.commits.iter().map(|commit| commit.what).collect();
    assert_eq!(what, [What::Install, What::Charge(1), What::Charge(2)]);
    assert_eq!(rows.schedule.map(|schedule| schedule.origin), Some(BootNs(7)));
    assert_eq!(rows.payments["k"], [("a".to_owned(), 3)]);
    assert_eq!(crate::receipt::fence::check(&rows.commits).violations.len(), 0);
    assert_eq!(crate::receipt::ticks::check(&rows.commits, rows.schedule, BootNs(8)).doubled, 0);

    let tamper = Connection::open(&path).expect("open");
    tamper.execute("UPDATE charges SET token = 4, tick = 1 WHERE tick = 2", []).expect("a stale holder's double");
    let rows = ledger(&path.clone().into()).expect("read");
    assert_eq!(crate::receipt::fence::check(&rows.commits).violations.len(), 1);
    assert_eq!(crate::receipt::ticks::check(&rows.commits, rows.schedule, BootNs(8)).doubled, 1);
}

#[test]
fn a_missing_ledger_is_an_error_and_not_an_empty_one() {
    let dir = tempfile::tempdir().expect("dir");
    ledger(&dir.path().join("none.db").into()).expect_err("no ledger");
}

#[test]
fn a_line_that_was_cut_off_by_a_kill_is_left_out_but_a_broken_one_before_it_is_an_error() {
    let whole = r#"{"at_boot_ns":5,"instance":"00000000000000aa","version":"1","token":"5","event":"active"}"#;
    let mut file = tempfile::NamedTempFile::new().expect("file");
    write!(file, "{whole}\n{}", &whole[..20]).expect("write");
    assert_eq!(activity(&[file.path()]).expect("cut off").len(), 1);
    write!(file, "\n{whole}\n").expect("write");
    let error = activity(&[file.path()]).expect_err("broken in the middle").to_string();
    assert!(error.contains("line 2"), "{error}");
}
