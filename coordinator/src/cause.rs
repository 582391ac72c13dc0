//! The deepest cause of an error: what a transport's layers wrap.

use std::error::Error;
use std::iter::successors;

/// The last error of the chain, in words: `Connection refused` instead of `transport error`.
pub(crate) fn root(error: &(dyn Error + 'static)) -> String {
    let causes = successors(error.source(), |cause: &&(dyn Error + 'static)| (*cause).source());
    causes.last().map_or_else(|| error.to_string(), ToString::to_string)
}
