//! One named condition: readings in, met or unmet out.
//!
//! ```text
//! Starting --rise good--> Met --fall bad--> Unmet --rise good--> Met
//! ```
//!
//! A reading that could not be taken (we were late, or had no file handle left) changes nothing: the last known value
//! stands (`SAFETY.md` §2.1 R9).

use std::time::Duration;

/// What one look found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reading {
    /// As wanted; the text is what was seen.
    Good(String),
    /// Not as wanted, or no answer in time; the text is what was seen instead.
    Bad(String),
    /// The look itself failed on our side, which says nothing of the service; the text is why.
    NotTaken(String),
}

/// Where a condition stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// Never met since the instance started.
    Starting,
    /// Met.
    Met,
    /// It was met and is no longer.
    Unmet,
}

/// A condition and its memory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Condition {
    rise: u32,
    fall: u32,
    phase: Phase,
    /// Time since boot at which `phase` was entered.
    since: Duration,
    /// Readings in a row that speak for leaving `phase`.
    against: u32,
    reading: String,
    not_taken: Option<String>,
}

impl Condition {
    /// A condition of an instance that starts at `now` (time since boot). Zero thresholds count as one.
    pub fn new(rise: u32, fall: u32, now: Duration) -> Self {
        Self {
            rise: rise.max(1),
            fall: fall.max(1),
            phase: Phase::Starting,
            since: now,
            against: 0,
            reading: "not probed yet".to_owned(),
            not_taken: None,
        }
    }

    /// Takes one reading at `now` (time since boot).
    pub fn feed(&mut self, reading: Reading, now: Duration) {
        let (good, text) = match reading {
            Reading::NotTaken(why) => {
                self.not_taken = Some(why);
                return;
            }
            Reading::Good(text) => (true, text),
            Reading::Bad(text) => (false, text),
        };
        self.reading = text;
        self.not_taken = None;
        let (speaks_against, threshold, next) = match self.phase {
            Phase::Starting | Phase::Unmet => (good, self.rise, Phase::Met),
            Phase::Met => (!good, self.fall, Phase::Unmet),
        };
        self.against = if speaks_against { self.against + 1 } else { 0 };
        if self.against >= threshold {
            (self.phase, self.since, self.against) = (next, now, 0);
        }
    }

    /// Where it stands.
    pub fn phase(&self) -> Phase {
        self.phase
    }

    /// Time since boot at which it came to stand there.
    pub fn since(&self) -> Duration {
        self.since
    }

    /// The last reading, and why it is not newer if it should be.
    pub fn reading(&self) -> String {
        match &self.not_taken {
            None => self.reading.clone(),
            Some(why) => format!("{} (kept; could not look again: {why})", self.reading),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn feed(condition: &mut Condition, readings: &str, from_s: u64) -> Vec<Phase> {
        let seconds = (from_s..).map(Duration::from_secs);
        let step = |(reading, now): (char, Duration)| {
            let text = now.as_secs().to_string();
            let reading = match reading {
                'g' => Reading::Good(text),
                'b' => Reading::Bad(text),
                _ => Reading::NotTaken("late".to_owned()),
            };
            condition.feed(reading, now);
            condition.phase()
        };
        readings.chars().zip(seconds).map(step).collect()
    }

    #[test]
    fn it_is_met_after_rise_good_readings_in_a_row() {
        use Phase::{Met, Starting};
        let mut condition = Condition::new(3, 2, Duration::ZERO);
        assert_eq!(feed(&mut condition, "ggbggg", 1), [Starting, Starting, Starting, Starting, Starting, Met]);
        assert_eq!((condition.since(), condition.reading().as_str()), (Duration::from_secs(6), "6"));
    }

    #[test]
    fn it_is_unmet_after_fall_bad_readings_in_a_row() {
        use Phase::{Met, Unmet};
        let mut condition = Condition::new(1, 3, Duration::ZERO);
        assert_eq!(feed(&mut condition, "gbbgbbb", 1), [Met, Met, Met, Met, Met, Met, Unmet]);
        assert_eq!(condition.since(), Duration::from_secs(7));
        assert_eq!(feed(&mut condition, "bg", 8), [Unmet, Met]);
    }

    #[test]
    fn bad_readings_before_it_was_ever_met_are_a_start_and_no_fall() {
        let mut condition = Condition::new(1, 1, Duration::ZERO);
        assert_eq!(feed(&mut condition, "bbbbb", 1), [Phase::Starting; 5]);
        assert_eq!((condition.since(), condition.reading().as_str()), (Duration::ZERO, "5"));
    }

    #[test]
    fn a_reading_that_was_not_taken_keeps_the_value_and_interrupts_no_row() {
        use Phase::{Met, Unmet};
        let mut condition = Condition::new(1, 2, Duration::ZERO);
        assert_eq!(feed(&mut condition, "g????", 1), [Met; 5]);
        assert_eq!(condition.reading(), "1 (kept; could not look again: late)");
        assert_eq!(feed(&mut condition, "b?b", 6), [Met, Met, Unmet]);
        assert_eq!(condition.reading(), "8");
    }

    #[test]
    fn before_the_first_reading_it_says_so() {
        let condition = Condition::new(0, 0, Duration::from_secs(9));
        assert_eq!((condition.phase(), condition.since()), (Phase::Starting, Duration::from_secs(9)));
        assert_eq!(condition.reading(), "not probed yet");
    }
}
