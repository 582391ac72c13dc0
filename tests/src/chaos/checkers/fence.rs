//! Checker 2, the source of truth: in the order of the database's commits no effect is under another token than the one
//! that was installed last ([`crate::receipt::fence`]).

use super::Checked;
use crate::receipt::fence;
use crate::receipt::rows::Commit;

/// Walks through the commits, which must be in their order.
pub fn check(commits: &[Commit]) -> Checked {
    let report = fence::check(commits);
    let mut checked = Checked::new("fence");
    checked.need("installs", usize::try_from(report.installs).unwrap_or(usize::MAX));
    checked.need("charges", usize::try_from(report.charges).unwrap_or(usize::MAX));
    checked.found.extend(report.violations);
    checked
}

#[cfg(test)]
mod tests {
    use super::super::ms;
    use super::*;
    use crate::receipt::rows::What;

    fn commits(rows: &[(What, i64, &str)]) -> Vec<Commit> {
        let commit = |(order, (what, token, instance)): (usize, &(What, i64, &str))| {
            let (order, version) = (order as u64, "1".to_owned());
            Commit { order, token: *token, instance: (*instance).to_owned(), version, at: ms(order), what: *what }
        };
        rows.iter().enumerate().map(commit).collect()
    }

    use What::{Charge, Install};

    #[test]
    fn charges_under_the_installed_token_are_clean() {
        let rows = [(Install, 5, "a"), (Charge(1), 5, "a"), (Install, 9, "b"), (Charge(2), 9, "b")];
        assert_eq!(check(&commits(&rows)).found.len(), 0);
    }

    #[test]
    fn a_late_commit_of_the_old_holder_is_found() {
        let rows = [(Install, 5, "a"), (Charge(1), 5, "a"), (Install, 9, "b"), (Charge(2), 5, "a")];
        assert_eq!(check(&commits(&rows)).found.len(), 1);
    }

    #[test]
    fn an_empty_database_proves_nothing() {
        assert_eq!(check(&[]).found.len(), 2);
    }
}
