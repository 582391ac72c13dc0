//! `cargo demo`: the main job, on this machine, in under two minutes.

use std::process::ExitCode;

use clap::Parser;
use handover_tests::demo::{self, Settings};
use handover_tests::guard::{self, Entered};

fn main() -> ExitCode {
    let settings = Settings::parse();
    match guard::enter() {
        Ok(Entered::Ended(code)) => code,
        Ok(Entered::Inside) => match demo::run(&settings) {
            Ok(code) => code,
            Err(error) => {
                eprintln!("demo: {error:#}");
                ExitCode::FAILURE
            }
        },
        Err(error) => {
            eprintln!("demo: cannot guard its processes: {error}");
            ExitCode::FAILURE
        }
    }
}
