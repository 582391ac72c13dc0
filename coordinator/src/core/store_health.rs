//! What the store's members say of themselves, and what that means for the lease (`SAFETY.md` §1.1, §1.9, §1.14).

/// One member.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// Where it was asked.
    pub endpoint: String,
    /// What it said; or why it did not.
    pub answer: Result<Said, String>,
}

/// What a member says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Said {
    /// Its version.
    pub version: String,
    /// It is the embedded store.
    pub embedded: bool,
    /// Its raft term: grows with each election among the members.
    pub raft_term: u64,
    /// Its alarms.
    pub alarms: Vec<String>,
}

/// How far a version of etcd can be trusted with leases.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Grade {
    /// All known defects that matter to the lease are mended.
    Good,
    /// No live lease is revoked early; other defects are known.
    Old,
    /// A live lease may be revoked early, or nothing is known of it.
    Unsafe,
}

/// The worst version among these members.
pub fn grade<'m>(members: impl IntoIterator<Item = &'m Member>) -> Grade {
    members.into_iter().map(of_member).max().unwrap_or(Grade::Unsafe)
}

/// One sentence for people.
pub fn sentence(members: &[Member], guarded: bool) -> String {
    if members.is_empty() {
        return "its members have not been asked yet".to_owned();
    }
    let said = |member: &Member| match &member.answer {
        Ok(said) => said.version.clone(),
        Err(_) => format!("{} does not answer", member.endpoint),
    };
    let mut versions: Vec<String> = members.iter().map(said).collect();
    versions.sort();
    versions.dedup();
    let worst = grade(members);
    let embedded = members.iter().any(|member| member.answer.as_ref().is_ok_and(|said| said.embedded));
    let words = match worst {
        Grade::Good if embedded => "embedded, a single node without replication",
        Grade::Good => "good",
        Grade::Old => "works, but not up to date: upgrade it to 3.4.42, 3.5.28 or 3.6.9",
        Grade::Unsafe => "may revoke live leases (issue 15247) or is not known: the long quarantine holds",
    };
    let guard = if guarded { "only the agents' roles may write the lease" } else { "anybody may write the lease" };
    format!("{}: {words}; {guard}", versions.join(", "))
}

/// Alarms of all members, each with its member.
pub fn alarms(members: &[Member]) -> Vec<String> {
    let of = |member: &Member| {
        let alarms = member.answer.iter().flat_map(|said| &said.alarms);
        alarms.map(|alarm| format!("{alarm} ({})", member.endpoint)).collect::<Vec<_>>()
    };
    members.iter().flat_map(of).collect()
}

fn of_member(member: &Member) -> Grade {
    match &member.answer {
        Ok(said) if said.embedded => Grade::Good,
        Ok(said) => numbers(&said.version).map_or(Grade::Unsafe, of_version),
        Err(_) => Grade::Unsafe,
    }
}

fn of_version((major, minor, patch): (u64, u64, u64)) -> Grade {
    let (safe, good) = match (major, minor) {
        (3, 4) => (31, 42),
        (3, 5) => (13, 28),
        (3, 6) => (0, 9),
        (3, minor) if minor > 6 => (0, 0),
        (major, _) if major > 3 => (0, 0),
        _ => return Grade::Unsafe,
    };
    match patch {
        patch if patch >= good => Grade::Good,
        patch if patch >= safe => Grade::Old,
        _ => Grade::Unsafe,
    }
}

fn numbers(version: &str) -> Option<(u64, u64, u64)> {
    let plain = version.split(['-', '+']).next()?;
    let mut parts = plain.split('.').map(|part| part.parse().ok());
    Some((parts.next()??, parts.next()??, parts.next()??))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member(version: &str) -> Member {
        let said =
            Said { version: version.to_owned(), embedded: false, raft_term: 2, alarms: vec!["NOSPACE".to_owned()] };
        Member { endpoint: "a:2379".to_owned(), answer: Ok(said) }
    }

    #[test]
    fn versions_with_the_early_revoke_defect_are_unsafe_and_so_is_what_cannot_be_read() {
        let cases = [("3.4.23", Grade::Unsafe), ("3.4.31", Grade::Old), ("3.4.42", Grade::Good)];
        let more = [("3.5.12", Grade::Unsafe), ("3.5.16", Grade::Old), ("3.5.28", Grade::Good)];
        let last = [("3.6.0", Grade::Old), ("3.7.0-rc.1", Grade::Good), ("three", Grade::Unsafe)];
        for (version, expected) in [cases, more, last].concat() {
            assert_eq!(of_member(&member(version)), expected, "{version}");
        }
        let silent = Member { endpoint: "b".to_owned(), answer: Err("refused".to_owned()) };
        assert_eq!(of_member(&silent), Grade::Unsafe);
    }

    #[test]
    fn the_worst_member_decides_and_the_sentence_names_the_versions() {
        let sentence = sentence(&[member("3.5.30"), member("3.4.23")], false);
        assert!(sentence.starts_with("3.4.23, 3.5.30: may revoke"), "{sentence}");
    }

    #[test]
    fn an_alarm_names_its_member() {
        assert_eq!(alarms(&[member("3.5.30")]), ["NOSPACE (a:2379)"]);
    }
}
