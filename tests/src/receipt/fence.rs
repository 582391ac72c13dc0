//! Checker 2, the source of truth: in the order of commits, tokens never decrease, and a charge is under the token that
//! was installed last, by the instance that installed it.

use serde::Serialize;

use crate::receipt::rows::{Commit, What};

/// What the fence checker found.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct FenceReport {
    /// Times that a token was installed: turns of the lease.
    pub installs: u64,
    /// Charges that were committed.
    pub charges: u64,
    /// Commits that the fence should have stopped, each in a sentence.
    pub violations: Vec<String>,
}

/// Walks through the commits, which must be in their order.
pub fn check(commits: &[Commit]) -> FenceReport {
    let mut report = FenceReport::default();
    let mut installed: Option<&Commit> = None;
    for commit in commits {
        let Commit { order, token, instance, .. } = commit;
        let before = installed.map_or(0, |install| install.token);
        match commit.what {
            What::Install => {
                report.installs += 1;
                if *token <= before {
                    report
                        .violations
                        .push(format!("commit {order}: token {token} of {instance} was installed over token {before}"));
                }
                installed = Some(commit);
            }
            What::Charge(tick) => {
                report.charges += 1;
                if installed.is_none_or(|install| install.token != *token || install.instance != *instance) {
                    let holder = installed.map_or("nobody", |install| &install.instance);
                    report.violations.push(format!(
                        "commit {order}: tick {tick} was charged under token {token} of {instance} while token {before} \
                         of {holder} was installed"
                    ));
                }
            }
        }
    }
    report
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::BootNs;

    fn commits(rows: &[(What, i64, &str)]) -> Vec<Commit> {
        let commit = |(order, (what, token, instance)): (usize, &(What, i64, &str))| {
            let (order, version) = (order as u64, "1".to_owned());
            Commit { order, token: *token, instance: (*instance).to_owned(), version, at: BootNs(order), what: *what }
        };
        rows.iter().enumerate().map(commit).collect()
    }

    use What::{Charge, Install};

    #[test]
    fn charges_under_the_installed_token_pass() {
        let rows = [(Install, 5, "a"), (Charge(1), 5, "a"), (Install, 9, "b"), (Charge(2), 9, "b"), (Install, 11, "a")];
        assert_eq!(check(&commits(&rows)), FenceReport { installs: 3, charges: 2, violations: vec![] });
    }

    #[test]
    fn each_planted_violation_is_found() {
        let planted: [&[(What, i64, &str)]; 6] = [
            &[(Charge(1), 5, "a")],
            &[(Install, 5, "a"), (Install, 9, "b"), (Charge(1), 5, "a")],
            &[(Install, 5, "a"), (Charge(1), 9, "b"), (Install, 9, "b")],
            &[(Install, 5, "a"), (Charge(1), 5, "b")],
            &[(Install, 9, "a"), (Install, 5, "b")],
            &[(Install, 5, "a"), (Install, 5, "b")],
        ];
        for rows in planted {
            assert_eq!(check(&commits(rows)).violations.len(), 1, "{rows:?}");
        }
    }
}
