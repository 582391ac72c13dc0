//! The sums over schedules, and each schedule's line.

use std::collections::BTreeMap;

use serde_json::Value;

/// Sums over schedules.
#[derive(Debug, Default)]
pub struct Sums {
    passed: u64,
    /// Of those, schedules in which times could not be judged.
    slow: u64,
    /// Schedules in which a checker found something.
    pub found: u64,
    /// Schedules that gave no verdict.
    pub broken: u64,
    tokens: u64,
    ticks: u64,
    asked: u64,
    counted: BTreeMap<String, u64>,
    /// Per cause: times, longest and all in milliseconds.
    dark: Table,
    idle: Table,
}

type Table = BTreeMap<String, (u64, f64, f64)>;

/// Longest and all of what is added, in milliseconds.
fn add_dark(sums: &mut Table, dark: &Value) -> (f64, f64) {
    let ms = |value: &Value| value.as_f64().unwrap_or_default();
    let (mut longest, mut total) = (0.0, 0.0);
    for (cause, dark) in dark.as_object().into_iter().flatten() {
        let (times, most, all) =
            (dark["times"].as_u64().unwrap_or_default(), ms(&dark["longest_ms"]), ms(&dark["total_ms"]));
        let sum = sums.entry(cause.clone()).or_default();
        *sum = (sum.0 + times, sum.1.max(most), sum.2 + all);
        longest = most.max(longest);
        total += all;
    }
    (longest, total)
}

impl Sums {
    /// Adds a verdict and prints its line; whether it is clean.
    pub fn add(&mut self, verdict: &Value) -> bool {
        let number = |value: &Value| value.as_u64().unwrap_or_default();
        self.tokens += number(&verdict["tokens"]);
        self.ticks += number(&verdict["ticks"]);
        self.asked += number(&verdict["asked"]);
        let mut found = Vec::new();
        for checked in verdict["checked"].as_array().into_iter().flatten() {
            let name = checked["name"].as_str().unwrap_or_default();
            for counted in checked["counted"].as_array().into_iter().flatten() {
                let what = format!("{name}: {}", counted[0].as_str().unwrap_or_default());
                *self.counted.entry(what).or_default() += number(&counted[1]);
            }
            found.extend(
                checked["found"].as_array().into_iter().flatten().map(|found| (name.to_owned(), found.clone())),
            );
        }
        let (longest, total) = add_dark(&mut self.dark, &verdict["dark"]);
        let (idle, _) = add_dark(&mut self.idle, &verdict["idle"]);
        let deeds = verdict["deeds"].as_array().cloned().unwrap_or_default();
        let deed = |deed: &Value| {
            let what = deed["what"].as_str().unwrap_or_default().to_owned();
            deed["failed"].as_str().map_or_else(|| what.clone(), |why| format!("({what}: not done, {why})"))
        };
        let deeds: Vec<_> = deeds.iter().map(deed).collect();
        println!(
            "seed {}: {} | {} tokens, {} ticks, dark {longest:.0} ms longest, {total:.0} in all, idle {idle:.0} | {}",
            verdict["seed"],
            if found.is_empty() { "ok" } else { "FOUND" },
            verdict["tokens"],
            verdict["ticks"],
            deeds.join("; ")
        );
        let unjudged = verdict["unjudged"].as_array().map_or(0, Vec::len);
        if unjudged > 0 {
            self.slow += 1;
            println!(
                "    machine too slow ({} ms) to judge {unjudged} findings about times, such as {}",
                verdict["waited_ms"], verdict["unjudged"][0]
            );
        }
        for (checker, found) in &found {
            println!("    {checker}: {}", found.as_str().unwrap_or_default());
        }
        if found.is_empty() {
            self.passed += 1
        } else {
            self.found += 1
        }
        found.is_empty()
    }

    /// Prints them, under a title.
    pub fn print(&self, title: &str) {
        println!(
            "\n{title}: {} clean ({} of them on a machine too slow to judge times), {} with findings, {} not run",
            self.passed, self.slow, self.found, self.broken
        );
        println!("{} tokens, {} ticks, {} hand-overs asked for", self.tokens, self.ticks, self.asked);
        for (what, table) in [("nobody could work", &self.dark), ("nobody did", &self.idle)] {
            println!("\n{what}, per cause: times, longest ms, all ms");
            for (cause, (times, longest, total)) in table {
                println!("  {cause}: {times}, {longest:.0}, {total:.0}");
            }
        }
        println!("\nwhat the checkers looked at");
        for (what, count) in &self.counted {
            println!("  {what}: {count}");
        }
    }
}
