//! Whether a holder's service hangs (`SAFETY.md` F4, F14): it answers nothing, or says that units are under way and gets on
//! with none.
//!
//! Hanging is never concluded from time alone: an agent that stood still itself would take everybody for dead. It takes
//! several questions in vain, and time counts from the last sign of life *or* from when this host was last in doubt.

use std::time::Duration;

use super::deadline::Boot;
use super::record::Ack;

/// One question in vain may be the fault of whoever asked, and the last one may still be under way.
const IN_VAIN: u32 = 3;

/// Signs of life of one service.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Pulse {
    /// The last sign of life.
    since: Boot,
    progress: Option<u64>,
    /// Answers in a row without progress and with units under way.
    idle_answers: u32,
    /// Questions in a row without any answer so far.
    unanswered: u32,
}

/// How a service hangs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Hang {
    /// No answer.
    #[error("its service has not answered for {0:?}")]
    Silent(Duration),
    /// Answers, and no progress.
    #[error("its service has units under way and has made no progress for {0:?}")]
    Stuck(Duration),
}

impl Pulse {
    /// Counts from here on: the service is told something new, or this host was away.
    pub fn restart(&mut self, now: Boot) {
        *self = Self { since: now, progress: self.progress, ..Self::default() };
    }

    /// The service answered.
    pub fn answered(&mut self, ack: &Ack, now: Boot) {
        let counted = ack.progress.is_some() && ack.progress == self.progress;
        self.unanswered = 0;
        if ack.in_flight > 0 && counted {
            self.idle_answers = self.idle_answers.saturating_add(1);
        } else {
            // A service that does not count its units lives as long as it answers.
            *self = Self { since: now, progress: ack.progress, ..Self::default() };
        }
    }

    /// It is asked, by a call that it has to answer.
    pub fn asked(&mut self) {
        self.unanswered = self.unanswered.saturating_add(1);
    }

    /// Whether it hangs: for `limit` there has been no sign of life.
    pub fn hang(&self, limit: Duration, now: Boot) -> Option<Hang> {
        let quiet = now.since(self.since);
        if quiet < limit {
            None
        } else if self.unanswered >= IN_VAIN {
            Some(Hang::Silent(quiet))
        } else if self.idle_answers >= IN_VAIN {
            Some(Hang::Stuck(quiet))
        } else {
            None
        }
    }

    /// When it is to be judged next.
    pub fn judged_at(&self, limit: Duration) -> Boot {
        self.since.plus(limit)
    }
}

#[cfg(test)]
mod tests {
    use super::super::record::AckState;
    use super::*;

    const LIMIT: Duration = Duration::from_secs(10);

    fn at(ms: u64) -> Boot {
        Boot::from_ns(ms * 1_000_000)
    }

    fn ack(in_flight: u64, progress: Option<u64>) -> Ack {
        Ack { in_flight, progress, ..Ack::new(None, 1, AckState::Started) }
    }

    fn begun() -> Pulse {
        let mut pulse = Pulse::default();
        pulse.restart(at(1_000));
        pulse.answered(&ack(1, Some(7)), at(2_000));
        pulse
    }

    #[test]
    fn a_service_that_answers_nothing_hangs_after_the_limit_counted_from_its_last_answer() {
        let mut pulse = begun();
        (0..8).for_each(|_| pulse.asked());
        assert_eq!(pulse.hang(LIMIT, at(11_999)), None);
        assert_eq!(pulse.hang(LIMIT, at(12_000)), Some(Hang::Silent(LIMIT)));
        pulse.answered(&ack(0, Some(7)), at(12_000));
        assert_eq!(pulse.hang(LIMIT, at(21_999)), None, "it thawed in time");
    }

    #[test]
    fn a_service_with_units_under_way_hangs_if_their_count_stands_still() {
        let mut pulse = begun();
        (3..12).for_each(|s| pulse.answered(&ack(1, Some(7)), at(s * 1_000)));
        assert_eq!(pulse.hang(LIMIT, at(12_000)), Some(Hang::Stuck(LIMIT)));
        pulse.answered(&ack(1, Some(8)), at(12_000));
        assert_eq!(pulse.hang(LIMIT, at(12_000)), None);
    }

    #[test]
    fn a_service_without_work_or_without_a_count_lives_as_long_as_it_answers() {
        for quiet in [ack(0, Some(7)), ack(0, None), ack(3, None)] {
            let mut pulse = begun();
            (3..60).for_each(|s| pulse.answered(&quiet, at(s * 1_000)));
            assert_eq!(pulse.hang(LIMIT, at(60_000)), None, "{quiet:?}");
        }
    }

    #[test]
    fn an_agent_that_stood_still_itself_takes_nobody_for_dead() {
        let mut pulse = begun();
        assert_eq!(pulse.hang(LIMIT, at(60_000)), None, "nobody was asked");
        pulse.asked();
        pulse.asked();
        assert_eq!(pulse.hang(LIMIT, at(60_000)), None, "the questions may have stood still with the agent");
        pulse.asked();
        pulse.restart(at(60_000));
        (0..8).for_each(|_| pulse.asked());
        assert_eq!(pulse.hang(LIMIT, at(69_999)), None, "counted anew once the pause is known");
        assert_eq!(pulse.hang(LIMIT, at(70_000)), Some(Hang::Silent(LIMIT)));
    }

    #[test]
    fn a_frozen_count_is_known_across_a_pause() {
        let mut pulse = begun();
        pulse.restart(at(5_000));
        (6..15).for_each(|s| pulse.answered(&ack(1, Some(7)), at(s * 1_000)));
        assert_eq!(pulse.hang(LIMIT, at(14_999)), None);
        assert_eq!(pulse.hang(LIMIT, at(15_000)), Some(Hang::Stuck(LIMIT)));
        assert_eq!(pulse.judged_at(LIMIT), at(15_000));
    }
}
