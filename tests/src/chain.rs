//! An error with all its causes in one line, for answers and logs that cannot show them one by one.

use std::error::Error;

/// The error and its causes, from the outermost on, separated by colons.
pub fn chain(error: &(dyn Error + 'static)) -> String {
    let causes = std::iter::successors(Some(error), |&error| error.source());
    causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("opening the file")]
    struct Opening {
        source: std::io::Error,
    }

    #[test]
    fn every_cause_is_said_once() {
        let error = Opening { source: std::io::Error::other("no disk") };
        assert_eq!(chain(&error), "opening the file: no disk");
    }
}
