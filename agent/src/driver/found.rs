//! Instances that run although this agent knows nothing of them: its state file was lost.

use std::collections::BTreeMap;
use std::fs;
use std::io;

use handover_proto::ids::{InstanceId, SlotId, Version};

use super::marks::{self, Marks};
use super::table::{self, Row};
use super::{Owner, ProcessRecord};

/// An instance that bears this agent's marks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// Its id.
    pub instance: InstanceId,
    /// Where it runs.
    pub slot: SlotId,
    /// What it runs.
    pub version: Version,
    /// Its main process, to be adopted; none if only descendants are left of it, which
    /// [`ProcessDriver::clear_leftovers`](super::ProcessDriver::clear_leftovers) ends.
    pub main: Option<ProcessRecord>,
}

/// Looks through the environment of every process. Blocks for a walk through `/proc`.
pub(super) fn find(owner: &Owner, boot_id: &str) -> io::Result<Vec<Found>> {
    let me = i32::try_from(std::process::id()).map_err(io::Error::other)?;
    let mut instances: BTreeMap<InstanceId, (Marks, Vec<Row>)> = BTreeMap::new();
    for row in table::read()?.into_values().filter(|row| row.key.pid != me && !row.ended) {
        if let Some(marks) = marks::read(row.key.pid).filter(|marks| marks.are_of(owner)) {
            instances.entry(marks.instance.clone()).or_insert_with(|| (marks, Vec::new())).1.push(row);
        }
    }
    Ok(instances.into_values().map(|(marks, rows)| found(marks, &rows, boot_id)).collect())
}

fn found(marks: Marks, rows: &[Row], boot_id: &str) -> Found {
    let main = main_of(rows).map(|row| ProcessRecord {
        instance: marks.instance.clone(),
        pid: row.key.pid,
        start_time_ticks: row.key.start_time_ticks,
        boot_id: boot_id.to_owned(),
        unbroken: false,
        // Where its stdout goes is where we sent it. Without it the report of its end has no last lines, nothing more.
        output: fs::read_link(format!("/proc/{}/fd/1", row.key.pid)).unwrap_or_default(),
        output_from_bytes: 0,
        unit: None,
        command: None,
    });
    Found { instance: marks.instance, slot: marks.slot, version: marks.version, main }
}

/// The main process leads its group but cannot have a session of its own: the kernel refuses that to a group's leader. A
/// descendant that became a daemon has one. Of what is left the oldest.
fn main_of(rows: &[Row]) -> Option<&Row> {
    let leads = |row: &&Row| row.group == row.key.pid && row.session != row.key.pid;
    rows.iter().filter(leads).min_by_key(|row| (row.key.start_time_ticks, row.key.pid))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::driver::table::Key;

    fn row(pid: i32, start_time_ticks: u64, group: i32, session: i32) -> Row {
        Row { key: Key { pid, start_time_ticks }, parent: 1, group, session, ended: false }
    }

    #[test]
    fn the_main_process_is_the_oldest_leader_of_a_group_that_leads_no_session() {
        let daemon = row(10, 1, 10, 10);
        let child = row(11, 3, 20, 5);
        let main = row(20, 2, 20, 5);
        let shell_task = row(21, 4, 21, 5);
        assert_eq!(main_of(&[daemon, child, main, shell_task]), Some(&main));
    }

    #[test]
    fn a_daemon_that_outlived_the_main_process_is_not_taken_for_it() {
        assert_eq!(main_of(&[row(10, 1, 10, 10), row(11, 2, 10, 10)]), None);
    }
}
