//! What libFuzzer runs: the properties of `tests/src/fuzz`, as they are there. They are included and not depended upon, so
//! that this workspace needs no database, no benchmark and no second copy of the harness to be built with instrumentation.

#[path = "../../src/fuzz/mod.rs"]
pub mod fuzz;

/// One input for one target. A broken property ends the process, which is how libFuzzer hears of it.
pub fn run(name: &str, data: &[u8]) {
    let target = fuzz::TARGETS.iter().find(|target| target.name == name);
    match target.map(|target| (target.property)(data)) {
        Some(Ok(())) => {}
        Some(Err(why)) => panic!("{why}\nby the input \"{}\"", data.escape_ascii()),
        None => panic!("no target {name}"),
    }
}
