//! What an error says of the request that it ended.

use std::error::Error;

/// Whether the protocol's own word is that the other side has not processed the request: then its client may say it again.
pub(super) fn is_returned(error: &(dyn Error + 'static)) -> bool {
    let Some(error) = in_chain::<h2::Error>(error) else { return false };
    let refused = error.reason() == Some(h2::Reason::REFUSED_STREAM);
    // Streams above the last one that a GOAWAY names fail with the GOAWAY; those below go on.
    let sent_away = error.is_go_away() && error.is_remote() && error.reason() == Some(h2::Reason::NO_ERROR);
    refused && error.is_remote() || sent_away
}

/// The first error of this type on the way to the cause.
fn in_chain<'a, E: Error + 'static>(error: &'a (dyn Error + 'static)) -> Option<&'a E> {
    error.downcast_ref().or_else(|| in_chain(error.source()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("outside")]
    struct Outside(#[source] h2::Error);

    #[test]
    fn our_own_errors_are_never_a_return() {
        // What the other side said can only come off a wire: the tests against real servers show those.
        for reason in [h2::Reason::REFUSED_STREAM, h2::Reason::NO_ERROR, h2::Reason::INTERNAL_ERROR] {
            assert!(!is_returned(&Outside(h2::Error::from(reason))), "{reason}");
        }
        assert!(!is_returned(&std::io::Error::other("broken")));
    }
}
