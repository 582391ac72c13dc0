//! The ledger in PostgreSQL, behind the shipped SQL guard (`agent/sql/postgresql.sql`).
//!
//! The place in the order of commits is taken last, from one row that every transaction of the scheduler has to lock: so
//! it is the order of commits indeed, and the gap between the check and the commit is as wide as the unit, in which a
//! weaker check would let the next holder in.

mod payments;

use std::time::Duration;

use postgres::error::SqlState;
use postgres::{Client, NoTls, Transaction};

use super::{Installed, LedgerError, Schedule, Writer};
use crate::billing::contract::Token;
use crate::clock::BootNs;

/// The guard as it is shipped.
const GUARD: &str = include_str!("../../../../agent/sql/postgresql.sql");
/// Held while tables are made: several instances start at once.
const SETUP_LOCK: i64 = 0x6861_6e64;
/// Longest that a connection may take to come about.
const CONNECT: Duration = Duration::from_secs(2);

const TABLES: &str = "
CREATE TABLE IF NOT EXISTS commit_order (id int PRIMARY KEY CHECK (id = 1), last bigint NOT NULL);
CREATE TABLE IF NOT EXISTS schedule (id int PRIMARY KEY CHECK (id = 1), origin_boot_ns bigint NOT NULL,
    period_ns bigint NOT NULL);
CREATE TABLE IF NOT EXISTS installs (commit_order bigint PRIMARY KEY, token bigint NOT NULL, instance text NOT NULL,
    version text NOT NULL, at_boot_ns bigint NOT NULL);
CREATE TABLE IF NOT EXISTS charges (commit_order bigint PRIMARY KEY, tick bigint NOT NULL, token bigint NOT NULL,
    instance text NOT NULL, version text NOT NULL, at_boot_ns bigint NOT NULL);
CREATE INDEX IF NOT EXISTS charges_tick ON charges (tick);
CREATE TABLE IF NOT EXISTS payments (idempotency_key text PRIMARY KEY, account text NOT NULL, cents bigint NOT NULL,
    instance text NOT NULL, version text NOT NULL);
CREATE TABLE IF NOT EXISTS balances (account text PRIMARY KEY, cents bigint NOT NULL);
INSERT INTO commit_order (id, last) VALUES (1, 0) ON CONFLICT DO NOTHING;
";

/// How a unit checks the fence. All but the first are planted mistakes, which a checker must catch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Check {
    /// By the guard: `FOR SHARE`, inside the transaction.
    Guard,
    /// A plain read: it locks nothing.
    Plain,
    /// What a foreign key takes: it does not exclude an install.
    KeyShare,
    /// The guard's, but in a transaction of its own before.
    Outside,
    /// Not at all.
    None,
}

impl Check {
    pub(super) const ALL: [Self; 5] = [Self::Guard, Self::Plain, Self::KeyShare, Self::Outside, Self::None];

    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Guard => "guard",
            Self::Plain => "plain",
            Self::KeyShare => "key-share",
            Self::Outside => "outside",
            Self::None => "none",
        }
    }

    fn statement(self) -> &'static str {
        match self {
            Self::Guard | Self::Outside => "SELECT handover.fence_check('billing', $1)",
            Self::Plain => "SELECT 1 FROM handover.scheduler_fence WHERE service = 'billing' AND token = $1",
            Self::KeyShare => {
                "SELECT 1 FROM handover.scheduler_fence WHERE service = 'billing' AND token = $1 FOR KEY SHARE"
            }
            Self::None => "SELECT $1::bigint",
        }
    }
}

/// A connection that comes back after it broke.
pub(super) struct Postgres {
    url: String,
    check: Check,
    patience: Duration,
    pub(super) writer: Writer,
    client: Option<Client>,
}

impl std::fmt::Debug for Postgres {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Postgres").field("url", &self.url).field("check", &self.check).finish_non_exhaustive()
    }
}

