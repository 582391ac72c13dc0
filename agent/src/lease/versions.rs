//! What the store's versions allow (`SAFETY.md` §1.14), and whether only agents can touch the lease's keys.
//!
//! etcd below 3.4.31 and 3.5.13 can revoke a live lease early (measured), so "the beat is gone" does not mean "the holder
//! has stopped" there, and a taker without proof waits the whole deadline that may still run.

use std::collections::BTreeMap;
use std::fmt;

/// What the members said of themselves.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Survey {
    /// Version of each member that answered, by member id.
    pub versions: BTreeMap<u64, String>,
    /// How many members the cluster has; none: nobody said so.
    pub size: Option<usize>,
    /// Whether the guard key stands; none: it could not be read.
    pub guarded: Option<bool>,
    /// It is an embedded store: one member, of Handover's own version, which knows no roles.
    pub embedded: bool,
}

/// The judgement over all members' versions: the worst one counts.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum VersionGate {
    /// All known defects that matter to the lease are mended.
    Good,
    /// No member revokes leases early; other defects are known, and the fence covers them. With the lowest version.
    Outdated(String),
    /// A member may revoke a live lease early. With its version.
    Unsafe(String),
    /// Not every member has said its version: counts as unsafe. With the reason.
    Unknown(String),
}

/// What is known of the store's members, from all surveys so far.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Trust {
    versions: BTreeMap<u64, String>,
    size: Option<usize>,
    guarded: bool,
    embedded: bool,
}

impl Trust {
    /// Takes in a survey. A member that did not answer this time keeps the version that it said last.
    /// Returns whether every member answered.
    pub fn learn(&mut self, survey: Survey) -> bool {
        let whole = survey.guarded.is_some() && survey.size.is_some_and(|size| survey.versions.len() >= size);
        if whole {
            // Members that have left the cluster do not count any more.
            self.versions.clear();
        }
        self.versions.extend(survey.versions);
        self.size = survey.size.or(self.size);
        self.guarded = survey.guarded.unwrap_or(self.guarded);
        self.embedded |= survey.embedded;
        whole
    }

    /// The judgement over all members.
    pub fn gate(&self) -> VersionGate {
        let Some(size) = self.size else { return VersionGate::Unknown("no member has answered yet".to_owned()) };
        let known = self.versions.len();
        if known < size {
            return VersionGate::Unknown(format!("{} of {size} members have not said their version", size - known));
        }
        if self.embedded {
            return VersionGate::Good;
        }
        let worst = self.versions.values().map(|version| judge(version)).max();
        worst.unwrap_or_else(|| VersionGate::Unknown("there are no members".to_owned()))
    }

    /// Whether only the agents' roles and root can touch the lease's keys. An embedded store knows no roles.
    pub fn is_guarded(&self) -> bool {
        self.guarded && !self.embedded
    }

    /// Why a taker without proof waits the long quarantine; none: the short one is enough.
    pub fn why_long(&self) -> Option<String> {
        let gate = self.gate();
        if matches!(gate, VersionGate::Unsafe(_) | VersionGate::Unknown(_)) {
            return Some(gate.to_string());
        }
        if self.embedded {
            return Some("an embedded store knows no roles, so anybody can delete the holder's beat".to_owned());
        }
        let fix = "nothing shows that only the agents' roles can delete the holder's beat; `handover store setup --apply` does";
        (!self.guarded).then(|| fix.to_owned())
    }
}

impl VersionGate {
    /// The word for it.
    pub fn word(&self) -> &'static str {
        match self {
            Self::Good => "good",
            Self::Outdated(_) => "outdated",
            Self::Unsafe(_) => "unsafe",
            Self::Unknown(_) => "unknown",
        }
    }
}

impl fmt::Display for VersionGate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Good => f.write_str("every member's version is good"),
            Self::Outdated(version) => write!(f, "member version {version} has known defects; upgrade it"),
            Self::Unsafe(version) => write!(f, "member version {version} may revoke a live lease early; upgrade it"),
            Self::Unknown(why) => write!(f, "versions are not known: {why}"),
        }
    }
}

/// The judgement over one version.
fn judge(version: &str) -> VersionGate {
    let Some(number) = numbers(version) else { return VersionGate::Unknown(format!("member version {version:?}")) };
    let good = match number {
        (3, 4, patch) => patch >= 42,
        (3, 5, patch) => patch >= 28,
        (3, 6, patch) => patch >= 9,
        _ => number > (3, 6, 9),
    };
    let keeps_leases = match number {
        (3, 4, patch) => patch >= 31,
        (3, 5, patch) => patch >= 13,
        _ => number >= (3, 6, 0),
    };
    match (good, keeps_leases) {
        (true, _) => VersionGate::Good,
        (false, true) => VersionGate::Outdated(version.to_owned()),
        (false, false) => VersionGate::Unsafe(version.to_owned()),
    }
}

/// Major, minor and patch. A pre-release counts as the patch before it: what it lacks is not known.
fn numbers(version: &str) -> Option<(u32, u32, u32)> {
    let (release, pre) = version.split_once(['-', '+']).map_or((version, false), |(release, _)| (release, true));
    let mut parts = release.split('.').map(str::parse::<u32>);
    let (major, minor, patch) = (parts.next()?.ok()?, parts.next()?.ok()?, parts.next()?.ok()?);
    let patch = if pre { patch.checked_sub(1)? } else { patch };
    parts.next().is_none().then_some((major, minor, patch))
}

#[cfg(test)]
mod tests;
