//! Times, shares and ages as people read them.

use jiff::Timestamp;

/// `6d`, `3h12m`, `3m12s`, `11s`, `0.8s`: two units at most.
pub(super) fn span(ms: u64) -> String {
    let s = ms / 1000;
    let two = |big: u64, unit: &str, small: u64, small_unit: &str| match small {
        0 => format!("{big}{unit}"),
        _ => format!("{big}{unit}{small:02}{small_unit}"),
    };
    match s {
        0 => format!("{:.1}s", ms as f64 / 1000.0),
        1..60 => format!("{s}s"),
        60..3600 => two(s / 60, "m", s % 60, "s"),
        3600..86_400 => two(s / 3600, "h", s % 3600 / 60, "m"),
        _ => two(s / 86_400, "d", s % 86_400 / 3600, "h"),
    }
}

/// The span from `since_ms` to `now_ms` (Unix milliseconds); `-` if it never began.
pub(super) fn age(since_ms: u64, now_ms: u64) -> String {
    if since_ms == 0 { "-".to_owned() } else { span(now_ms.saturating_sub(since_ms)) }
}

/// A Unix time in milliseconds as `14:22:07Z`: hosts of one fleet need not share a time zone.
pub(super) fn clock(at_ms: u64) -> String {
    moment(at_ms).map_or_else(|| "-".to_owned(), |at| at.strftime("%H:%M:%SZ").to_string())
}

/// A Unix time in milliseconds as `2026-11-21 14:22:07Z`.
pub(super) fn date(at_ms: u64) -> String {
    moment(at_ms).map_or_else(|| "-".to_owned(), |at| at.strftime("%Y-%m-%d %H:%M:%SZ").to_string())
}

fn moment(at_ms: u64) -> Option<Timestamp> {
    i64::try_from(at_ms).ok().filter(|ms| *ms > 0).and_then(|ms| Timestamp::from_millisecond(ms).ok())
}

/// A version, or what stands for none.
pub(super) fn version(text: &str) -> &str {
    if text.is_empty() { "(none)" } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_have_two_units_at_most() {
        let cases = [
            (800, "0.8s"),
            (11_000, "11s"),
            (192_000, "3m12s"),
            (120_000, "2m"),
            (11_520_000, "3h12m"),
            (518_400_000, "6d"),
            (90_000_000, "1d01h"),
        ];
        for (ms, text) in cases {
            assert_eq!(span(ms), text);
        }
    }

    #[test]
    fn what_never_began_has_no_age() {
        assert_eq!(age(0, 5000), "-");
        assert_eq!(age(2000, 5000), "3s");
        assert_eq!(age(9000, 5000), "0.0s", "a clock that lags does not wrap");
    }

    #[test]
    fn times_say_their_zone() {
        assert_eq!(clock(1_795_271_327_000), "14:28:47Z");
        assert_eq!(date(0), "-");
    }
}
