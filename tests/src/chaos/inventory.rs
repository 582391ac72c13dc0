//! What is there of leases, keys, processes, sockets and files; for checker 10.

use std::collections::BTreeSet;
use std::fs;
use std::process::{Command, Stdio};

use anyhow::{Context, Result};
use serde_json::Value;

use super::checkers::leaks::Inventory;
use super::site::{Site, wait_for};

/// The site's own, whatever their number: members are started anew, the database keeps workers.
const OURS: [&str; 8] = ["etcd", "postgres", "bash", "chaos", "unshare", "nsenter", "strace", "ss"];

/// Takes it. Keys and leases are those under `lease`; an agent's registration stays, and expires.
///
/// # Errors
/// If etcd or the system does not tell.
pub fn take(site: &Site, lease: &str) -> Result<Inventory> {
    let (leases, keys) = leased(site, lease)?;
    let mut inventory =
        Inventory { leases, keys, processes: processes()?, sockets: sockets(site)?, ..Inventory::default() };
    for host in &site.hosts {
        let Ok(entries) = fs::read_dir(&host.runtime_dir) else { continue };
        let names = entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned());
        // Sockets may stay: the next agent replaces them.
        let records = names.filter(|name| name.ends_with(".json") || name.contains("tmp"));
        inventory.files.extend(records.map(|name| format!("{}/{name}", host.spot.name)));
    }
    Ok(inventory)
}

/// The etcd leases to which something under `lease` is attached, and the keys of that, in base64.
///
/// # Errors
/// If etcd does not tell.
pub fn leased(site: &Site, lease: &str) -> Result<(BTreeSet<String>, BTreeSet<String>)> {
    let entries: Value = serde_json::from_str(&listing(site, lease)?)?;
    let entries = entries["kvs"].as_array().into_iter().flatten().filter(|entry| entry["lease"].as_i64().is_some());
    let pair = |entry: &Value| (entry["lease"].to_string(), entry["key"].as_str().unwrap_or_default().to_owned());
    Ok(entries.map(pair).unzip())
}

/// A member may just have come back, or be slow.
fn listing(site: &Site, lease: &str) -> Result<String> {
    let mut listed = String::new();
    wait_for("a member to list the lease's keys", || {
        let members = 0..site.etcd.members.len();
        let found =
            members.map(|member| site.etcd.ctl(member, &["get", "--prefix", lease, "-w", "json"])).find_map(Result::ok);
        listed = found.clone().unwrap_or_default();
        Ok(found.is_some())
    })?;
    Ok(listed)
}

/// Every process of this world, by name; ours without a number.
fn processes() -> Result<BTreeSet<String>> {
    let mut found = BTreeSet::new();
    for entry in fs::read_dir("/proc")?.flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<i32>().ok()) else { continue };
        let Ok(stat) = fs::read_to_string(format!("/proc/{pid}/stat")) else { continue };
        let Some((name, rest)) = stat.split_once('(').and_then(|(_, rest)| rest.rsplit_once(") ")) else { continue };
        if rest.starts_with('Z') {
            continue;
        }
        let name = name.to_owned();
        found.insert(if OURS.contains(&name.as_str()) { name } else { format!("{name} {pid}") });
    }
    Ok(found)
}

/// What listens on the hosts of agents.
fn sockets(site: &Site) -> Result<BTreeSet<String>> {
    let mut found = BTreeSet::new();
    for host in &site.hosts {
        let mut command = Command::new("nsenter");
        command.args([&format!("--net=/run/netns/{}", host.spot.name), "ss", "-Hltn"]).stdin(Stdio::null());
        let output = command.output().context("cannot run ss")?;
        for line in String::from_utf8_lossy(&output.stdout).lines() {
            let local = line.split_whitespace().nth(3).unwrap_or_default();
            found.insert(format!("{} {local}", host.spot.name));
        }
    }
    Ok(found)
}
