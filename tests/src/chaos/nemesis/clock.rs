//! N10: the wall clock of one host jumps, or runs at another rate. libfaketime shows it to agent and service; deadlines count
//! on another clock. That one at another rate is the simulator's business: libfaketime cannot show it to a whole host.

use anyhow::{Context, Result, bail};

use super::process::RESUME;
use super::{Deed, Scene, Undo};
use crate::chaos::site::Site;

/// Debian's, for programs with threads.
const LIBRARY: &str = "/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1";

/// Variables under which a program reads its wall clock's error from a file.
pub fn env(file: &std::path::Path) -> Vec<(String, String)> {
    let pairs = [
        ("LD_PRELOAD", LIBRARY.to_owned()),
        ("FAKETIME_TIMESTAMP_FILE", file.display().to_string()),
        ("FAKETIME_NO_CACHE", "1".to_owned()),
        ("DONT_FAKE_MONOTONIC", "1".to_owned()),
    ];
    pairs.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}

/// Moves the clock of the holder's host.
///
/// # Errors
/// If the site was not started with movable clocks.
pub fn step(scene: &mut Scene<'_>, seconds: i64) -> Result<(Deed, Undo)> {
    show(scene, &moved(seconds), &format!("moves the wall clock by {seconds} s"))
}

/// Lets the clock of the holder's host run too fast by this part.
///
/// # Errors
/// If the site was not started with movable clocks.
pub fn slew(scene: &mut Scene<'_>, percent: i8) -> Result<(Deed, Undo)> {
    let rate = 1.0 + f64::from(percent) / 100.0;
    show(scene, &format!("+0 x{rate:.2}"), &format!("lets the wall clock run {rate:.2} times as fast"))
}

fn show(scene: &mut Scene<'_>, clock: &str, what: &str) -> Result<(Deed, Undo)> {
    let holder = scene.holder();
    if !scene.site.shared.clocks {
        bail!("the site's clocks cannot be moved");
    }
    write(scene.site, holder, clock)?;
    let what = format!("{what} at {}", scene.name(holder));
    Ok((Deed { what, after: RESUME, ..Deed::default() }, Undo::SetClock(holder)))
}

fn moved(seconds: i64) -> String {
    format!("{seconds:+}")
}

/// Sets a host's clock right.
///
/// # Errors
/// If the file cannot be written.
pub fn set_right(site: &Site, host: usize) -> Result<()> {
    write(site, host, &moved(0))
}

fn write(site: &Site, host: usize, clock: &str) -> Result<()> {
    let file = site.hosts[host].clock_file();
    let new = file.with_extension("new");
    std::fs::write(&new, format!("{clock}\n"))?;
    std::fs::rename(&new, &file).with_context(|| format!("cannot write {}", file.display()))
}
