//! What HAProxy's agent-check is answered, and which slot it asked for: both pure.
//!
//! Measured on HAProxy 2.6: a word that is not sent changes nothing; only the agent lifts the drain that the agent set;
//! `ready` lifts an operator's drain too. So the answer is always `up N%` or `drain`, and `ready` stands in it only while
//! a drain that our own record holds is to be undone. Never a constant `ready`.

use handover_proto::ids::SlotId;

use crate::core::front::{Target, Wish, Wishes};

/// `agent-send` longer than this is nobody's slot.
pub const SEND_LIMIT_BYTES: usize = 64;

/// The line. `undo`: our own drain stands at the asker.
pub fn answer(wish: Wish, undo: bool) -> String {
    match (wish, undo) {
        (Wish::Drain, _) => "drain\n".into(),
        (Wish::Serve { percent }, false) => format!("up {}%\n", percent.clamp(1, 100)),
        (Wish::Serve { percent }, true) => format!("up ready {}%\n", percent.clamp(1, 100)),
    }
}

/// What was asked for: the only target there is, or the slot that `agent-send` names in its first line.
pub fn asked(sent: &[u8], wishes: &Wishes) -> Option<Target> {
    if wishes.len() == 1 {
        return wishes.keys().next().cloned();
    }
    let line = sent.split(|byte| matches!(byte, b'\n' | b'\r')).next()?;
    // What was cut off is not what was sent.
    if line.len() >= SEND_LIMIT_BYTES {
        return None;
    }
    let slot: SlotId = std::str::from_utf8(line).ok()?.trim().parse().ok()?;
    Some(Target::Slot(slot)).filter(|target| wishes.contains_key(target))
}

/// Whether what was sent so far can still become a name.
pub fn wants_more(sent: &[u8]) -> bool {
    sent.len() < SEND_LIMIT_BYTES && !sent.iter().any(|byte| matches!(byte, b'\n' | b'\r'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_answer_is_up_with_a_weight_or_drain_and_ready_stands_only_in_an_undo() {
        for percent in 0..=255 {
            let share = percent.clamp(1, 100);
            let wish = Wish::Serve { percent };
            assert_eq!(answer(wish, false), format!("up {share}%\n"));
            assert_eq!(answer(wish, true), format!("up ready {share}%\n"));
        }
        for undo in [false, true] {
            assert_eq!(answer(Wish::Drain, undo), "drain\n", "a drain is never undone by its own word");
        }
    }

    fn wishes(slots: &[&str]) -> Wishes {
        slots.iter().map(|slot| (Target::Slot(slot.parse().expect("slot")), Wish::Drain)).collect()
    }

    #[test]
    fn one_target_needs_no_name_and_several_do() {
        let host = Wishes::from([(Target::Host, Wish::Drain)]);
        for sent in ["", "a\n", "\u{0}", "anything"] {
            assert_eq!(asked(sent.as_bytes(), &host), Some(Target::Host));
            assert_eq!(asked(sent.as_bytes(), &wishes(&["a"])), Some(Target::Slot("a".parse().expect("slot"))));
        }
        let both = wishes(&["a", "b"]);
        for (sent, slot) in [("a\n", "a"), ("b\r\n", "b"), (" b \nrest", "b"), ("a", "a")] {
            assert_eq!(asked(sent.as_bytes(), &both), Some(Target::Slot(slot.parse().expect("slot"))), "{sent:?}");
        }
        for sent in ["", "\n", "c\n", "a b\n", "A\n"] {
            assert_eq!(asked(sent.as_bytes(), &both), None, "{sent:?}");
        }
        assert_eq!(asked(b"\xff\xfe\n", &both), None);
        let cut_off = format!("a{}b\n", " ".repeat(70));
        assert_eq!(asked(cut_off.as_bytes(), &both), None, "a beginning is no name");
        assert_eq!(asked(&cut_off.as_bytes()[..SEND_LIMIT_BYTES], &both), None, "nor as much as is read of it");
        assert_eq!(asked(&vec![b'a'; 1 << 20], &both), None);
    }

    #[test]
    fn no_more_is_read_than_a_name_can_have() {
        assert!(wants_more(b"") && wants_more(b"app"));
        assert!(!wants_more(b"a\n") && !wants_more(b"a\r"));
        assert!(!wants_more(&[b'x'; SEND_LIMIT_BYTES]));
    }
}
