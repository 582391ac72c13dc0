//! How an instance ended, in words that are safe to show.

use handover_proto::wire;

use crate::clock;
use crate::state::InstanceRecord;

/// The report of an end. `how` is said in words, with the cause if it is known.
pub(crate) fn ended(record: &InstanceRecord, how: String, wanted: bool, tail: Vec<String>) -> wire::ExitReport {
    wire::ExitReport {
        instance: record.instance.to_string(),
        version: record.version.to_string(),
        how,
        wanted,
        tail,
        at_ms: clock::wall_ms(),
    }
}

/// A line of a service's output without the escape sequences of a terminal (ECMA-48, CSI): it goes to other people's
/// terminals.
pub(crate) fn plain(line: &str) -> String {
    let mut out = String::new();
    let mut chars = line.chars();
    while let Some(c) = chars.next() {
        if c == '\u{1b}' {
            // The sequence ends with a letter; what is not one is passed over with it.
            chars.by_ref().find(char::is_ascii_alphabetic);
        } else if !c.is_control() {
            out.push(c);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::plain;

    #[test]
    fn a_services_words_cannot_paint_somebody_elses_terminal() {
        assert_eq!(
            plain("\u{1b}[2m12:00\u{1b}[0m \u{1b}[31mERROR\u{1b}[0m no\tdatabase\u{7}"),
            "12:00 ERROR nodatabase"
        );
        assert_eq!(plain("as it is"), "as it is");
    }
}
