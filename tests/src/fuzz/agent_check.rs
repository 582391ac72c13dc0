//! HAProxy's agent-check, in and out. An input is a first byte (even: one target, odd: two slots) and then moves, one to
//! three bytes each, of two HAProxies, an operator and the agent. At the end both HAProxies go on asking.
//!
//! What must hold: an answer is `drain` or `up N%`, with `ready` only where our own drain stands; so an operator's drain
//! survives. A drain is told to one who knows of a target that serves (`SAFETY.md` R8), or has never asked about one. What counts as known is what every
//! HAProxy that asks was told last. Whoever goes on asking ends with what was meant, and nothing of ours is left behind,
//! however often the agent dies. What is asked for is the first line, whatever the pieces in which it comes.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

use handover_agent::balancer::agent_check::askers::Askers;
use handover_agent::balancer::agent_check::{SEND_LIMIT_BYTES, answer, asked, wants_more};
use handover_agent::core::front::{Target, Wish, Wishes};

use super::{Outcome, must};

const SETTLE: Duration = Duration::from_secs(5);

/// The code that is judged.
#[derive(Clone, Copy)]
pub struct Subject {
    /// The line for a wish, and whether our own drain is to be undone.
    pub answer: fn(Wish, bool) -> String,
    /// What was asked for.
    pub asked: fn(&[u8], &Wishes) -> Option<Target>,
}

/// As it is shipped.
pub const REAL: Subject = Subject { answer, asked };

/// The property.
///
/// # Errors
/// What is broken.
pub fn check(data: &[u8], subject: &Subject) -> Outcome {
    let (first, moves) = data.split_first().unwrap_or((&0, &[]));
    let slot = |name: &str| name.parse().map(Target::Slot).map_err(|error| format!("{error}"));
    let targets = if first.is_multiple_of(2) { vec![Target::Host] } else { vec![slot("a")?, slot("b")?] };
    is_named(moves, &targets, subject)?;
    let mut world = World { targets, subject: *subject, ..World::new() };
    let mut bytes = moves.iter().copied();
    while let Some(byte) = bytes.next() {
        let mut more = || bytes.next().unwrap_or(0);
        match byte % 8 {
            0 => world.tell(more(), more()),
            1 => world.now += Duration::from_millis(u64::from(more()) * 100),
            2 => world.now += Duration::from_secs(u64::from(more())),
            3 => world.operator(more(), true),
            4 => world.operator(more(), false),
            5 => world.agent_dies(),
            _ => world.ask(byte >> 3)?,
        }
        world.knows_what_it_says()?;
    }
    world.comes_to_an_end()
}

/// The moves, taken for what `agent-send` sent, whole and in pieces.
fn is_named(sent: &[u8], targets: &[Target], subject: &Subject) -> Outcome {
    let wishes: Wishes = targets.iter().map(|target| (target.clone(), Wish::Drain)).collect();
    let mut read = Vec::new();
    for piece in sent.chunks(usize::from(sent.first().copied().unwrap_or(0) % 7) + 1) {
        if !wants_more(&read) {
            break;
        }
        read.extend_from_slice(piece);
    }
    let (whole, pieces) = ((subject.asked)(sent, &wishes), (subject.asked)(&read, &wishes));
    must!(whole == pieces, "{} asks for {whole:?}, in pieces for {pieces:?}", sent.escape_ascii());
    let line = sent.split(|byte| matches!(byte, b'\n' | b'\r')).next().unwrap_or_default();
    let name = std::str::from_utf8(line).unwrap_or_default().trim().to_owned();
    let named = |target: &&Target| matches!(target, Target::Slot(slot) if slot.as_str() == name);
    let short = line.len() < SEND_LIMIT_BYTES;
    let meant = if targets.len() == 1 { targets.first() } else { targets.iter().find(named).filter(|_| short) };
    must!(whole.as_ref() == meant, "{} asks for {whole:?}, meant is {meant:?}", sent.escape_ascii());
    Ok(())
}

/// A server line of one HAProxy.
#[derive(Debug, Clone, Copy, Default)]
struct Line {
    drained: bool,
    /// The drain is an operator's alone.
    by_operator: bool,
    told: Option<(Wish, Duration)>,
}

struct World {
    targets: Vec<Target>,
    subject: Subject,
    now: Duration,
    wishes: Option<Wishes>,
    since: Duration,
    askers: Askers,
    /// The agent's durable record: where our drain stands.
    ours: BTreeSet<(Target, IpAddr)>,
    lines: BTreeMap<(Target, IpAddr), Line>,
}

impl World {
    fn new() -> Self {
        Self {
            targets: Vec::new(),
            subject: REAL,
            now: Duration::from_secs(1000),
            wishes: None,
            since: Duration::ZERO,
            askers: Askers::default(),
            ours: BTreeSet::new(),
            lines: BTreeMap::new(),
        }
    }

    fn at(&self, which: u8) -> (Target, IpAddr) {
        let target = self.targets.get(usize::from(which) % self.targets.len().max(1)).cloned();
        (target.unwrap_or(Target::Host), IpAddr::from([10, 0, 0, 1 + (which >> 1) % 2]))
    }

