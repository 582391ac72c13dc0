//! Mistakes planted into the service on purpose (`SAFETY.md` §3.3), by the variable `BILLING_MISTAKES`: words with commas
//! between. They are no faults that a service may have ([`super::faults`]) but breaches of its obligations (§1.10), and
//! chaos has to catch each.

/// Names the mistakes.
pub const VARIABLE: &str = "BILLING_MISTAKES";

/// Which mistakes this process makes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Mistakes {
    /// A1, A2: it starts and commits units whatever the deadlines are.
    pub ignores_deadline: bool,
    /// Starts under a token before that is installed.
    pub starts_before_install: bool,
    /// A4: says QUIESCED and goes on.
    pub lies_quiesced: bool,
}

impl Mistakes {
    /// As the variable says.
    pub fn planted() -> Self {
        Self::of(&std::env::var(VARIABLE).unwrap_or_default())
    }

    fn of(words: &str) -> Self {
        let has = |word: &str| words.split(',').any(|named| named == word);
        Self {
            ignores_deadline: has("ignores-deadline"),
            starts_before_install: has("starts-before-install"),
            lies_quiesced: has("lies-quiesced"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_variable_is_no_mistake_and_each_word_is_one() {
        assert_eq!(Mistakes::of(""), Mistakes::default());
        let two = Mistakes::of("ignores-deadline,lies-quiesced");
        assert_eq!(two, Mistakes { ignores_deadline: true, lies_quiesced: true, ..Mistakes::default() });
    }
}
