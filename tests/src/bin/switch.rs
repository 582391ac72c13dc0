//! `cargo run -p handover-tests --bin switch -- --switches 50 --agent-restarts 50 --gate-restarts 20`: the full switch test.

use std::process::ExitCode;

use clap::Parser;
use handover_tests::switch::{self, Settings};

fn main() -> ExitCode {
    let settings = Settings::parse();
    match switch::run(&settings) {
        Ok(verdict) => {
            match serde_json::to_string(&verdict) {
                Ok(json) if settings.json => println!("{json}"),
                _ => print!("{verdict}"),
            }
            if verdict.passed() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
        }
        Err(error) => {
            eprintln!("switch: {error:#}");
            ExitCode::FAILURE
        }
    }
}
