//! Where the frames of a WebSocket begin and end (RFC 6455 §5.2), so that a Close frame can be put between two of them. Pure.

/// A Close frame from a server: 1012, "service restart", after which a client may connect again at once.
pub const CLOSE_RESTART: [u8; 4] = [0x88, 2, (1012_u16 >> 8) as u8, (1012_u16 & 0xff) as u8];

/// The longest head of a frame: two bytes, eight of length, four of mask.
const LONGEST_HEAD: usize = 14;

/// Follows one direction of a WebSocket.
#[derive(Debug, Clone, Copy, Default)]
pub struct Frames {
    head: [u8; LONGEST_HEAD],
    /// Bytes of a head that is not complete.
    have: usize,
    /// Bytes of the payload that are still to come.
    payload: u64,
}

impl Frames {
    /// Whether the last byte that passed ended a frame, or none has passed.
    pub fn at_boundary(&self) -> bool {
        self.have == 0 && self.payload == 0
    }

    /// Follows all of `bytes`.
    pub fn pass(&mut self, bytes: &[u8]) {
        let mut rest = bytes;
        while !rest.is_empty() {
            let count = self.advance(rest);
            rest = rest.get(count..).unwrap_or_default();
        }
    }

    /// Follows `bytes` only to the end of the frame that has begun; how many that are. None if no frame has begun.
    pub fn finish(&mut self, bytes: &[u8]) -> usize {
        let mut passed = 0;
        while passed < bytes.len() && !self.at_boundary() {
            passed += self.advance(bytes.get(passed..).unwrap_or_default());
        }
        passed
    }

    /// Takes the next byte of a head, or as much as there is of a payload.
    fn advance(&mut self, bytes: &[u8]) -> usize {
        if self.payload > 0 {
            let count = self.payload.min(bytes.len() as u64);
            self.payload -= count;
            return count as usize;
        }
        let (Some(place), Some(byte)) = (self.head.get_mut(self.have), bytes.first()) else { return bytes.len() };
        *place = *byte;
        self.have += 1;
        if self.have >= 2 && self.have == self.head_length() {
            self.payload = self.payload_length();
            self.have = 0;
        }
        1
    }

    fn head_length(&self) -> usize {
        let mask = if self.head[1] & 0x80 == 0 { 0 } else { 4 };
        let length = match self.head[1] & 0x7f {
            126 => 2,
            127 => 8,
            _ => 0,
        };
        2 + length + mask
    }

    fn payload_length(&self) -> u64 {
        let h = &self.head;
        match h[1] & 0x7f {
            126 => u64::from(u16::from_be_bytes([h[2], h[3]])),
            127 => u64::from_be_bytes([h[2], h[3], h[4], h[5], h[6], h[7], h[8], h[9]]),
            short => u64::from(short),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn frame(payload: usize, masked: bool) -> Vec<u8> {
        let mask = if masked { 0x80 } else { 0 };
        let mut frame = vec![0x82];
        match payload {
            ..126 => frame.push(mask | payload as u8),
            126..65536 => {
                frame.push(mask | 126);
                frame.extend((payload as u16).to_be_bytes());
            }
            _ => {
                frame.push(mask | 127);
                frame.extend((payload as u64).to_be_bytes());
            }
        }
        frame.extend(std::iter::repeat_n(0x88, payload + if masked { 4 } else { 0 }));
        frame
    }

    #[test]
    fn a_frame_ends_at_its_last_byte_and_not_before() {
        for (payload, masked) in [(0, false), (0, true), (125, true), (126, false), (65535, true), (65536, false)] {
            let frame = frame(payload, masked);
            let mut frames = Frames::default();
            frames.pass(&frame[..frame.len() - 1]);
            assert!(!frames.at_boundary(), "{payload}");
            frames.pass(&frame[frame.len() - 1..]);
            assert!(frames.at_boundary(), "{payload}");
        }
    }

    #[test]
    fn between_frames_nothing_more_is_let_through() {
        let mut frames = Frames::default();
        assert_eq!(frames.finish(&frame(5, false)), 0);
    }

    proptest! {
        #[test]
        fn however_the_bytes_are_cut_only_the_frame_that_began_is_finished(
            before in prop::collection::vec((0_usize..70_000, any::<bool>()), 0..4),
            begun in (1_usize..70_000, any::<bool>()),
            cut in any::<prop::sample::Index>(),
            step in 1_usize..9000,
        ) {
            let mut bytes: Vec<u8> = before.into_iter().flat_map(|(payload, masked)| frame(payload, masked)).collect();
            let last = frame(begun.0, begun.1);
            let at = bytes.len() + 1 + cut.index(last.len() - 1);
            bytes.extend(&last);
            let end = bytes.len();
            bytes.extend(frame(10, false));
            let mut frames = Frames::default();
            for part in bytes[..at].chunks(step) {
                frames.pass(part);
            }
            let mut finished = at;
            for part in bytes[at..].chunks(step) {
                finished += frames.finish(part);
            }
            prop_assert_eq!(finished, end);
            prop_assert!(frames.at_boundary());
        }
    }
}