fn failed(what: &'static str) -> impl FnOnce(postgres::Error) -> LedgerError {
    move |source| LedgerError::Database { what, source: Box::new(source) }
}

/// SQLSTATE of the guard's refusal.
fn is_fenced(error: &postgres::Error) -> bool {
    let refused = error.code().is_some_and(|code| code.code() == "HF001");
    refused || error.code() == Some(&SqlState::T_R_SERIALIZATION_FAILURE)
}

impl Postgres {
    pub(super) fn open(url: &str, check: Check, writer: Writer, patience: Duration) -> Result<Self, LedgerError> {
        let mut ledger = Self { url: url.to_owned(), check, patience, writer, client: None };
        let mut tx = ledger.begin()?;
        tx.execute("SELECT pg_advisory_xact_lock($1)", &[&SETUP_LOCK])
            .and_then(|_| tx.batch_execute(GUARD))
            .and_then(|()| tx.batch_execute(TABLES))
            .and_then(|()| tx.commit())
            .map_err(failed("creating the tables"))?;
        Ok(ledger)
    }

    /// The connection, a new one if the last broke.
    pub(super) fn client(&mut self) -> Result<&mut Client, LedgerError> {
        let sound = self.client.take().filter(|client| !client.is_closed());
        let client = match sound {
            Some(client) => client,
            None => connect(&self.url, self.patience).map_err(failed("connecting"))?,
        };
        Ok(self.client.insert(client))
    }

    pub(super) fn begin(&mut self) -> Result<Transaction<'_>, LedgerError> {
        self.client()?.transaction().map_err(failed("beginning a transaction"))
    }

    /// 0: none was ever installed.
    pub(super) fn stored_token(&mut self) -> Result<i64, LedgerError> {
        let mut tx = self.begin()?;
        let (token, _) = stored(&mut tx)?;
        tx.commit().map_err(failed("reading the fence"))?;
        Ok(token)
    }

    pub(super) fn install(&mut self, token: Token, period: Duration, now: BootNs) -> Result<Installed, LedgerError> {
        let writer = self.writer.clone();
        let mut tx = self.begin()?;
        let schedule = schedule(&mut tx, period, now)?;
        let before = stored(&mut tx)?;
        let (id, version) = (writer.instance.as_str(), writer.version.as_str());
        let installed = tx.execute("SELECT handover.fence_install('billing', $1, $2)", &[&token.as_i64(), &id]);
        if let Err(error) = installed {
            return Err(refusal(error, "installing the token", token, before));
        }
        if before.0 != token.as_i64() {
            let order = next_order(&mut tx)?;
            tx.execute(
                "INSERT INTO installs (commit_order, token, instance, version, at_boot_ns) VALUES ($1, $2, $3, $4, $5)",
                &[&order, &token.as_i64(), &id, &version, &signed(now.0)],
            )
            .map_err(failed("recording the install"))?;
        }
        let next_tick = last_tick(&mut tx)? + 1;
        tx.commit().map_err(failed("committing the install"))?;
        Ok(Installed { schedule, next_tick: next_tick.unsigned_abs() })
    }

    pub(super) fn charge(&mut self, token: Token, hard: BootNs, work: impl FnOnce()) -> Result<u64, LedgerError> {
        let (writer, check) = (self.writer.clone(), self.check);
        if check == Check::Outside {
            let mut before = self.begin()?;
            checked(&mut before, check, token)?;
            before.commit().map_err(failed("checking the fence"))?;
        }
        let mut tx = self.begin()?;
        if check != Check::Outside {
            checked(&mut tx, check, token)?;
        }
        work();
        let tick = last_tick(&mut tx)? + 1;
        let order = next_order(&mut tx)?;
        let now = BootNs::now();
        let (id, version) = (writer.instance.as_str(), writer.version.as_str());
        tx.execute(
            "INSERT INTO charges (commit_order, tick, token, instance, version, at_boot_ns)
             VALUES ($1, $2, $3, $4, $5, $6)",
            &[&order, &tick, &token.as_i64(), &id, &version, &signed(now.0)],
        )
        .map_err(failed("charging a tick"))?;
        let now = BootNs::now();
        if now >= hard {
            return Err(LedgerError::TooLate { now, hard });
        }
        tx.commit().map_err(failed("committing a tick"))?;
        Ok(tick.unsigned_abs())
    }
}

