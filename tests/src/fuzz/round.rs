//! A bounded round: the committed corpus, then inputs made out of it, until a number or a time is reached.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::Outcome;
use super::mutate::{Dice, mutated, words};

/// What a round tries at most.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    /// Inputs beside the corpus.
    pub inputs: u64,
    /// Time in all.
    pub time: Duration,
}

/// An input that breaks a property.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// It.
    pub input: Vec<u8>,
    /// What is broken.
    pub why: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}\nby the input \"{}\"", self.why, self.input.escape_ascii())
    }
}

/// The seeds of a target, with what past findings left.
///
/// # Errors
/// If the folder cannot be read, or is empty.
pub fn corpus(target: &str) -> std::io::Result<Vec<Vec<u8>>> {
    let folder = home().join("corpus").join(target);
    let mut files: Vec<PathBuf> =
        std::fs::read_dir(&folder)?.map(|entry| Ok(entry?.path())).collect::<std::io::Result<_>>()?;
    files.sort();
    if files.is_empty() {
        return Err(std::io::Error::other(format!("{} has no seed", folder.display())));
    }
    files.into_iter().map(std::fs::read).collect()
}

fn home() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz")
}

/// Tries the corpus and then what a seed makes of it; hands back how many inputs were tried, or the first that is broken.
///
/// # Errors
/// The [`Finding`], or a corpus or dictionary that cannot be read as one.
pub fn round(target: &str, property: impl Fn(&[u8]) -> Outcome, bounds: Bounds, seed: u64) -> Result<u64, Finding> {
    let unread = |error: std::io::Error| Finding { input: Vec::new(), why: format!("corpus of {target}: {error}") };
    let seeds = corpus(target).map_err(unread)?;
    let dictionary = std::fs::read_to_string(home().join("dict").join(target)).map_err(unread)?;
    let (words, mut dice, began) = (words(&dictionary), Dice::new(seed), Instant::now());
    let mut tried = 0;
    for input in &seeds {
        try_one(&property, input)?;
        tried += 1;
    }
    while tried < bounds.inputs && began.elapsed() < bounds.time {
        try_one(&property, &mutated(&mut dice, &seeds, &words))?;
        tried += 1;
    }
    Ok(tried)
}

/// A panic is a finding like any other.
fn try_one(property: &impl Fn(&[u8]) -> Outcome, input: &[u8]) -> Result<(), Finding> {
    let outcome = catch_unwind(AssertUnwindSafe(|| property(input)));
    let why = match outcome {
        Ok(Ok(())) => return Ok(()),
        Ok(Err(why)) => why,
        Err(panic) => format!("panic: {}", said(panic.as_ref())),
    };
    Err(Finding { input: input.to_vec(), why })
}

fn said(panic: &(dyn std::any::Any + Send)) -> &str {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("(says nothing)")
}
