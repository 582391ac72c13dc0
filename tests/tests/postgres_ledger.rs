//! The demo service's ledger on a real PostgreSQL: the same promises as on SQLite, and each weaker fence check caught by
//! the fence checker.
#![allow(clippy::expect_used, clippy::panic, reason = "a test that cannot go on ends")]

use std::time::Duration;

use handover_tests::billing::contract::Token;
use handover_tests::billing::ledger::{Ledger, LedgerAt, LedgerError, Paid, Payment, Writer};
use handover_tests::clock::BootNs;
use handover_tests::postgres::Postgres;
use handover_tests::receipt::{fence, rows};

const PERIOD: Duration = Duration::from_millis(100);
const PATIENCE: Duration = Duration::from_secs(5);
const NEVER: BootNs = BootNs(u64::MAX);

struct Site {
    server: Postgres,
    _dir: tempfile::TempDir,
}

impl Site {
    fn new() -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        Self { server: Postgres::start(dir.path()).expect("a server"), _dir: dir }
    }

    fn at(&self, check: &str) -> LedgerAt {
        format!("{}#{check}", self.server.url()).parse().expect("an address")
    }

    fn open(&self, instance: u8, check: &str) -> Ledger {
        let instance = format!("{instance:016x}").parse().expect("an id");
        let writer = Writer { instance, version: "1.0.0".parse().expect("a version") };
        Ledger::open(&self.at(check), writer, PATIENCE).expect("a ledger")
    }
}

fn token(n: i64) -> Token {
    Token::try_from(n).expect("a token")
}

#[test]
fn an_old_holders_late_unit_is_fenced_and_the_rows_show_the_order_of_commits() {
    let site = Site::new();
    let (mut a, mut b) = (site.open(1, "guard"), site.open(2, "guard"));
    assert!(matches!(a.charge(token(1), NEVER, || ()), Err(LedgerError::Fenced { .. })), "nothing before the install");
    a.install(token(1), PERIOD, BootNs(7)).expect("A");
    a.install(token(1), PERIOD, BootNs(8)).expect("again");
    assert_eq!(a.charge(token(1), NEVER, || ()).expect("charge"), 1);
    let found = b.install(token(2), PERIOD, BootNs(9)).expect("B");
    assert_eq!((found.next_tick, found.schedule.origin), (2, BootNs(7)));
    assert!(matches!(a.charge(token(1), NEVER, || ()), Err(LedgerError::Fenced { .. })));
    assert!(matches!(b.charge(token(2), BootNs::now(), || ()), Err(LedgerError::TooLate { .. })));
    assert_eq!(b.charge(token(2), NEVER, || ()).expect("charge"), 2);
    let rows = rows::ledger(&site.at("guard")).expect("rows");
    let report = fence::check(&rows.commits);
    assert_eq!((report.installs, report.charges, report.violations), (2, 2, vec![]));
}

#[test]
fn a_payment_is_written_once_per_key_and_a_reused_key_is_a_conflict() {
    let site = Site::new();
    let mut ledger = site.open(1, "guard");
    let payment = |key: &str, cents| Payment { key: key.to_owned(), account: "a".to_owned(), cents };
    let asked = [payment("k1", 5), payment("k1", 5), payment("k1", 6), payment("k2", 7)];
    assert_eq!(ledger.pay(&asked).expect("pay"), [Paid::New, Paid::Again, Paid::Conflict, Paid::New]);
    assert_eq!((ledger.balance("a").expect("a"), ledger.balance("nobody").expect("nobody")), (12, 0));
    assert_eq!(rows::ledger(&site.at("guard")).expect("rows").payments.len(), 2);
}

#[test]
fn a_ledger_goes_on_after_the_database_has_crashed() {
    let mut site = Site::new();
    let mut a = site.open(1, "guard");
    a.install(token(1), PERIOD, BootNs(7)).expect("A");
    assert_eq!(a.charge(token(1), NEVER, || ()).expect("before"), 1);
    site.server.crash_and_restart().expect("back");
    a.charge(token(1), NEVER, || ()).expect_err("the connection is gone");
    assert_eq!(a.charge(token(1), NEVER, || ()).expect("on a new connection, with the fence as it was"), 2);
}

/// A unit of an old holder that has passed `check` and works until a new holder's install is through, or has waited long
/// enough to be sure that it does not get through: what the fence checker finds in the rows.
fn overtaken(site: &Site, check: &str, (old, new): (i64, i64)) -> Vec<String> {
    let (mut a, mut b) = (site.open(1, check), site.open(2, check));
    a.install(token(old), PERIOD, BootNs(7)).expect("the old holder");
    let (through, seen) = std::sync::mpsc::channel();
    std::thread::scope(|scope| {
        let mut installing = None;
        let charged = a.charge(token(old), NEVER, || {
            installing = Some(scope.spawn(move || {
                b.install(token(new), PERIOD, BootNs(8)).expect("the new holder");
                let _nobody_waits_any_more = through.send(());
            }));
            let _not_in_time = seen.recv_timeout(Duration::from_millis(500));
        });
        charged.expect("whatever the check is, this unit was first or is not stopped");
        installing.expect("the unit has worked").join().expect("the install");
    });
    fence::check(&rows::ledger(&site.at(check)).expect("rows").commits).violations
}

#[test]
fn each_weaker_check_lets_an_old_holder_commit_late_and_the_fence_checker_sees_it() {
    for check in ["plain", "key-share", "outside", "none"] {
        let site = Site::new();
        assert_eq!(overtaken(&site, check, (1, 2)).len(), 1, "{check}");
    }
}

#[test]
fn behind_the_guard_the_same_unit_commits_before_the_install() {
    assert_eq!(overtaken(&Site::new(), "guard", (1, 2)), Vec::<String>::new());
}
