//! The play: what the agent would say, scene by scene, and what the service does.
//!
//! ```text
//! STOPPED, twice                          A5
//! ACTIVE, work, silence, two looks        A1, A2     a look is an ACTIVE whose deadline has passed: it gives no right
//! ACTIVE, work, QUIESCE, STOPPED          A1, A4, A6
//! an ACTIVE from before that QUIESCE      A8
//! ACTIVE under an older token             A3
//! ACTIVE, work, a higher token installed  A3         with --sql only
//! ```

use std::time::{Duration, Instant};

use handover_proto::ids::InstanceId;

use super::findings::Findings;
use super::judge::judge;
use super::processes::{Family, family, instance, listener};
use super::seen::{Fence, Quiesce, Reply, Seen, Silence, Stale};
use super::sql::Sql;
use super::talk::{BadUrl, Place, Says, Talk, place};
use crate::lease::clock::{ClockError, boot_now, identity, wall_ms};
use crate::lease::deadline::{Boot, Deadlines};
use crate::lease::record::{Ack, AckState, Told};

/// From a renewal to the soft deadline: several renewals, and a scene stays short.
const SOFT: Duration = Duration::from_secs(2);
/// From one renewal to the next.
const RENEW: Duration = Duration::from_millis(100);
/// A service on the same host answers within it, also if it has to install a token.
const ANSWER: Duration = Duration::from_secs(5);
/// How long is looked for work that should not be: at least this, and three of its own units.
const SETTLE: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(10));
/// Units that are not declared are taken for so long.
const C_UNIT: Duration = Duration::from_secs(2);
/// Late by so much is a matter of two clocks readings and a busy machine, not of the service.
const SLACK: Duration = Duration::from_millis(200);

/// What to play, and to whom.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Where the service takes its calls.
    pub url: String,
    /// What it knows itself as; none: as its environment says.
    pub instance: Option<InstanceId>,
    /// Its main process; none: whoever listens there.
    pub pid: Option<i32>,
    /// Longest wait for its first two units of work.
    pub work: Duration,
    /// Its database.
    pub sql: Option<Sql>,
}

