//! The SQL guard (`agent/sql/postgresql.sql`) on a real PostgreSQL: the races of `SAFETY.md` §0 M7, the trigger form, and
//! what the scheduler's role may do. Each race is proved to be one: the check has passed, its transaction is open, and
//! the install is waiting (or, with a weaker check, is not).
#![allow(clippy::expect_used, clippy::panic, reason = "a test that cannot go on ends")]

mod races;
mod rights;
mod site;
mod trigger;
