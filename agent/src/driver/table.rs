//! The kernel's process table, read from `/proc`.

use std::collections::BTreeMap;
use std::fs;
use std::io;

/// One process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Row {
    pub(crate) key: Key,
    pub(crate) parent: i32,
    pub(crate) group: i32,
    pub(crate) session: i32,
    pub(crate) ended: bool,
}

/// A process, never mistaken for a later one of the same number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Key {
    pub(crate) pid: i32,
    pub(crate) start_time_ticks: u64,
}

/// All processes by pid, as of one walk through `/proc`.
pub(crate) type Table = BTreeMap<i32, Row>;

/// Walks through `/proc`. A process that lives through the whole walk is in the result; one that comes or goes meanwhile
/// may be.
pub(crate) fn read() -> io::Result<Table> {
    let mut table = Table::new();
    for entry in fs::read_dir("/proc")? {
        let name = entry?.file_name();
        let Some(pid) = name.to_str().and_then(|name| name.parse::<i32>().ok()) else { continue };
        if let Some(row) = row(pid)? {
            table.insert(pid, row);
        }
    }
    Ok(table)
}

/// One process; none if it is no more.
pub(crate) fn row(pid: i32) -> io::Result<Option<Row>> {
    match fs::read(format!("/proc/{pid}/stat")) {
        Ok(stat) => match parse(&String::from_utf8_lossy(&stat)) {
            Some(row) => Ok(Some(row)),
            None => Err(io::Error::other(format!("/proc/{pid}/stat has an unknown form"))),
        },
        Err(error) if is_gone(&error) => Ok(None),
        Err(error) => Err(error),
    }
}

/// The process has ended between the listing and the reading.
pub(super) fn is_gone(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::NotFound || error.raw_os_error() == Some(rustix::io::Errno::SRCH.raw_os_error())
}

/// `proc_pid_stat(5)`. The name stands in parentheses and may itself hold blanks and parentheses.
fn parse(stat: &str) -> Option<Row> {
    let (pid, rest) = stat.split_once(' ')?;
    let (_, rest) = rest.rsplit_once(") ")?;
    let fields: Vec<&str> = rest.split_ascii_whitespace().collect();
    // Counted from the state, which is field 3 of the manual.
    let number = |field: usize| fields.get(field - 3)?.parse::<i64>().ok();
    let small = |field: usize| number(field).and_then(|n| i32::try_from(n).ok());
    let state = *fields.first()?;
    Some(Row {
        key: Key { pid: pid.parse().ok()?, start_time_ticks: u64::try_from(number(22)?).ok()? },
        parent: small(4)?,
        group: small(5)?,
        session: small(6)?,
        // A zombie whose other threads still run is not dead.
        ended: matches!(state, "Z" | "X" | "x") && number(20)? <= 1,
    })
}

/// What tells this boot from every other.
pub(super) fn boot_id() -> io::Result<String> {
    Ok(fs::read_to_string("/proc/sys/kernel/random/boot_id")?.trim().to_owned())
}

/// Whether a walk shows every process. `/proc` may be mounted so that it hides those of other users (`hidepid`), which a
/// descendant with a set-user-id program becomes; CAP_SYS_PTRACE sees through that.
pub(super) fn is_complete() -> io::Result<bool> {
    let mounts = fs::read_to_string("/proc/self/mountinfo")?;
    let status = fs::read_to_string("/proc/self/status")?;
    Ok(!hides(&mounts) || may_trace(&status))
}

/// `proc_pid_mountinfo(5)`: the mount point is field 5, the options of the file system come last.
fn hides(mountinfo: &str) -> bool {
    let of_proc = mountinfo.lines().rev().find(|line| line.split(' ').nth(4) == Some("/proc"));
    let options = of_proc.and_then(|line| line.rsplit(' ').next()).unwrap_or_default();
    options.split(',').any(|option| option.strip_prefix("hidepid=").is_some_and(|how| how != "0" && how != "off"))
}

fn may_trace(status: &str) -> bool {
    const CAP_SYS_PTRACE: u64 = 1 << 19;
    let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    effective.and_then(|set| u64::from_str_radix(set.trim(), 16).ok()).is_some_and(|set| set & CAP_SYS_PTRACE != 0)
}

/// Memory of a process that is in RAM, in bytes; none if it does not run.
pub fn resident_bytes(pid: i32) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kib: u64 = line.trim().strip_suffix(" kB")?.parse().ok()?;
    kib.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_blanks_and_parentheses_does_not_shift_the_fields() {
        let stat = "42 (a) R 9 (b) S 7 40 39 0 -1 4194560 1 0 0 0 0 0 0 0 20 0 1 0 12345 9 9\n";
        let row = parse(stat).expect("a row");
        assert_eq!((row.key, row.parent), (Key { pid: 42, start_time_ticks: 12345 }, 7));
        assert_eq!((row.group, row.session, row.ended), (40, 39, false));
    }

    #[test]
    fn a_zombie_leader_whose_threads_run_has_not_ended() {
        let stat = |threads| format!("42 (x) Z 7 40 39 0 -1 0 1 0 0 0 0 0 0 0 20 0 {threads} 0 12345 9 9");
        assert!(parse(&stat(1)).expect("a row").ended);
        assert!(!parse(&stat(2)).expect("a row").ended);
    }

    #[test]
    fn what_is_no_stat_line_is_not_guessed_at() {
        for bad in ["", "42", "42 (x", "42 (x) S", "42 (x) S a b c"] {
            assert_eq!(parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_proc_that_hides_processes_is_noticed() {
        let mounts = |options: &str| {
            format!(
                "21 1 8:1 / / rw - ext4 /dev/vda rw\n22 21 0:5 / /proc rw,nosuid shared:2 - proc proc rw{options}\n"
            )
        };
        assert!(!hides(&mounts("")) && !hides(&mounts(",hidepid=0")) && !hides(&mounts(",hidepid=off")));
        assert!(hides(&mounts(",gid=4,hidepid=2")) && hides(&mounts(",hidepid=invisible")));
        assert!(may_trace("Name:\tx\nCapEff:\t000001ffffffffff\n") && !may_trace("CapEff:\t0000000000000000\n"));
        assert!(!may_trace(""));
        assert!(is_complete().is_ok());
    }

    #[test]
    fn this_process_is_in_the_table_and_uses_memory() {
        let me = i32::try_from(std::process::id()).expect("a pid");
        let table = read().expect("a table");
        assert!(!table[&me].ended);
        assert_eq!(row(me).expect("readable"), Some(table[&me]));
        assert!(resident_bytes(me).expect("a number") > 100_000);
        assert_eq!(resident_bytes(i32::MAX), None);
    }
}
