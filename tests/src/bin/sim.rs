//! Runs the simulator: `sim --seeds 100000`, or one seed again with `sim --seed 1234 --trace`.

use std::process::ExitCode;

fn main() -> ExitCode {
    handover_tests::sim::command::main()
}
