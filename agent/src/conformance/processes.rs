//! The service's processes, as far as this host shows them: who was born in a turn and outlives it.

use std::collections::BTreeMap;
use std::fs;
use std::net::{IpAddr, SocketAddr};

use handover_proto::ids::InstanceId;

use crate::driver::table::{self, Key, Table};

/// Names an instance to its processes, and stays with those that fork away.
const MARK: &str = "HANDOVER_INSTANCE=";
/// `proc_pid_net(5)`: a socket that listens.
const LISTENS: &str = "0A";

/// Processes with their names.
pub(super) type Family = BTreeMap<Key, String>;

/// The process that listens on this address of this host.
///
/// # Errors
/// If there is none, or it belongs to somebody whom we may not look at.
pub(super) fn listener(address: SocketAddr) -> Result<i32, String> {
    let file = if address.is_ipv4() { "/proc/net/tcp" } else { "/proc/net/tcp6" };
    let sockets = fs::read_to_string(file).map_err(|error| format!("{file}: {error}"))?;
    let ports = sockets.lines().filter_map(|line| listening_inode(line, address));
    let sockets: Vec<String> = ports.map(|inode| format!("socket:[{inode}]")).collect();
    let pids = fs::read_dir("/proc").map_err(|error| error.to_string())?.flatten();
    let pids = pids.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    let holds = |pid: &i32| {
        let fds = fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
        let mut links = fds.filter_map(|fd| fs::read_link(fd.path()).ok());
        links.any(|link| sockets.iter().any(|socket| link.as_os_str() == socket.as_str()))
    };
    let mut found = pids.filter(holds);
    found.next().ok_or_else(|| format!("no process that this user may look at listens on {address}"))
}

fn listening_inode(line: &str, address: SocketAddr) -> Option<u64> {
    let fields: Vec<&str> = line.split_ascii_whitespace().collect();
    let (ip, port) = fields.get(1)?.split_once(':')?;
    let same = u16::from_str_radix(port, 16).ok()? == address.port();
    let any = ip.bytes().all(|digit| digit == b'0');
    let ours = match address.ip() {
        IpAddr::V4(v4) => u32::from_str_radix(ip, 16).ok() == Some(u32::from_ne_bytes(v4.octets())),
        IpAddr::V6(_) => true,
    };
    let listens = *fields.get(3)? == LISTENS;
    (same && listens && (any || ours)).then(|| fields.get(9)?.parse().ok()).flatten()
}

/// The instance that a process says it is.
pub(super) fn instance(pid: i32) -> Option<InstanceId> {
    mark(pid)?.strip_prefix(MARK)?.parse().ok()
}

fn mark(pid: i32) -> Option<String> {
    let environ = fs::read(format!("/proc/{pid}/environ")).ok()?;
    let text = String::from_utf8_lossy(&environ).into_owned();
    text.split('\0').find(|variable| variable.starts_with(MARK)).map(str::to_owned)
}

/// Everything that belongs to the service whose main process is `pid`, besides that: its descendants, and whoever has the
/// same instance in its environment, even if it has forked away.
///
/// # Errors
/// If `/proc` cannot be read, or the process is gone.
pub(super) fn family(pid: i32) -> Result<Family, String> {
    let table = table::read().map_err(|error| format!("/proc: {error}"))?;
    if table.get(&pid).is_none_or(|row| row.ended) {
        return Err(format!("process {pid} has ended"));
    }
    let mark = mark(pid);
    let belongs =
        |row: &&table::Row| is_below(&table, row.key.pid, pid) || mark.is_some() && self::mark(row.key.pid) == mark;
    let rows = table.values().filter(|row| row.key.pid != pid && !row.ended).filter(belongs);
    Ok(rows.map(|row| (row.key, name(row.key.pid))).collect())
}

fn is_below(table: &Table, pid: i32, root: i32) -> bool {
    let mut at = pid;
    // Bounded: a table that was read while processes came and went may have a loop in it.
    for _ in 0..table.len() {
        match table.get(&at).map(|row| row.parent) {
            Some(parent) if parent == root => return true,
            Some(parent) => at = parent,
            None => return false,
        }
    }
    false
}

fn name(pid: i32) -> String {
    let command = fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    format!("process {pid} ({})", command.replace('\0', " ").trim())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_listening_socket_leads_to_its_process() {
        let listener_here = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener_here.local_addr().expect("an address");
        assert_eq!(listener(address), Ok(i32::try_from(std::process::id()).expect("a pid")));
        drop(listener_here);
        let error = listener(address).expect_err("nobody any more");
        assert!(error.contains(&address.to_string()), "{error}");
    }

    #[test]
    fn a_child_belongs_to_its_parent_and_a_stranger_does_not() {
        let me = i32::try_from(std::process::id()).expect("a pid");
        let mut child = std::process::Command::new("sleep").arg("300").spawn().expect("a child");
        let pid = i32::try_from(child.id()).expect("a pid");
        let family = family(me).expect("a family");
        assert!(family.keys().any(|key| key.pid == pid), "{family:?}");
        assert!(!family.keys().any(|key| key.pid == 1));
        child.kill().expect("killed");
        child.wait().expect("reaped");
    }
}
