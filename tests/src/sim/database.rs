//! The database with the fence (`SAFETY.md` §1.11): the row of the token, and the transactions that hold it shared.

use super::fact::{Fact, Token, Who};
use super::mistake::{Mistake, Slip};

/// A transaction of a unit of work: it has passed the check, and holds the fence row until its end.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Open {
    pub(crate) who: Who,
    pub(crate) token: Token,
    tick: u64,
}

#[derive(Debug, Default)]
pub(crate) struct Database {
    stored: Option<Token>,
    holder: Option<Who>,
    ticks: u64,
    open: Vec<Open>,
    waiting: Vec<(Who, Token)>,
    mistake: Mistake,
}

/// What became of an install.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Install {
    /// The token is the valid one.
    Done,
    /// It waits for transactions under an older one.
    Waits,
    /// A newer one stands there, or the same of somebody else.
    Refused,
}

impl Database {
    pub(crate) fn new(mistake: Mistake) -> Self {
        Self { mistake, ..Self::default() }
    }

    pub(crate) fn stored(&self) -> Option<Token> {
        self.stored
    }

    /// `UPDATE … SET token` by the new holder: takes the row for itself, so that it waits for whoever holds it shared.
    pub(crate) fn install(&mut self, who: Who, token: Token, facts: &mut Vec<Fact>) -> Install {
        if self.stored == Some(token) {
            // As the guard in SQL: the same token of somebody else is another turn's, of a store that was restored.
            return if self.holder == Some(who) { Install::Done } else { Install::Refused };
        }
        if self.stored.is_some_and(|stored| stored > token) {
            return Install::Refused;
        }
        let weak = self.mistake.is(Slip::CheckWithKeyShare);
        if !weak && self.open.iter().any(|open| open.token != token) {
            self.waiting.retain(|(waiter, _)| *waiter != who);
            self.waiting.push((who, token));
            return Install::Waits;
        }
        (self.stored, self.holder) = (Some(token), Some(who));
        facts.push(Fact::Installed { who, token });
        Install::Done
    }

    /// `SELECT … FOR SHARE`, the first statement of a unit's transaction; false: fenced.
    pub(crate) fn begin(&mut self, who: Who, token: Token) -> bool {
        let unchecked = self.mistake.is(Slip::StartBeforeInstall);
        if self.stored != Some(token) && !unchecked {
            return false;
        }
        // A share that comes after a waiting update stands in line behind it: it finds another token then.
        if !self.waiting.is_empty() && !unchecked {
            return false;
        }
        self.open.push(Open { who, token, tick: self.ticks + 1 });
        true
    }

    /// The transaction of `who` ends. Gives those whose install has been waiting and is done now.
    pub(crate) fn end(&mut self, who: Who, commits: bool, facts: &mut Vec<Fact>) -> Vec<Who> {
        let Some(at) = self.open.iter().position(|open| open.who == who) else { return Vec::new() };
        let Open { token, tick, .. } = self.open.remove(at);
        if commits {
            self.ticks = self.ticks.max(tick);
            facts.push(Fact::Committed { who, token, tick });
        }
        let waiting = std::mem::take(&mut self.waiting);
        let installed = |(who, token): (Who, Token)| (self.install(who, token, facts) == Install::Done).then_some(who);
        waiting.into_iter().filter_map(installed).collect()
    }

    /// Its session breaks before it is sure to have ended: what was sent last may still be carried out.
    pub(crate) fn is_open(&self, who: Who) -> bool {
        self.open.iter().any(|open| open.who == who)
    }

    /// Whoever waits there gives up.
    pub(crate) fn forget(&mut self, who: Who) {
        self.waiting.retain(|(waiter, _)| *waiter != who);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_install_waits_for_the_transactions_under_the_old_token_and_ends_them_for_good() {
        let (mut database, mut facts) = (Database::new(Mistake::NONE), Vec::new());
        assert_eq!(database.install(1, 5, &mut facts), Install::Done);
        assert!(database.begin(1, 5));
        assert_eq!(database.install(2, 9, &mut facts), Install::Waits);
        assert_eq!(database.stored(), Some(5));
        assert_eq!(database.end(1, true, &mut facts), [2]);
        assert!(!database.begin(1, 5) && database.begin(2, 9));
        assert_eq!(database.install(1, 5, &mut facts), Install::Refused);
        let tick = |fact: &Fact| matches!(fact, Fact::Committed { tick: 1, token: 5, .. });
        assert!(facts.iter().any(tick));
    }
}
