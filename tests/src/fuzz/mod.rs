//! Fuzzing: what must hold of every input, however it was made (`docs/fuzzing.md`).
//!
//! Each target is a property: a function from bytes to nothing, or to what is broken. The same functions serve the bounded
//! round in the tests ([`round`]) and libFuzzer's long one (`tests/fuzz`), which includes this folder as it is. A property
//! takes the code that it judges as an argument (its `Subject`), so that a test can plant a mistake there and see it found.

pub mod agent_check;
pub mod gate;
pub mod haproxy;
pub mod mutate;
pub mod probe_answers;
pub mod request_head;
pub mod round;
pub mod route_rules;

/// What is broken, in words.
pub type Outcome = Result<(), String>;

/// One thing to fuzz.
#[derive(Debug, Clone, Copy)]
pub struct Target {
    /// Also the name of its corpus and its dictionary.
    pub name: &'static str,
    /// What must hold of every input.
    pub property: fn(&[u8]) -> Outcome,
}

/// All of them.
pub const TARGETS: [Target; 6] = [
    Target { name: "request_head", property: |data| request_head::check(data, &request_head::REAL) },
    Target { name: "gate", property: gate::check_real },
    Target { name: "probe_answers", property: |data| probe_answers::check(data, &probe_answers::REAL) },
    Target { name: "agent_check", property: |data| agent_check::check(data, &agent_check::REAL) },
    Target { name: "haproxy", property: |data| haproxy::check(data, &haproxy::REAL) },
    Target { name: "route_rules", property: |data| route_rules::check(data, &route_rules::REAL) },
];

/// Fails a property with what is broken.
macro_rules! must {
    ($holds:expr, $($words:tt)+) => {
        if !$holds {
            return Err(format!($($words)+));
        }
    };
}
pub(crate) use must;
