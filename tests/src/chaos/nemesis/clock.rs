//! N10: the wall clock of one host jumps. libfaketime shows it to agent and service; deadlines count on another clock.

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
    let holder = scene.holder();
    if !scene.site.shared.clocks {
        bail!("the site's clocks cannot be moved");
    }
    set(scene.site, holder, seconds)?;
    let what = format!("moves the wall clock of {} by {seconds} s", scene.name(holder));
    Ok((Deed { what, after: RESUME, ..Deed::default() }, Undo::SetClock(holder)))
}

/// Sets a host's clock wrong by so much.
///
/// # Errors
/// If the file cannot be written.
pub fn set(site: &Site, host: usize, seconds: i64) -> Result<()> {
    let file = site.hosts[host].clock_file();
    let new = file.with_extension("new");
    std::fs::write(&new, format!("{seconds:+}\n"))?;
    std::fs::rename(&new, &file).with_context(|| format!("cannot write {}", file.display()))
}
