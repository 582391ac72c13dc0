//! The dark window of planned hand-overs, beside what it cannot do without: a transaction that another client hears of,
//! and the service's own answers. All three are measured in turn, on the same store.

use std::time::Duration;

use anyhow::{Context, Result, bail};

use super::asker::{Asker, Moved};
use super::floor::Floor;
use super::row::{Aim, Row};
use super::service::{Answers, Service};
use super::site::Site;
use super::spread::Spread;
use super::{Found, Sizes};
use crate::fleet::StoreKind;
use crate::receipt::holders::{self, Interval};
use crate::receipt::rows;

const HOSTS: usize = 3;
/// Before each round, so that every part of it meets the same quiet.
const PAUSE: Duration = Duration::from_millis(20);
/// Aim for the median.
const DARK_MS: f64 = 10.0;
/// Aim: times the floor, the service's answers apart.
const FLOORS: u32 = 2;

pub(super) fn measure(sizes: &Sizes) -> Result<Found> {
    let mut rows = on(StoreKind::Embedded, "embedded store", sizes.handovers)?;
    match std::env::var_os("HANDOVER_TEST_ETCD") {
        Some(etcd) => rows.extend(on(StoreKind::Etcd(etcd.into()), "etcd", sizes.handovers)?),
        None => eprintln!("bench: not measured on etcd, because HANDOVER_TEST_ETCD does not name one"),
    }
    let heading = format!("handover: {} planned hand-overs on each store, {HOSTS} hosts", sizes.handovers);
    Ok(Found { heading, rows })
}

/// One round: floor, answers and hand-over, one after the other.
struct Round {
    floor: Duration,
    answers: Answers,
    moved: Moved,
}

fn on(store: StoreKind, name: &str, count: usize) -> Result<Vec<Row>> {
    let (rounds, windows) = rounds(&Site::start(HOSTS, store)?, count)?;
    print(name, &rounds, &windows)
}

/// What planned hand-overs cost, each part measured in turn.
pub(super) struct Planned {
    /// The dark windows.
    pub(super) dark: Spread,
    /// A transaction that another client hears of.
    pub(super) floor: Spread,
    /// The service's own answers.
    pub(super) answers: Spread,
}

/// Hands the lease of `site` over so many times.
pub(super) fn planned(site: &Site, count: usize) -> Result<Planned> {
    let (rounds, windows) = rounds(site, count)?;
    Ok(Planned {
        dark: Spread::of("the dark window", windows.iter().map(|window| window.dark))?,
        floor: Spread::of("the floor", rounds.iter().map(|round| round.floor))?,
        answers: Spread::of("the service's answers", rounds.iter().map(|round| round.answers.sum()))?,
    })
}

fn rounds(site: &Site, count: usize) -> Result<(Vec<Round>, Vec<Window>)> {
    let mut service = Service::start(&site.fleet)?;
    let rounds = site.runtime.block_on(async {
        let mut asker = Asker::new(site).await?;
        let mut floor = Floor::new(&site.fleet.stores()).await?;
        let mut rounds = Vec::new();
        // The first of each warms up and is not counted.
        for round in 0..=count {
            asker.rest(HOSTS - 1).await?;
            // Nothing of the last turn, of our own or at fixed times is under way more often than elsewhere.
            tokio::time::sleep(PAUSE + Duration::from_millis(rand::random_range(0..20))).await;
            let (floor, answers) = (floor.sample().await?, service.turn().await?);
            let moved = asker.hand_over().await?;
            rounds.extend((round > 0).then_some(Round { floor, answers, moved }));
        }
        anyhow::Ok(rounds)
    })?;
    let lines = rows::activity(&[&site.fleet.activity()])?;
    let intervals = holders::intervals(&lines);
    if let Some(overlap) = holders::check(&intervals, &lines).overlaps.first() {
        bail!("two held the right to schedule at once: {overlap:?}");
    }
    let windows = rounds.iter().map(|round| window(&intervals, round.moved)).collect::<Result<Vec<_>>>()?;
    Ok((rounds, windows))
}

/// Where a dark window went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Window {
    /// From the end of the old holder's right to the begin of the new one's.
    dark: Duration,
    /// Of it, until a watch told us of the new turn.
    until_shown: Duration,
    /// Of it, the rest.
    from_shown: Duration,
}

