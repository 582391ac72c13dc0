//! New inputs out of old ones: seeded, so that a round is the same wherever it runs.

/// Longest input that is made.
const LONGEST_BYTES: usize = 4096;
/// Bytes at which parsers turn.
const SHARP: &[u8] = b"\0\t\n\r \"#%*+,-./019:;<=>?@AZ[\\]{}~\x7f\x80\xff";

/// A small generator of numbers (xorshift64*).
#[derive(Debug, Clone)]
pub struct Dice(u64);

impl Dice {
    /// The same seed, the same numbers.
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    /// 0 to `below` - 1; 0 if `below` is 0.
    pub fn below(&mut self, below: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        let drawn = self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33;
        usize::try_from(drawn).unwrap_or(0).checked_rem(below).unwrap_or(0)
    }

    /// One of them; none of nothing.
    pub fn one<'a, T>(&mut self, of: &'a [T]) -> Option<&'a T> {
        of.get(self.below(of.len()))
    }
}

/// An input made out of one of `corpus` by one to four changes.
pub fn mutated(dice: &mut Dice, corpus: &[Vec<u8>], words: &[Vec<u8>]) -> Vec<u8> {
    let mut input = dice.one(corpus).cloned().unwrap_or_default();
    for _ in 0..=dice.below(4) {
        change(dice, &mut input, corpus, words);
    }
    input.truncate(LONGEST_BYTES);
    input
}

fn change(dice: &mut Dice, input: &mut Vec<u8>, corpus: &[Vec<u8>], words: &[Vec<u8>]) {
    let at = dice.below(input.len() + 1);
    let end = (at + dice.below(16)).min(input.len());
    match dice.below(8) {
        0 => {
            if let Some(byte) = input.get_mut(at) {
                *byte ^= 1 << dice.below(8);
            }
        }
        1 => {
            if let (Some(byte), Some(sharp)) = (input.get_mut(at), dice.one(SHARP)) {
                *byte = *sharp;
            }
        }
        2 => drop(input.splice(at..at, dice.one(SHARP).copied())),
        3 => drop(input.drain(at..end)),
        4 => {
            let twice = input.get(at..end).unwrap_or_default().to_vec();
            drop(input.splice(at..at, twice));
        }
        5 | 6 => drop(input.splice(at..at, dice.one(words).cloned().unwrap_or_default())),
        _ => {
            let other = dice.one(corpus).cloned().unwrap_or_default();
            let from = dice.below(other.len() + 1);
            input.truncate(at);
            input.extend_from_slice(other.get(from..).unwrap_or_default());
        }
    }
}

/// The words of a dictionary of libFuzzer: one `"…"` a line, with `\\`, `\"` and `\xHH`.
pub fn words(dictionary: &str) -> Vec<Vec<u8>> {
    let lines = dictionary.lines().map(str::trim).filter(|line| !line.starts_with('#'));
    lines.filter_map(|line| Some(unescaped(line.split_once('"')?.1.strip_suffix('"')?))).collect()
}

fn unescaped(text: &str) -> Vec<u8> {
    let (mut out, mut bytes) = (Vec::new(), text.bytes());
    while let Some(byte) = bytes.next() {
        match (byte, (byte == b'\\').then(|| bytes.next()).flatten()) {
            (_, Some(b'x')) => {
                let digits: String = bytes.by_ref().take(2).map(char::from).collect();
                out.extend(u8::from_str_radix(&digits, 16).ok());
            }
            (_, Some(escaped)) => out.push(escaped),
            (byte, None) => out.push(byte),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_makes_the_same_inputs_again_and_others_than_another_seed() {
        let corpus = vec![b"GET / HTTP/1.1".to_vec(), b"POST /a".to_vec()];
        let of = |seed| -> Vec<_> {
            let mut dice = Dice::new(seed);
            (0..50).map(|_| mutated(&mut dice, &corpus, &[b"word".to_vec()])).collect()
        };
        assert_eq!(of(7), of(7));
        assert_ne!(of(7), of(8));
        assert!(of(7).iter().any(|input| input.windows(4).any(|part| part == b"word")));
    }

    #[test]
    fn a_dictionary_is_read_as_libfuzzer_reads_it() {
        let text = "# words\nkw1=\"a\\\"b\"\n\"\\x0d\\x0a\"\n\nbad\n\"\\\\\"\n";
        assert_eq!(words(text), [b"a\"b".to_vec(), b"\r\n".to_vec(), b"\\".to_vec()]);
    }
}