/// The play could not begin.
#[derive(Debug, thiserror::Error)]
pub enum PlayError {
    /// The URL.
    #[error(transparent)]
    Url(#[from] BadUrl),
    /// The clock.
    #[error(transparent)]
    Clock(#[from] ClockError),
    /// Records are addressed.
    #[error("the service's instance id is not known ({0}); give the one that it was started with: --instance ID")]
    NoInstance(String),
    /// Nobody there.
    #[error("the service does not answer: {0}")]
    Away(String),
}

/// Plays, and judges.
///
/// # Errors
/// [`PlayError`], before anything was tried.
pub async fn play(plan: &Plan) -> Result<Findings, PlayError> {
    let place = place(&plan.url)?;
    let pid = plan.pid.map_or_else(|| listener(place.app), Ok);
    let known = plan.instance.clone().or_else(|| instance(*pid.as_ref().ok()?));
    let why = || pid.as_ref().err().cloned().unwrap_or_else(|| "its process has no HANDOVER_INSTANCE".to_owned());
    let instance = known.ok_or_else(|| PlayError::NoInstance(why()))?;
    let mut stage = Stage::new(plan, place, instance, pid)?;
    stage.greet().await?;
    if let Err(why) = stage.scenes().await {
        stage.seen.broke_off = Some(why);
    }
    // Whatever it still does, it is not to go on doing it.
    drop(stage.tell(Told::Stopped, None, None).await);
    Ok(judge(&stage.seen))
}

struct Stage {
    talk: Talk,
    pid: Result<i32, String>,
    work: Duration,
    sql: Option<Sql>,
    /// The next turn's token.
    token: u64,
    c_unit: Duration,
    /// Of the last record that gave a right.
    until: Option<Deadlines>,
    seen: Seen,
}

impl Stage {
    fn new(plan: &Plan, place: Place, instance: InstanceId, pid: Result<i32, String>) -> Result<Self, PlayError> {
        Ok(Self {
            talk: Talk::new(place, instance, identity()?)?,
            pid,
            work: plan.work,
            sql: plan.sql.clone(),
            // Grows from run to run, so that the tokens of an earlier one are in nobody's way.
            token: wall_ms() / 100,
            c_unit: C_UNIT,
            until: None,
            seen: Seen { settle: SETTLE.0, ..Seen::default() },
        })
    }

    async fn greet(&mut self) -> Result<(), PlayError> {
        let first = self.tell(Told::Stopped, None, None).await;
        if let Err(why) = &first {
            return Err(PlayError::Away(why.clone()));
        }
        if let Ok(ack) = &first {
            let stored = ack.stored_token.as_ref().and_then(|token| token.parse::<u64>().ok());
            self.token = self.token.max(stored.map_or(0, |stored| stored + 10));
            self.seen.c_unit = ack.c_unit_ms.map(Duration::from_millis);
        }
        self.c_unit = self.seen.c_unit.unwrap_or(C_UNIT);
        self.seen.settle = (2 * self.c_unit).clamp(SETTLE.0, SETTLE.1);
        tokio::time::sleep(self.seen.settle).await;
        self.seen.greeting = Some((first, self.tell(Told::Stopped, None, None).await));
        Ok(())
    }

    /// The scenes after the greeting.
    ///
    /// # Errors
    /// Why the rest makes no sense.
    async fn scenes(&mut self) -> Result<(), String> {
        let first_token = self.silence().await?;
        let (quiesced, done) = self.quiesce().await?;
        self.stale(quiesced, done).await;
        self.seen.older = Some(self.tell(Told::Active, Some(first_token), Some(right(self.c_unit)?)).await);
        drop(self.tell(Told::Stopped, None, None).await);
        self.fence().await
    }

    async fn tell(&mut self, told: Told, token: Option<u64>, until: Option<Deadlines>) -> Reply {
        self.talk.tell(Says { told, token, until }, ANSWER).await
    }

    /// A new turn, until it has ended two units: its token, and the last answer.
    async fn begin(&mut self) -> Result<(u64, Ack), String> {
        self.token += 10;
        let token = self.token;
        let mut last = self.renew(token).await?;
        self.seen.stored.push((token, last.stored_token.clone()));
        let begun = Instant::now();
        let mut ends: Vec<Instant> = Vec::new();
        while ends.len() < 2 {
            tokio::time::sleep(RENEW).await;
            let before = last;
            last = self.renew(token).await?;
            if last.progress > before.progress {
                ends.push(Instant::now());
            }
            let blind = last.progress.is_none() && begun.elapsed() > SOFT;
            let stuck = last.in_flight > 0 && ends.is_empty() && begun.elapsed() > 2 * self.c_unit + SETTLE.0;
            if blind || stuck {
                return Ok((token, last));
            }
            if begun.elapsed() > self.work {
                return Err(format!("it ended no two units of work within {:?} of ACTIVE; give it work", self.work));
            }
        }
        if let [one, other] = ends[..] {
            self.seen.settle = self.seen.settle.max(3 * (other - one)).min(SETTLE.1);
        }
        Ok((token, last))
    }

    async fn renew(&mut self, token: u64) -> Result<Ack, String> {
        let until = right(self.c_unit)?;
        let ack = self.tell(Told::Active, Some(token), Some(until)).await?;
        self.until = Some(until);
        match ack.state {
            AckState::Started => Ok(ack),
            state => Err(format!("told ACTIVE under token {token}, it answered {state:?}: {}", ack.detail)),
        }
    }

    async fn silence(&mut self) -> Result<u64, String> {
        let (token, _) = self.begin().await?;
        let until = self.until;
        sleep_until(until.map(|until| until.hard.plus(SLACK))).await?;
        let first = self.look(token, until).await;
        tokio::time::sleep(self.seen.settle).await;
        let second = self.look(token, until).await;
        let hangs = [&first, &second].iter().any(|reply| reply.as_ref().map_or(true, |ack| ack.in_flight > 0));
        self.seen.silence = Some(Silence { first, second });
        if hangs { Err("a unit hangs beyond the hard deadline (A2)".to_owned()) } else { Ok(token) }
    }

    /// How far it is. An ACTIVE whose deadline has passed gives no right, and takes none away.
    async fn look(&mut self, token: u64, until: Option<Deadlines>) -> Reply {
        self.talk.tell(Says { told: Told::Active, token: Some(token), until }, self.c_unit + SETTLE.0).await
    }

    /// The number of the QUIESCE, and how many units had ended by the end of the scene.
    async fn quiesce(&mut self) -> Result<(u64, Option<u64>), String> {
        let family = self.family();
        let (token, before) = self.begin().await?;
        let until = self.until;
        let limit = until.map_or(ANSWER, |until| boot_now().map_or(ANSWER, |now| until.hard.since(now)));
        let answer = self.talk.tell(Says { told: Told::Quiesce, token: Some(token), until }, limit).await;
        let number = self.talk.seq;
        let obeyed = answer.is_ok();
        let installed = self.sql.as_ref().filter(|_| obeyed).map(|sql| sql.install(token + 1));
        tokio::time::sleep(self.seen.settle).await;
        if obeyed {
            self.seen.leaked = Some(family.and_then(|before| self.leaked(&before)));
        }
        let after = self.tell(Told::Stopped, None, None).await;
        let done = after.as_ref().ok().and_then(|ack| ack.progress);
        self.seen.quiesce = Some(Quiesce { before, answer, after, installed });
        if obeyed { Ok((number, done)) } else { Err("QUIESCE was not answered (A4)".to_owned()) }
    }

    fn family(&self) -> Result<Family, String> {
        self.pid.clone().and_then(family)
    }

    fn leaked(&self, before: &Family) -> Result<Vec<String>, String> {
        let now = self.family()?;
        Ok(now.into_iter().filter(|(key, _)| !before.contains_key(key)).map(|(_, name)| name).collect())
    }

    async fn stale(&mut self, quiesced: u64, before: Option<u64>) {
        let says = Says { told: Told::Active, token: Some(self.token), until: right(self.c_unit).ok() };
        let answer = self.talk.tell_as(quiesced - 1, says, ANSWER).await;
        tokio::time::sleep(self.seen.settle).await;
        let after = self.tell(Told::Stopped, None, None).await;
        self.seen.stale = Some(Stale { answer, before, after });
    }

    async fn fence(&mut self) -> Result<(), String> {
        let Some(sql) = self.sql.clone() else { return Ok(()) };
        let (token, _) = self.begin().await?;
        let installed = sql.install(token + 1);
        // One unit may have passed its check before.
        tokio::time::sleep(self.c_unit + SLACK).await;
        let first = self.tell(Told::Active, Some(token), Some(right(self.c_unit)?)).await;
        tokio::time::sleep(self.seen.settle.min(SOFT - SLACK)).await;
        let second = self.tell(Told::Active, Some(token), Some(right(self.c_unit)?)).await;
        self.token += 10;
        self.seen.fence = Some(Fence { installed, first, second });
        Ok(())
    }
}

fn right(c_unit: Duration) -> Result<Deadlines, String> {
    let soft = boot_now().map_err(|error| error.to_string())?.plus(SOFT);
    Ok(Deadlines { soft, hard: soft.plus(c_unit) })
}

async fn sleep_until(moment: Option<Boot>) -> Result<(), String> {
    let now = boot_now().map_err(|error| error.to_string())?;
    tokio::time::sleep(moment.map_or(Duration::ZERO, |moment| moment.since(now))).await;
    Ok(())
}
