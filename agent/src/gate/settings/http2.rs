//! Bounds on the bounds of HTTP/2: h2 and hyper panic, in each connection, on what its frames cannot say.

use super::{SettingsError, at_least};
use crate::gate::streams::Http2Limits;

/// The largest window there is (RFC 9113 §6.9.1).
const WINDOW_BYTES: u64 = (1 << 31) - 1;

/// Checks them one by one.
pub(super) fn check(limits: &Http2Limits) -> Result<(), SettingsError> {
    let (stream, connection) = (limits.stream_window_bytes.into(), limits.connection_window_bytes.into());
    at_least("http2.streams", limits.streams.into(), 1, "every stream would be refused")?;
    at_least("http2.stream_window_bytes", stream, 1, "no body could come")?;
    at_least("http2.connection_window_bytes", connection, 1, "no body could come")?;
    at_least("http2.send_buffer_bytes", limits.send_buffer_bytes as u64, 1, "no answer could leave")?;
    at_most("http2.stream_window_bytes", stream, WINDOW_BYTES, "HTTP/2 knows no larger window")?;
    at_most("http2.connection_window_bytes", connection, WINDOW_BYTES, "HTTP/2 knows no larger window")?;
    at_most("http2.send_buffer_bytes", limits.send_buffer_bytes as u64, u32::MAX.into(), "hyper takes no more")
}

fn at_most(setting: &'static str, given: u64, most: u64, why: &'static str) -> Result<(), SettingsError> {
    if given > most { Err(SettingsError::TooLarge { setting, given, most, why }) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_http2_cannot_say_is_refused_with_the_setting_and_what_it_can_say_is_not() {
        let refused = |change: fn(&mut Http2Limits)| {
            let mut limits = Http2Limits::default();
            change(&mut limits);
            check(&limits).err().map(|error| error.to_string()).unwrap_or_default()
        };
        assert_eq!(refused(|limits| limits.stream_window_bytes = (1 << 31) - 1), "");
        assert!(refused(|limits| limits.stream_window_bytes = 1 << 31).contains("`http2.stream_window_bytes`"));
        assert!(refused(|limits| limits.connection_window_bytes = u32::MAX).contains("at most 2147483647"));
        assert!(refused(|limits| limits.send_buffer_bytes = 1 << 33).contains("`http2.send_buffer_bytes`"));
        assert!(refused(|limits| limits.streams = 0).contains("at least 1"));
    }
}
