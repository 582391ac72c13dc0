//! What systemd is told: that the service is up, and that it still lives (`sd_notify(3)`). Written down here as a foreign
//! service would have to write it.

use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

use crate::billing::faults::Watched;

/// Says READY=1 now, and WATCHDOG=1 for as long as the process runs, if systemd wants to hear it.
///
/// # Errors
/// If systemd cannot be told.
pub(crate) fn begin(faults: Watched) -> std::io::Result<()> {
    let Ok(socket) = std::env::var("NOTIFY_SOCKET") else { return Ok(()) };
    if faults.now().never_notify {
        tracing::warn!("saying nothing to systemd, as the fault never-notify asks");
        return Ok(());
    }
    tell(&socket, "READY=1")?;
    let period = std::env::var("WATCHDOG_USEC").ok().and_then(|usec| usec.parse().ok()).map(Duration::from_micros);
    let Some(period) = period else { return Ok(()) };
    std::thread::spawn(move || {
        while !faults.now().mute_watchdog {
            if let Err(error) = tell(&socket, "WATCHDOG=1") {
                tracing::warn!(%error, "systemd's watchdog cannot be told that we live");
            }
            std::thread::sleep(period / 4);
        }
    });
    Ok(())
}

fn tell(socket: &str, word: &str) -> std::io::Result<()> {
    let address = match socket.strip_prefix('@') {
        Some(name) => SocketAddr::from_abstract_name(name)?,
        None => SocketAddr::from_pathname(socket)?,
    };
    UnixDatagram::unbound()?.send_to_addr(word.as_bytes(), &address).map(drop)
}
