//! The writes and reads of clients: payments, unique by idempotency key, and balances.

use rusqlite::{OptionalExtension, Transaction, params};

use super::{Sqlite, sqlite};
use crate::billing::ledger::{LedgerError, Paid, Payment, Writer};

impl Sqlite {
    /// Writes payments in one transaction, so that clients who wait at the same time share one fsync. All or none.
    ///
    /// # Errors
    /// When SQLite fails; then none is written.
    pub(in crate::billing::ledger) fn pay(&mut self, payments: &[Payment]) -> Result<Vec<Paid>, LedgerError> {
        let writer = self.writer.clone();
        let tx = self.begin()?;
        let paid = payments.iter().map(|payment| pay_one(&tx, &writer, payment)).collect::<Result<_, _>>()?;
        tx.commit().map_err(sqlite("committing payments"))?;
        Ok(paid)
    }

    /// The balance of an account in cents; 0 for one that was never paid into.
    ///
    /// # Errors
    /// When SQLite fails.
    pub(in crate::billing::ledger) fn balance(&self, account: &str) -> Result<i64, LedgerError> {
        self.connection
            .prepare_cached("SELECT cents FROM balances WHERE account = ?1")
            .and_then(|mut query| query.query_row([account], |row| row.get(0)).optional())
            .map(|cents| cents.unwrap_or(0))
            .map_err(sqlite("reading a balance"))
    }
}

fn pay_one(tx: &Transaction<'_>, writer: &Writer, payment: &Payment) -> Result<Paid, LedgerError> {
    let before: Option<(String, i64)> = tx
        .prepare_cached("SELECT account, cents FROM payments WHERE idempotency_key = ?1")
        .and_then(|mut query| query.query_row([&payment.key], |row| Ok((row.get(0)?, row.get(1)?))).optional())
        .map_err(sqlite("looking for a payment"))?;
    if let Some((account, cents)) = before {
        let same = account == payment.account && cents == payment.cents;
        return Ok(if same { Paid::Again } else { Paid::Conflict });
    }
    let (key, account, cents) = (&payment.key, &payment.account, payment.cents);
    tx.prepare_cached(
        "INSERT INTO payments (idempotency_key, account, cents, instance, version) VALUES (?1, ?2, ?3, ?4, ?5)",
    )
    .and_then(|mut insert| {
        insert.execute(params![key, account, cents, writer.instance.as_str(), writer.version.as_str()])
    })
    .and_then(|_| {
        tx.prepare_cached(
            "INSERT INTO balances (account, cents) VALUES (?1, ?2)
                 ON CONFLICT (account) DO UPDATE SET cents = cents + excluded.cents",
        )
    })
    .and_then(|mut update| update.execute(params![account, cents]))
    .map_err(sqlite("writing a payment"))?;
    Ok(Paid::New)
}
