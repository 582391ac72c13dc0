//! `show servers state`, read: the columns are found by their names, since their places differ by version.

use std::collections::BTreeMap;

/// What HAProxy says of one server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Server {
    /// `srv_op_state`: 0 stopped, 1 starting, 2 running, 3 stopping.
    pub op: u32,
    /// `srv_admin_state`: flags.
    pub admin: u32,
    /// `srv_uweight`.
    pub weight: u32,
    /// `srv_iweight`: as its config says.
    pub initial_weight: u32,
}

/// Maintenance by an operator, by another server's, by the config, by name resolution, by host name.
const MAINT: u32 = 0x01 | 0x02 | 0x04 | 0x20 | 0x40;
/// Drain by somebody, or by another server's.
const DRAIN: u32 = 0x08 | 0x10;
/// Drain that `ready` would lift.
const OWN_DRAIN: u32 = 0x08;

impl Server {
    /// It is in maintenance, which only an operator or a config begins.
    pub fn in_maintenance(&self) -> bool {
        self.admin & MAINT != 0
    }

    /// It is drained by somebody.
    pub fn drains(&self) -> bool {
        self.admin & OWN_DRAIN != 0
    }

    /// It gets nothing new (but what is bound to it by a cookie).
    pub fn is_out(&self) -> bool {
        self.admin & (MAINT | DRAIN) != 0
    }

    /// It runs, as HAProxy's own checks say.
    pub fn is_up(&self) -> bool {
        matches!(self.op, 1 | 2)
    }
}

/// "Absolute weight can only be between 0 and 256 inclusive."
const HEAVIEST: u32 = 256;

/// An answer that is not what is expected.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StateError {
    /// It is no table of servers.
    #[error("`show servers state` was answered with {0:?}")]
    NoTable(String),
    /// A column that is needed is missing.
    #[error("`show servers state` has no column {0}")]
    NoColumn(&'static str),
}

/// The servers of a backend, by name.
///
/// # Errors
/// [`StateError`].
pub fn servers(answer: &str) -> Result<BTreeMap<String, Server>, StateError> {
    let head = answer.lines().find_map(|line| line.strip_prefix("# "));
    let head = head.ok_or_else(|| StateError::NoTable(answer.trim().chars().take(120).collect()))?;
    let names: Vec<&str> = head.split_whitespace().collect();
    let column = |name: &'static str| names.iter().position(|it| *it == name).ok_or(StateError::NoColumn(name));
    let (name, op, admin) = (column("srv_name")?, column("srv_op_state")?, column("srv_admin_state")?);
    let (weight, initial) = (column("srv_uweight")?, column("srv_iweight")?);
    let row = |line: &str| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let number = |at: usize| fields.get(at)?.parse::<u32>().ok();
        let weight_at = |at: usize| number(at).filter(|weight| *weight <= HEAVIEST);
        let (op, admin, weight) = (number(op)?, number(admin)?, weight_at(weight)?);
        Some(((*fields.get(name)?).to_owned(), Server { op, admin, weight, initial_weight: weight_at(initial)? }))
    };
    Ok(answer.lines().filter(|line| !line.starts_with('#')).filter_map(row).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As HAProxy 2.6.12 says it.
    const ANSWER: &str = "1\n# be_id be_name srv_id srv_name srv_addr srv_op_state srv_admin_state srv_uweight \
        srv_iweight srv_time_since_last_change srv_check_status\n\
        3 billing 1 app-01 127.0.0.1 2 0 100 100 12 6\n3 billing 2 app-02 127.0.0.1 2 8 50 100 12 6\n\
        3 billing 3 app-03 127.0.0.1 0 1 100 100 12 6\n\n";

    #[test]
    fn columns_are_found_by_their_names() {
        let all = servers(ANSWER).expect("a table");
        assert_eq!(all["app-01"], Server { op: 2, admin: 0, weight: 100, initial_weight: 100 });
        assert!(all["app-01"].is_up() && !all["app-01"].is_out());
        assert!(all["app-02"].drains() && all["app-02"].is_out() && !all["app-02"].in_maintenance());
        assert!(all["app-03"].in_maintenance() && !all["app-03"].is_up());
        assert_eq!(all.len(), 3);
    }

    #[test]
    fn anything_else_is_an_error_that_says_what_was_said() {
        let error = servers("Can't find backend.\n").expect_err("no table").to_string();
        assert!(error.contains("Can't find backend"), "{error}");
        assert_eq!(servers("# be_id srv_name\n"), Err(StateError::NoColumn("srv_op_state")));
        assert_eq!(servers(&ANSWER.replace(" 2 8 ", " x 8 ")).expect("a table").len(), 2, "a bad row is no server");
        let heavy = ANSWER.replace(" 2 8 50 100 ", " 2 8 50 4294967295 ");
        assert_eq!(servers(&heavy).expect("a table").len(), 2, "nor is one with a weight that HAProxy cannot have");
    }
}
