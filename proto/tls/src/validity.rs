//! From when until when a certificate is valid, read from its DER (RFC 5280 §4.1), because the TLS library only says it when
//! it is too late; and when somebody has to hear of it.

use std::time::SystemTime;

use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;

/// DER's tags of what is on the way.
const SEQUENCE: u8 = 0x30;
const VERSION: u8 = 0xa0;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;

/// From when until when a certificate is valid.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Validity {
    /// `notBefore`.
    pub from: SystemTime,
    /// `notAfter`.
    pub until: SystemTime,
}

/// How urgent it is to renew a certificate (`SAFETY.md` F27: without a valid one no lease is renewed).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Alarm {
    /// At most a third of its lifetime is left.
    Third,
    /// At most a tenth.
    Tenth,
    /// Nothing.
    Expired,
}

impl Validity {
    /// That of a certificate in DER; none if it is not found.
    #[must_use]
    pub fn of(certificate: &[u8]) -> Option<Self> {
        let (_, certificate, _) = element(certificate)?;
        let (_, mut fields, _) = element(certificate)?;
        let (tag, _, rest) = element(fields)?;
        if tag == VERSION {
            fields = rest;
        }
        // Serial number, algorithm, issuer; then the validity.
        for _ in 0..3 {
            fields = element(fields)?.2;
        }
        let (SEQUENCE, validity, _) = element(fields)? else { return None };
        let (tag, from, rest) = element(validity)?;
        let from = time(tag, std::str::from_utf8(from).ok()?)?;
        let (tag, until, _) = element(rest)?;
        Some(Self { from, until: time(tag, std::str::from_utf8(until).ok()?)? })
    }

    /// What is to be said about it at `now`.
    #[must_use]
    pub fn alarm(&self, now: SystemTime) -> Option<Alarm> {
        let lifetime = self.until.duration_since(self.from).unwrap_or_default();
        match self.until.duration_since(now) {
            Err(_) => Some(Alarm::Expired),
            Ok(left) if left <= lifetime / 10 => Some(Alarm::Tenth),
            Ok(left) if left <= lifetime / 3 => Some(Alarm::Third),
            Ok(_) => None,
        }
    }
}

/// A time for people.
#[must_use]
pub fn text(time: SystemTime) -> String {
    Timestamp::try_from(time).map_or_else(|error| error.to_string(), |time| time.to_string())
}

/// The first element: its tag, its content, and what comes after it.
fn element(bytes: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (tag, rest) = bytes.split_first()?;
    let (first, rest) = rest.split_first()?;
    let (length, rest) = match first {
        ..=0x7f => (usize::from(*first), rest),
        0x81..=0x84 => {
            let (digits, rest) = rest.split_at_checked(usize::from(first & 0x7f))?;
            (digits.iter().fold(0, |length, digit| length << 8 | usize::from(*digit)), rest)
        }
        _ => return None,
    };
    let (content, rest) = rest.split_at_checked(length)?;
    Some((*tag, content, rest))
}

fn time(tag: u8, text: &str) -> Option<SystemTime> {
    let parsed = match tag {
        UTC_TIME => {
            // RFC 5280 §4.1.2.5.1: two digits below 50 are of this century.
            let century = if text.get(..2)?.parse::<u8>().ok()? < 50 { "20" } else { "19" };
            DateTime::strptime("%Y%m%d%H%M%SZ", format!("{century}{text}"))
        }
        GENERALIZED_TIME => DateTime::strptime("%Y%m%d%H%M%SZ", text),
        _ => return None,
    };
    parsed.ok()?.to_zoned(TimeZone::UTC).ok().map(|zoned| SystemTime::from(zoned.timestamp()))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn both_ways_to_write_a_time_are_read() {
        let seconds = |tag, text| {
            let time = time(tag, text).expect("a time");
            time.duration_since(SystemTime::UNIX_EPOCH).expect("after 1970").as_secs()
        };
        assert_eq!(seconds(UTC_TIME, "300102030405Z"), 1_893_553_445);
        assert_eq!(seconds(UTC_TIME, "991231235959Z"), 946_684_799);
        assert_eq!(seconds(GENERALIZED_TIME, "20500101000000Z"), 2_524_608_000);
        assert_eq!(time(UTC_TIME, "tomorrow"), None);
    }

    #[test]
    fn the_alarm_grows_with_the_part_of_the_lifetime_that_is_over() {
        let at = |days: u64| SystemTime::UNIX_EPOCH + Duration::from_secs(days * 86_400);
        let validity = Validity { from: at(100), until: at(190) };
        assert_eq!([99, 100, 159].map(|day| validity.alarm(at(day))), [None; 3]);
        assert_eq!([160, 180].map(|day| validity.alarm(at(day))), [Some(Alarm::Third); 2]);
        assert_eq!([181, 190].map(|day| validity.alarm(at(day))), [Some(Alarm::Tenth); 2]);
        assert_eq!(validity.alarm(at(191)), Some(Alarm::Expired));
        let backwards = Validity { from: at(190), until: at(100) };
        assert_eq!(backwards.alarm(at(50)), None, "that is for whoever verifies it");
    }

    #[test]
    fn cut_off_der_is_no_certificate() {
        for bytes in [&b""[..], b"\x30", b"\x30\x05\x30", b"\x30\x84\xff\xff\xff\xff", b"\x30\x80"] {
            assert_eq!(Validity::of(bytes), None);
        }
    }
}
