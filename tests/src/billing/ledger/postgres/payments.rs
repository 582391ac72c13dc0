//! The writes and reads of clients in PostgreSQL.

use postgres::Transaction;

use super::{Postgres, failed};
use crate::billing::ledger::{LedgerError, Paid, Payment, Writer};

impl Postgres {
    pub(in crate::billing::ledger) fn pay(&mut self, payments: &[Payment]) -> Result<Vec<Paid>, LedgerError> {
        let writer = self.writer.clone();
        let mut tx = self.begin()?;
        let paid = payments.iter().map(|payment| pay_one(&mut tx, &writer, payment)).collect::<Result<_, _>>()?;
        tx.commit().map_err(failed("committing payments"))?;
        Ok(paid)
    }

    pub(in crate::billing::ledger) fn balance(&mut self, account: &str) -> Result<i64, LedgerError> {
        let query = "SELECT cents FROM balances WHERE account = $1";
        let row = self.client()?.query_opt(query, &[&account]).map_err(failed("reading a balance"))?;
        Ok(row.map_or(0, |row| row.get(0)))
    }
}

fn pay_one(tx: &mut Transaction<'_>, writer: &Writer, payment: &Payment) -> Result<Paid, LedgerError> {
    let (id, version) = (writer.instance.as_str(), writer.version.as_str());
    let written = tx
        .execute(
            "INSERT INTO payments (idempotency_key, account, cents, instance, version) VALUES ($1, $2, $3, $4, $5)
             ON CONFLICT DO NOTHING",
            &[&payment.key, &payment.account, &payment.cents, &id, &version],
        )
        .map_err(failed("writing a payment"))?;
    if written == 0 {
        let row = tx
            .query_one("SELECT account, cents FROM payments WHERE idempotency_key = $1", &[&payment.key])
            .map_err(failed("looking for a payment"))?;
        let (account, cents): (String, i64) = (row.get(0), row.get(1));
        let same = account == payment.account && cents == payment.cents;
        return Ok(if same { Paid::Again } else { Paid::Conflict });
    }
    tx.execute(
        "INSERT INTO balances (account, cents) VALUES ($1, $2)
         ON CONFLICT (account) DO UPDATE SET cents = balances.cents + excluded.cents",
        &[&payment.account, &payment.cents],
    )
    .map_err(failed("writing a balance"))?;
    Ok(Paid::New)
}
