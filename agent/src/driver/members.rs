//! Which processes belong to an instance: a pure function of the process table.
//!
//! A process belongs to an instance if it descends from its main process. Where the line of descent is broken because a
//! parent has ended, the kernel makes the process a child of its subreaper, the agent; what then tells whose it was is
//! its process group or session, what earlier surveys had seen, and the marks in its environment.

use std::collections::{BTreeMap, BTreeSet};

use handover_proto::ids::InstanceId;

use super::table::{Key, Row, Table};

/// The processes of the host, as one survey saw them.
#[derive(Debug)]
pub(super) struct Scene<'a> {
    /// All of them.
    pub(super) table: &'a Table,
    /// The agent.
    pub(super) me: i32,
    /// Children that the agent started itself and that are not reaped.
    pub(super) own: &'a BTreeSet<i32>,
    /// Instance marks, as far as they were looked at.
    pub(super) marks: &'a BTreeMap<i32, InstanceId>,
}

/// What is known of one instance.
#[derive(Debug)]
pub(super) struct Line<'a> {
    pub(super) instance: &'a InstanceId,
    /// Its main process, running or not.
    pub(super) leader: Key,
    /// The agent was the subreaper all the time: every process of the instance descends from the agent.
    pub(super) unbroken: bool,
    /// What earlier surveys found.
    pub(super) known: &'a BTreeSet<Key>,
}

impl Scene<'_> {
    /// A child of the agent that it did not start.
    pub(super) fn is_inherited(&self, row: &Row) -> bool {
        row.parent == self.me && !self.own.contains(&row.key.pid)
    }

    /// All processes of the instance, its main process among them while that is in the table, running and ended.
    pub(super) fn members(&self, line: &Line<'_>) -> BTreeSet<Key> {
        let untouchable = self.untouchable(line);
        let may = |row: &Row| !untouchable.contains(&row.key.pid);
        let numbers = self.numbers(line);
        let mut found: BTreeSet<Key> = BTreeSet::new();
        let mut fresh: Vec<i32> = Vec::new();
        for row in self.table.values().filter(|row| may(row) && self.belongs(row, line, &numbers)) {
            found.insert(row.key);
            fresh.push(row.key.pid);
        }
        while let Some(parent) = fresh.pop() {
            for row in self.table.values().filter(|row| row.parent == parent && may(row)) {
                if found.insert(row.key) {
                    fresh.push(row.key.pid);
                }
            }
        }
        found
    }

    /// The first of its line that are still there; their descendants follow from them.
    fn belongs(&self, row: &Row, line: &Line<'_>, numbers: &BTreeSet<i32>) -> bool {
        if row.key == line.leader || line.known.contains(&row.key) {
            return true;
        }
        match self.marks.get(&row.key.pid) {
            Some(instance) if instance == line.instance => return !line.unbroken || self.is_inherited(row),
            Some(_) => return false,
            None => {}
        }
        let in_leaders_group = row.group == line.leader.pid && self.is_present(line.leader);
        let in_known_group = numbers.contains(&row.group) || numbers.contains(&row.session);
        in_leaders_group || (line.unbroken && self.is_inherited(row) && in_known_group)
    }

    /// Numbers that mean a process of this instance when they stand as a group or session. A number in the table under
    /// another start time has been given to a stranger.
    fn numbers(&self, line: &Line<'_>) -> BTreeSet<i32> {
        let is_stranger = |key: &Key| self.table.get(&key.pid).is_some_and(|row| row.key != *key);
        line.known.iter().chain([&line.leader]).filter(|key| !is_stranger(key)).map(|key| key.pid).collect()
    }

    fn is_present(&self, key: Key) -> bool {
        self.table.get(&key.pid).is_some_and(|row| row.key == key)
    }

    /// The agent, what it descends from, and what it started for other purposes.
    fn untouchable(&self, line: &Line<'_>) -> BTreeSet<i32> {
        let mut pids: BTreeSet<i32> = self.own.iter().copied().filter(|pid| *pid != line.leader.pid).collect();
        pids.extend([0, 1]);
        let mut pid = self.me;
        while pids.insert(pid) {
            let Some(row) = self.table.get(&pid) else { break };
            pid = row.parent;
        }
        pids
    }
}

#[cfg(test)]
mod tests;
