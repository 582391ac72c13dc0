use super::*;

const MS: u64 = 1_000_000;

/// A host whose clocks a test moves.
struct Clocks {
    vigil: Vigil,
    now: Reading,
}

impl Clocks {
    fn watched() -> Self {
        let now = Reading { boot: Boot::from_ns(90_000 * MS), awake_ns: 80_000 * MS, wall_ns: 1_700_000_000_000 * MS };
        let mut clocks = Self { vigil: Vigil::default(), now };
        clocks.vigil.watch(true);
        assert_eq!(clocks.look(), None, "one look compares with nothing");
        clocks
    }

    fn look(&mut self) -> Option<Suspicion> {
        self.vigil.look(self.now)
    }

    /// Time passes on each clock, in milliseconds.
    fn pass(&mut self, boot: u64, monotonic: u64, wall: i64) -> &mut Self {
        self.now.boot = self.now.boot.plus(Duration::from_millis(boot));
        self.now.awake_ns += monotonic * MS;
        self.now.wall_ns = self.now.wall_ns.saturating_add_signed(wall * 1_000_000);
        self
    }
}

#[test]
fn ticks_that_come_in_time_are_not_suspicious_even_if_some_are_missed() {
    let mut clocks = Clocks::watched();
    for ms in [50, 51, 49, 120, 499, 500] {
        assert_eq!(clocks.pass(ms, ms, 0).look(), None, "{ms}: the wall clock may stand still as long");
        clocks.pass(0, 0, i64::try_from(ms).expect("small"));
        assert_eq!(clocks.look(), None);
    }
}

#[test]
fn a_suspend_is_seen_by_the_clock_that_goes_on_meanwhile() {
    let mut clocks = Clocks::watched();
    let slept = Duration::from_secs(30);
    assert_eq!(clocks.pass(30_050, 50, 30_050).look(), Some(Suspicion::Suspended(slept)));
    assert_eq!(clocks.pass(50, 50, 50).look(), None, "once");
    assert_eq!(clocks.pass(90, 50, 90).look(), Some(Suspicion::Suspended(Duration::from_millis(40))), "however short");
    assert_eq!(clocks.pass(60, 50, 60).look(), None, "less is the time between two readings");
}

#[test]
fn a_stopped_or_starved_agent_is_seen_by_the_gap_between_two_looks() {
    let mut clocks = Clocks::watched();
    assert_eq!(clocks.pass(501, 501, 501).look(), Some(Suspicion::Stalled(Duration::from_millis(501))));
    assert_eq!(clocks.pass(60_000, 60_000, 60_000).look(), Some(Suspicion::Stalled(Duration::from_secs(60))));
}

#[test]
fn a_step_of_the_wall_clock_is_seen_in_either_direction() {
    let mut clocks = Clocks::watched();
    let stepped = |ms| Some(Suspicion::Stepped(Duration::from_millis(ms)));
    assert_eq!(clocks.pass(50, 50, 551).look(), stepped(501));
    assert_eq!(clocks.pass(50, 50, 50 - 3_600_000).look(), stepped(3_600_000));
    assert_eq!(clocks.pass(50, 50, 50 - 500).look(), None, "up to half a second is not enough");
}

#[test]
fn slewing_at_the_fastest_rate_is_not_suspicious() {
    let mut clocks = Clocks::watched();
    for _ in 0..2_000 {
        assert_eq!(clocks.pass(50, 50, 54).look(), None);
    }
}

#[test]
fn a_clock_that_goes_backwards_does_not_wrap_around() {
    let mut clocks = Clocks::watched();
    clocks.now.boot = clocks.now.boot.minus(Duration::from_secs(3));
    clocks.now.awake_ns -= 3_000 * MS;
    assert_eq!(clocks.look(), None, "the wall clock seems to have moved by nothing");
    clocks.now.wall_ns = 0;
    assert!(matches!(clocks.look(), Some(Suspicion::Stepped(_))));
}

#[test]
fn while_nobody_watches_time_may_pass_as_it_likes() {
    let mut clocks = Clocks::watched();
    clocks.vigil.watch(false);
    assert_eq!(clocks.pass(60_000, 0, 0).look(), None);
    clocks.vigil.watch(true);
    assert_eq!(clocks.pass(60_000, 0, 0).look(), None, "the first look after it compares with nothing");
    clocks.vigil.watch(true);
    assert_eq!(clocks.pass(60_000, 60_000, 60_000).look(), Some(Suspicion::Stalled(Duration::from_secs(60))));
}
