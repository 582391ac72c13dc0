//! Checker 10: when everything is quiet again, no etcd lease, candidate key or intent is left that nobody needs.

use super::Check;
use crate::sim::fact::Fact;

/// Takes what the world found at the end.
#[derive(Debug, Default)]
pub struct Leaks;

impl Check for Leaks {
    fn name(&self) -> &'static str {
        "leaks"
    }

    fn see(&mut self, _at: u64, fact: &Fact) -> Result<(), String> {
        match fact {
            Fact::Left { what } => Err(format!("left over: {what}")),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whatever_is_left_over_is_found() {
        assert!(Leaks.see(0, &Fact::Left { what: "a lease".to_owned() }).is_err());
        assert_eq!(Leaks.see(0, &Fact::Restored { holder: 0, turn: None }), Ok(()));
    }
}