    fn tell(&mut self, first: u8, second: u8) {
        let wish =
            |byte: u8| if byte.is_multiple_of(3) { Wish::Drain } else { Wish::Serve { percent: byte % 100 + 1 } };
        let wishes = self.targets.iter().cloned().zip([wish(first), wish(second)]).collect();
        if self.wishes.as_ref() != Some(&wishes) {
            self.since = self.now;
        }
        self.askers.tell(&wishes, self.now);
        self.wishes = Some(wishes);
    }

    fn operator(&mut self, which: u8, drain: bool) {
        let at = self.at(which);
        let by_operator = drain && !self.ours.contains(&at);
        let line = self.lines.entry(at).or_default();
        (line.drained, line.by_operator) = (drain, by_operator && (!line.drained || line.by_operator));
    }

    /// The next agent has the record and the assignment, and nobody has asked it yet.
    fn agent_dies(&mut self) {
        self.askers = Askers::default();
        self.lines.values_mut().for_each(|line| line.told = None);
        if let Some(wishes) = &self.wishes {
            self.askers.tell(wishes, self.now);
            self.since = self.now;
        }
    }

    /// One poll of one HAProxy, as `agent_check` serves it.
    fn ask(&mut self, which: u8) -> Outcome {
        let at = self.at(which);
        let Some(wishes) = self.wishes.clone() else { return Ok(()) };
        let wish = self.askers.wish(&at.0, at.1, SETTLE, self.now).ok_or("there are wishes, and no answer")?;
        let serves = |(target, wish): (&Target, &Wish)| {
            *wish != Wish::Drain
                && self.lines.get(&(target.clone(), at.1)).and_then(|line| line.told).map(|told| told.0) == Some(*wish)
        };
        let needed = wishes.values().any(|wish| *wish != Wish::Drain);
        let before = self.lines.get(&at).copied().unwrap_or_default();
        let news = before.told.is_some_and(|(told, _)| told != Wish::Drain);
        // One that has had the time to ask about another, and never has, is told all the same.
        let asked = |(target, wish): (&Target, &Wish)| {
            *wish != Wish::Drain && self.lines.get(&(target.clone(), at.1)).is_some_and(|line| line.told.is_some())
        };
        let asks_for_no_other = self.now >= self.since + SETTLE && !wishes.iter().any(asked);
        must!(
            wish != Wish::Drain || !news || !needed || asks_for_no_other || wishes.iter().any(serves),
            "{at:?} is drained before another serves"
        );
        let drained = self.ours.contains(&at);
        if wish == Wish::Drain {
            self.ours.insert(at.clone());
        }
        let said = (self.subject.answer)(wish, drained);
        let mut line = Line { told: Some((wish, self.now)), ..before };
        obey(&mut line, &said)?;
        must!(!before.by_operator || wish == Wish::Drain || line.drained, "{said:?} undoes an operator's drain");
        must!(
            line.drained == (wish == Wish::Drain || before.by_operator || (before.drained && !drained)),
            "{said:?} for {wish:?} leaves {line:?}"
        );
        self.lines.insert(at.clone(), line);
        if self.askers.answered(at.clone(), wish, drained, SETTLE, self.now) {
            self.ours.remove(&at);
        }
        Ok(())
    }

    fn knows_what_it_says(&self) -> Outcome {
        let Ok(Some(known)) = self.askers.known(SETTLE, self.now) else { return Ok(()) };
        must!(Some(&known) == self.wishes.as_ref(), "{known:?} counts as known, not {:?}", self.wishes);
        must!(self.now >= self.since + SETTLE, "known before everybody can have asked");
        for (at, line) in &self.lines {
            let Some((told, when)) = line.told.filter(|(_, when)| *when + Duration::from_secs(60) > self.now) else {
                continue;
            };
            must!(
                known.get(&at.0) == Some(&told),
                "{at:?} was told {told:?} at {when:?}, and {known:?} counts as known"
            );
        }
        Ok(())
    }

    fn comes_to_an_end(&mut self) -> Outcome {
        let Some(wishes) = self.wishes.clone() else { return Ok(()) };
        for _ in 0..10 {
            self.now += Duration::from_secs(2);
            for which in 0..4 {
                self.ask(which)?;
            }
        }
        let known = self.askers.known(SETTLE, self.now);
        must!(known == Ok(Some(wishes.clone())), "everybody asks, and it ends with {known:?}");
        for (at, line) in &self.lines {
            let drain = wishes.get(&at.0) == Some(&Wish::Drain);
            must!(!drain || line.drained, "{at:?} is not drained");
            must!(drain || !self.ours.contains(at), "the drain at {at:?} is remembered for ever");
            must!(drain || !line.drained || line.by_operator, "{at:?} stays drained for ever");
        }
        Ok(())
    }
}

/// What HAProxy does with each word.
fn obey(line: &mut Line, said: &str) -> Outcome {
    let words: Vec<&str> = said.strip_suffix('\n').ok_or("an answer ends with its line")?.split(' ').collect();
    let share =
        |word: &str| word.strip_suffix('%').and_then(|n| n.parse::<u8>().ok()).is_some_and(|n| (1..=100).contains(&n));
    match words[..] {
        // From here on HAProxy has one flag for both.
        ["drain"] => (line.drained, line.by_operator) = (true, false),
        ["up", percent] if share(percent) => {}
        ["up", "ready", percent] if share(percent) => (line.drained, line.by_operator) = (false, false),
        _ => return Err(format!("{said:?} is no answer of ours")),
    }
    Ok(())
}
