//! Checker 10: leases, keys, processes, sockets and files return to their baseline.

use std::collections::BTreeSet;

use serde::Serialize;

use super::Checked;

/// Everything of one kind that is there.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Inventory {
    /// etcd leases.
    pub leases: BTreeSet<String>,
    /// Keys of the environment that are bound to an etcd lease, and candidates.
    pub keys: BTreeSet<String>,
    /// Processes, as name and pid.
    pub processes: BTreeSet<String>,
    /// Sockets that listen.
    pub sockets: BTreeSet<String>,
    /// Files in the runtime directories.
    pub files: BTreeSet<String>,
}

/// Compares what is there after the end with what was there before the beginning.
pub fn check(before: &Inventory, after: &Inventory) -> Checked {
    let mut checked = Checked::new("leaks");
    // What stands before the agents start: the etcd members. None of them: nothing was looked at.
    checked.need("processes before", before.processes.len());
    let kinds = [
        ("etcd leases", &before.leases, &after.leases),
        ("keys", &before.keys, &after.keys),
        ("processes", &before.processes, &after.processes),
        ("listening sockets", &before.sockets, &after.sockets),
        ("files", &before.files, &after.files),
    ];
    for (what, before, after) in kinds {
        let left: Vec<_> = after.difference(before).map(String::as_str).collect();
        if !left.is_empty() {
            checked.find(format!("{} {what} were left: {}", left.len(), left.join(", ")));
        }
    }
    checked
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(names: &[&str]) -> BTreeSet<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    fn baseline() -> Inventory {
        Inventory { processes: set(&["etcd 7"]), sockets: set(&["10.77.0.11:2379"]), ..Inventory::default() }
    }

    #[test]
    fn what_was_there_before_and_what_is_gone_is_no_leak() {
        let before = Inventory { leases: set(&["old"]), ..baseline() };
        assert_eq!(check(&before, &baseline()).found.len(), 0);
    }

    #[test]
    fn each_kind_of_leak_is_found() {
        let leaks: [fn(&mut Inventory); 5] = [
            |i| i.leases.extend(["694d".to_owned()]),
            |i| i.keys.extend(["lease/cand/00".to_owned()]),
            |i| i.processes.extend(["billing 99".to_owned()]),
            |i| i.sockets.extend(["127.0.0.1:9001".to_owned()]),
            |i| i.files.extend(["lease.sock".to_owned()]),
        ];
        for leak in leaks {
            let mut after = baseline();
            leak(&mut after);
            assert_eq!(check(&baseline(), &after).found.len(), 1);
        }
    }

    #[test]
    fn a_baseline_without_a_process_proves_nothing() {
        assert_eq!(check(&Inventory::default(), &Inventory::default()).found.len(), 1);
    }
}
