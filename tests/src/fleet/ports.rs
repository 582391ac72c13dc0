//! Free ports on loopback.

use std::net::TcpListener;

use anyhow::{Context, Result};

/// So many different ports that were free a moment ago. They are bound all at once, so that none is named twice.
///
/// # Errors
/// If the system has none.
pub fn free_ports(count: usize) -> Result<Vec<u16>> {
    let listeners: Result<Vec<_>, _> = (0..count).map(|_| TcpListener::bind("127.0.0.1:0")).collect();
    let listeners = listeners.context("no free port on loopback")?;
    listeners.iter().map(|listener| Ok(listener.local_addr()?.port())).collect()
}
