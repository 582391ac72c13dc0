//! The deepest cause of an error: what a transport's layers wrap.

use std::error::Error;
use std::iter::successors;

/// The last error of the chain, in words: `Connection refused` instead of `transport error`.
pub(crate) fn root(error: &(dyn Error + 'static)) -> String {
    let causes = successors(error.source(), |cause: &&(dyn Error + 'static)| (*cause).source());
    causes.last().map_or_else(|| error.to_string(), ToString::to_string)
}

/// The error with its causes, each said once: an outer sentence often repeats the inner one.
pub fn chain(error: &(dyn Error + 'static)) -> String {
    let causes = successors(error.source(), |cause: &&(dyn Error + 'static)| (*cause).source());
    causes
        .map(ToString::to_string)
        .fold(error.to_string(), |text, cause| if text.contains(&cause) { text } else { format!("{text}: {cause}") })
}