fn connect(url: &str, patience: Duration) -> Result<Client, postgres::Error> {
    let mut config: postgres::Config = url.parse()?;
    config.connect_timeout(CONNECT).tcp_user_timeout(CONNECT);
    let mut client = config.connect(NoTls)?;
    // K6: nothing waits longer than a unit may take, and a frozen holder's transaction does not outlive it.
    let limit = patience.as_millis();
    client.batch_execute(&format!(
        "SET statement_timeout = {limit}; SET idle_in_transaction_session_timeout = {limit};
         SET client_min_messages = warning"
    ))?;
    Ok(client)
}

/// A3: the fence check, inside the transaction whose effects it protects.
fn checked(tx: &mut Transaction<'_>, check: Check, token: Token) -> Result<(), LedgerError> {
    match tx.query(check.statement(), &[&token.as_i64()]) {
        Ok(rows) if rows.is_empty() => {
            let (installed, holder) = stored(tx)?;
            Err(LedgerError::Fenced { ours: token, installed, holder })
        }
        Ok(_) => Ok(()),
        Err(error) => Err(refusal(error, "checking the fence", token, (0, "another instance".to_owned()))),
    }
}

fn refusal(error: postgres::Error, what: &'static str, ours: Token, stored: (i64, String)) -> LedgerError {
    if is_fenced(&error) {
        let (installed, holder) = stored;
        return LedgerError::Fenced { ours, installed, holder };
    }
    failed(what)(error)
}

fn stored(tx: &mut Transaction<'_>) -> Result<(i64, String), LedgerError> {
    let query = "SELECT token, holder FROM handover.scheduler_fence WHERE service = 'billing'";
    let row = tx.query_opt(query, &[]).map_err(failed("reading the fence"))?;
    Ok(row.map(|row| (row.get(0), row.get(1))).unwrap_or_default())
}

fn last_tick(tx: &mut Transaction<'_>) -> Result<i64, LedgerError> {
    let row =
        tx.query_one("SELECT coalesce(max(tick), 0) FROM charges", &[]).map_err(failed("reading the last tick"))?;
    Ok(row.get(0))
}

fn next_order(tx: &mut Transaction<'_>) -> Result<i64, LedgerError> {
    let row = tx
        .query_one("UPDATE commit_order SET last = last + 1 RETURNING last", &[])
        .map_err(failed("taking a place in the commit order"))?;
    Ok(row.get(0))
}

fn schedule(tx: &mut Transaction<'_>, period: Duration, now: BootNs) -> Result<Schedule, LedgerError> {
    let ours_ns = u64::try_from(period.as_nanos()).unwrap_or(u64::MAX);
    tx.execute(
        "INSERT INTO schedule (id, origin_boot_ns, period_ns) VALUES (1, $1, $2) ON CONFLICT DO NOTHING",
        &[&signed(now.0), &signed(ours_ns)],
    )
    .map_err(failed("beginning the schedule"))?;
    let row =
        tx.query_one("SELECT origin_boot_ns, period_ns FROM schedule", &[]).map_err(failed("reading the schedule"))?;
    let (origin, ledger_ns): (i64, i64) = (row.get(0), row.get(1));
    let ledger_ns = ledger_ns.unsigned_abs();
    if ledger_ns != ours_ns {
        return Err(LedgerError::OtherPeriod { ledger_ns, ours_ns });
    }
    Ok(Schedule { origin: BootNs(origin.unsigned_abs()), period })
}

/// Nanoseconds since boot fit for 292 years.
fn signed(ns: u64) -> i64 {
    i64::try_from(ns).unwrap_or(i64::MAX)
}
