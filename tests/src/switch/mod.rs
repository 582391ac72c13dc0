//! The switch test: a real agent and a real gate in front of two real instances of the demo service, a crowd of every kind of
//! client, and traffic that moves from one instance to the other again and again while agents and gates are restarted.
//!
//! The demand: no request is lost, and no connection ends without its notice. A planted fault (the gate killed) must be found
//! by the same check.

pub mod course;
pub mod settings;
pub mod site;
mod verdict;

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::load::crowd::{Crowd, CrowdReceipt};

pub use course::{Course, Event};
pub use settings::Settings;
pub use site::{Jobs, Site};
pub use verdict::Verdict;

/// Every kind must have been answered in this time, before the first switch.
const WARM: Duration = Duration::from_secs(60);

/// Runs a course, with a crowd from before its beginning until after its end.
///
/// # Errors
/// If a program does not come up, or the fleet does not do what it is told in time; the logs are named.
pub fn run(settings: &Settings) -> Result<Verdict> {
    let mut site = Site::start(&settings.gate, Jobs::default())?;
    let crowd = Crowd::start(settings.crowd(site.gate))?;
    warm(&crowd, settings)?;
    if !crowd.receipt().is_clean() {
        bail!("something was lost before the first switch:\n{}", crowd.receipt());
    }
    let began = Instant::now();
    let mut notes = Vec::new();
    for event in settings.course.events() {
        let at = began.elapsed();
        event.happen(&mut site).with_context(|| format!("{event} at {:.3} s", at.as_secs_f64()))?;
        notes.push((at, event));
        std::thread::sleep(settings.pause);
    }
    let receipt = crowd.stop()?;
    let lost_jobs = site.lost_jobs()?;
    Ok(Verdict { receipt, events: notes, lost_jobs, took: began.elapsed(), course: settings.course })
}

/// Waits until every client kind has been answered.
fn warm(crowd: &Crowd, settings: &Settings) -> Result<()> {
    let end = Instant::now() + WARM;
    let begun = |receipt: &CrowdReceipt, kind| receipt.of(kind).answered + receipt.of(kind).pushed > 0;
    loop {
        let receipt = crowd.receipt();
        let Some(missing) = settings.kinds().into_iter().find(|kind| !begun(&receipt, *kind)) else { return Ok(()) };
        if Instant::now() >= end {
            bail!("{} is not answered:\n{receipt}", missing.as_str());
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}
