use super::*;
use crate::billing::ledger::{Paid, Payment};

const PERIOD: Duration = Duration::from_millis(100);
const PATIENCE: Duration = Duration::from_secs(5);
const NEVER: BootNs = BootNs(u64::MAX);

fn token(n: i64) -> Token {
    Token::try_from(n).expect("a token")
}

fn writer(instance: u8) -> Writer {
    Writer {
        instance: format!("{instance:016x}").parse().expect("an id"),
        version: "1.0.0".parse().expect("a version"),
    }
}

fn open(dir: &tempfile::TempDir, instance: u8) -> Sqlite {
    Sqlite::open(&dir.path().join("ledger.db"), writer(instance), PATIENCE).expect("a ledger")
}

fn count(ledger: &Sqlite, table: &str) -> u64 {
    ledger.connection.query_row(&format!("SELECT count(*) FROM {table}"), [], |row| row.get(0)).expect("a count")
}

fn payment(key: &str, cents: i64) -> Payment {
    Payment { key: key.to_owned(), account: "a".to_owned(), cents }
}

#[test]
fn nothing_is_charged_before_the_token_is_installed() {
    let dir = tempfile::tempdir().expect("dir");
    let mut ledger = open(&dir, 1);
    assert!(matches!(ledger.charge(token(1), NEVER), Err(LedgerError::Fenced { installed: 0, .. })));
    assert_eq!(count(&ledger, "charges"), 0);
    ledger.install(token(1), PERIOD, BootNs(7)).expect("install");
    assert_eq!(ledger.charge(token(1), NEVER).expect("charge"), 1);
}

#[test]
fn an_old_holders_late_unit_is_fenced_and_writes_nothing() {
    let dir = tempfile::tempdir().expect("dir");
    let (mut a, mut b) = (open(&dir, 1), open(&dir, 2));
    a.install(token(1), PERIOD, BootNs(7)).expect("A");
    assert_eq!(a.charge(token(1), NEVER).expect("charge"), 1);
    let found = b.install(token(2), PERIOD, BootNs(9)).expect("B");
    assert_eq!(found, Installed { schedule: Schedule { origin: BootNs(7), period: PERIOD }, next_tick: 2 });
    let late = a.charge(token(1), NEVER).expect_err("fenced");
    assert!(matches!(late, LedgerError::Fenced { installed: 2, .. }), "{late}");
    assert_eq!(count(&a, "charges"), 1);
    assert_eq!(b.charge(token(2), NEVER).expect("charge"), 2);
}

#[test]
fn install_waits_for_a_transaction_that_has_passed_the_check() {
    let dir = tempfile::tempdir().expect("dir");
    let (mut a, mut b) = (open(&dir, 1), open(&dir, 2));
    a.install(token(1), PERIOD, BootNs(7)).expect("A");
    let tx = a.begin().expect("A's unit");
    check_installed(&tx, token(1), &writer(1)).expect("passes the check");
    let install = std::thread::spawn(move || b.install(token(2), PERIOD, BootNs(9)).map(|_| BootNs::now()));
    // B is at the lock for as long as we look; only the commit lets it through.
    for _ in 0..20 {
        std::thread::sleep(Duration::from_millis(5));
        assert!(!install.is_finished(), "B's install overtook A's open transaction");
    }
    let before_commit = BootNs::now();
    tx.commit().expect("commit");
    assert!(install.join().expect("B").expect("installed") > before_commit);
}

#[test]
fn a_repeated_install_changes_nothing_and_only_the_installer_may_repeat_it() {
    let dir = tempfile::tempdir().expect("dir");
    let (mut a, mut b) = (open(&dir, 1), open(&dir, 2));
    a.install(token(5), PERIOD, BootNs(7)).expect("first");
    a.install(token(5), PERIOD, BootNs(8)).expect("again");
    assert_eq!(count(&a, "installs"), 1);
    assert!(matches!(b.install(token(5), PERIOD, BootNs(9)), Err(LedgerError::Fenced { .. })), "another's token");
    assert!(matches!(a.install(token(4), PERIOD, BootNs(9)), Err(LedgerError::Fenced { .. })), "an older token");
}

#[test]
fn a_unit_past_its_hard_deadline_is_rolled_back() {
    let dir = tempfile::tempdir().expect("dir");
    let mut ledger = open(&dir, 1);
    ledger.install(token(1), PERIOD, BootNs(7)).expect("install");
    assert!(matches!(ledger.charge(token(1), BootNs::now()), Err(LedgerError::TooLate { .. })));
    assert_eq!(count(&ledger, "charges"), 0);
}

#[test]
fn ticks_are_due_by_schedule_whoever_charges_them() {
    let schedule = Schedule { origin: BootNs(50), period: Duration::from_nanos(10) };
    assert_eq!([schedule.due(1), schedule.due(2), schedule.due(11)], [BootNs(50), BootNs(60), BootNs(150)]);
}

#[test]
fn an_instance_with_another_period_is_refused_with_both_numbers() {
    let dir = tempfile::tempdir().expect("dir");
    let mut ledger = open(&dir, 1);
    ledger.install(token(1), PERIOD, BootNs(7)).expect("install");
    let error = ledger.install(token(2), Duration::from_millis(50), BootNs(8)).expect_err("period").to_string();
    assert!(error.contains("100000000") && error.contains("50000000"), "{error}");
}

#[test]
fn a_payment_is_written_once_per_key_and_a_reused_key_is_a_conflict() {
    let dir = tempfile::tempdir().expect("dir");
    let mut ledger = open(&dir, 1);
    let asked = [payment("k1", 5), payment("k1", 5), payment("k1", 6), payment("k2", 7)];
    assert_eq!(ledger.pay(&asked).expect("pay"), [Paid::New, Paid::Again, Paid::Conflict, Paid::New]);
    assert_eq!(ledger.balance("a").expect("balance"), 12);
    assert_eq!(ledger.balance("nobody").expect("balance"), 0);
}

#[test]
fn many_instances_can_create_one_ledger_at_the_same_moment() {
    let dir = tempfile::tempdir().expect("dir");
    std::thread::scope(|scope| {
        let opened: Vec<_> = (1..=6)
            .map(|n| {
                scope.spawn({
                    let dir = &dir;
                    move || open(dir, n)
                })
            })
            .collect();
        for ledger in opened {
            assert_eq!(count(&ledger.join().expect("opened"), "fence"), 1);
        }
    });
}
