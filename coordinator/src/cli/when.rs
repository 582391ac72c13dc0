//! Times as operators type them.

use jiff::civil::Time;
use jiff::{Timestamp, ToSpan as _, Zoned};

/// When an order is due, in Unix milliseconds: RFC 3339, or a time of day, which means the next one in `now`'s zone.
///
/// # Errors
/// One sentence that says what to write instead.
pub(super) fn due(text: &str, now: &Zoned) -> Result<u64, String> {
    let rule = || format!("{text:?} is not a time; write it like 22:00, or like 2026-11-21T22:00:00Z");
    let at = match text.parse::<Timestamp>() {
        Ok(at) => at,
        Err(_) if is_time_of_day(text) => next(text.parse::<Time>().map_err(|_| rule())?, now).ok_or_else(rule)?,
        Err(_) => return Err(rule()),
    };
    u64::try_from(at.as_millisecond()).map_err(|_| rule())
}

/// `22:00` or `22:00:30`: shorter forms could mean anything.
fn is_time_of_day(text: &str) -> bool {
    let parts: Vec<&str> = text.split(':').collect();
    matches!(parts.len(), 2 | 3) && parts.iter().all(|part| part.len() == 2)
}

/// The next such time of day; one that the clocks leave out that day is taken as the zone's rules say.
fn next(time: Time, now: &Zoned) -> Option<Timestamp> {
    let at = |day: &Zoned| day.date().to_datetime(time).to_zoned(now.time_zone().clone()).ok().map(|at| at.timestamp());
    let today = at(now)?;
    if today > now.timestamp() { Some(today) } else { at(&now.checked_add(1.day()).ok()?) }
}

#[cfg(test)]
mod tests {
    use jiff::tz::{Offset, TimeZone};

    use super::*;

    fn now() -> Zoned {
        let at: Timestamp = "2026-11-21T20:30:00Z".parse().expect("a time");
        at.to_zoned(TimeZone::fixed(Offset::constant(1)))
    }

    fn said(text: &str) -> String {
        let ms = due(text, &now()).expect("a time");
        Timestamp::from_millisecond(i64::try_from(ms).expect("small")).expect("a time").to_string()
    }

    #[test]
    fn a_time_of_day_is_the_next_one_in_the_terminals_zone() {
        assert_eq!(said("22:00"), "2026-11-21T21:00:00Z", "half an hour from now");
        assert_eq!(said("21:30"), "2026-11-22T20:30:00Z", "this very minute is not to come");
        assert_eq!(said("06:15"), "2026-11-22T05:15:00Z");
    }

    #[test]
    fn a_whole_time_is_taken_as_it_stands() {
        assert_eq!(said("2026-11-21T23:00:00+02:00"), "2026-11-21T21:00:00Z");
    }

    #[test]
    fn anything_else_is_refused_with_what_to_write() {
        for bad in ["", "tonight", "25:00", "22", "2026-11-21"] {
            let error = due(bad, &now()).expect_err(bad);
            assert!(error.contains("22:00"), "{error}");
        }
    }
}
