//! Specs for the fleet.

/// A rollout's spec, with times that suit one machine.
#[derive(Debug, Clone)]
pub struct Spec {
    /// The version to roll out.
    pub version: String,
    /// How a host is changed.
    pub way: &'static str,
    /// Hosts per wave.
    pub wave_size: usize,
    /// The floor.
    pub min_serving: usize,
    /// Soak after each shift.
    pub step_soak: &'static str,
    /// Soak at the end.
    pub soak: &'static str,
    /// Percents of reads, one step each; with start-first.
    pub shift: &'static [&'static str],
    /// Time for a candidate to become ready.
    pub start_deadline: &'static str,
    /// The drain's deadline, and what happens then.
    pub drain: (&'static str, &'static str),
    /// Whether it goes on where nobody measures the candidate's answers: "pause" or "go-on".
    pub unmeasured: &'static str,
}

impl Spec {
    /// A quick one.
    pub fn to(version: &str) -> Self {
        Self {
            version: version.to_owned(),
            way: "start-first",
            wave_size: 1,
            min_serving: 2,
            step_soak: "300ms",
            soak: "1s",
            shift: &["25%", "100%"],
            start_deadline: "10s",
            drain: ("10s", "wait"),
            unmeasured: "pause",
        }
    }

    /// The same in place, with one host out at a time.
    pub fn in_place(version: &str) -> Self {
        Self { way: "stop-first", start_deadline: "20s", ..Self::to(version) }
    }

    /// As the operator would write it.
    pub fn text(&self) -> String {
        let shift: Vec<_> = self.shift.iter().map(|percent| format!("{percent:?}")).collect();
        let shift = if self.way == "start-first" { format!("shift = [{}]\n", shift.join(", ")) } else { String::new() };
        format!(
            r#"[[service]]
name = "billing"
version = "{version}"

[rollout]
way = "{way}"
wave_size = {wave_size}
min_serving = {floor}
{shift}step_soak = "{step_soak}"
soak = "{soak}"
start_deadline = "{start}"

[health]
max_error_rate = "5%"
dwell = "500ms"
min_samples = 20
unready_dwell = "1s"
unmeasured = "{unmeasured}"

[drain]
deadline = "{drain}"
at_deadline = "{at}"

[lease]
quiesce_timeout = "5s"
"#,
            version = self.version,
            way = self.way,
            wave_size = self.wave_size,
            floor = self.min_serving,
            unmeasured = self.unmeasured,
            step_soak = self.step_soak,
            soak = self.soak,
            start = self.start_deadline,
            drain = self.drain.0,
            at = self.drain.1,
        )
    }
}