fn window(intervals: &[Interval], moved: Moved) -> Result<Window> {
    let at = intervals.iter().position(|interval| interval.token.as_i64() == moved.token.get());
    let at = at.filter(|at| *at > 0).with_context(|| format!("nobody worked under token {}", moved.token))?;
    let (before, after) = (&intervals[at - 1], &intervals[at]);
    Ok(Window {
        dark: after.from.since(before.to),
        until_shown: moved.shown.since(before.to),
        from_shown: after.from.since(moved.shown),
    })
}

fn print(name: &str, rounds: &[Round], windows: &[Window]) -> Result<Vec<Row>> {
    let spread = |what: &str, of: &dyn Fn(&Round) -> Duration| Spread::of(what, rounds.iter().map(of));
    let part = |what: &str, of: &dyn Fn(&Window) -> Duration| Spread::of(what, windows.iter().map(of));
    let floor = spread("the floor", &|round| round.floor)?;
    let answers = spread("the service's answers", &|round| round.answers.sum())?;
    let (quiesced, active) = (
        spread("QUIESCED", &|round| round.answers.quiesced)?.median(),
        spread("ACTIVE", &|round| round.answers.active)?.median(),
    );
    let dark = part("the dark window", &|window| window.dark)?;
    let shown = part("the dark window", &|window| window.until_shown)?.median();
    let rest = part("the dark window", &|window| window.from_shown)?.median();
    let measure = |what: &str| format!("{what}, {name}");
    let raw = "a transaction and its watch event";
    let mut rows = Vec::new();
    for (q, label, aim) in [(0.5, "p50", Some(Aim::AtMost(DARK_MS))), (0.99, "p99", None)] {
        let (dark, floor, answers) = (dark.quantile(q), floor.quantile(q), answers.quantile(q));
        let row = Row::span(measure(&format!("dark window {label}")), dark);
        rows.push(Row { aim, ..row.clone() }.beside_span(format!("{raw}, {label}"), floor));
        let allowed = format!("{FLOORS} × that + the service's answers, {label}");
        rows.push(row.beside_span(allowed, floor * FLOORS + answers).aim(Aim::Ratio(1.0)));
    }
    let spent = answers.median() + floor.median();
    rows.extend([
        Row::span(measure("its parts p50: QUIESCED → turn shown"), shown)
            .beside_span("answer after QUIESCE + the transaction", quiesced + floor.median()),
        Row::span(measure("its parts p50: turn shown → working"), rest)
            .beside_span("ACTIVE → working, asked directly", active),
        Row::span(measure("its parts p50: the agents' own"), dark.median().saturating_sub(spent))
            .beside_span("the whole dark window", dark.median()),
    ]);
    Ok(rows)
}

#[cfg(test)]
mod tests {
    use handover_proto::numbers::{Era, Token};

    use super::*;
    use crate::clock::BootNs;

    fn interval(token: i64, from: u64, to: u64) -> Interval {
        let token = crate::billing::contract::Token::try_from(token).expect("token");
        let (instance, version) = (format!("{token}"), "1.0.0".to_owned());
        Interval { instance, version, token, from: BootNs(from), to: BootNs(to), why: None }
    }

    fn moved(token: i64, shown: u64) -> Moved {
        Moved { token: Token::new(Era(0), token).expect("token"), shown: BootNs(shown) }
    }

    #[test]
    fn a_dark_window_is_split_where_the_store_showed_the_new_turn() {
        let intervals = [interval(5, 0, 100), interval(9, 160, 300), interval(12, 330, 400)];
        let ns = Duration::from_nanos;
        let expected = Window { dark: ns(60), until_shown: ns(25), from_shown: ns(35) };
        assert_eq!(window(&intervals, moved(9, 125)).expect("it worked"), expected);
        // We may hear of it after the new holder did, and after its work began.
        let expected = Window { dark: ns(30), until_shown: ns(40), from_shown: ns(0) };
        assert_eq!(window(&intervals, moved(12, 340)).expect("it worked"), expected);
    }

    #[test]
    fn a_turn_under_which_nobody_worked_is_an_error_and_no_number() {
        let error = window(&[interval(5, 0, 100)], moved(9, 125)).expect_err("nobody worked");
        assert!(error.to_string().contains('9'), "{error}");
        assert!(window(&[interval(5, 0, 100)], moved(5, 0)).is_err(), "there was no turn before it");
    }
}
