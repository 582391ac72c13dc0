//! Everything on which agent and coordinator must agree.

pub mod txn;
