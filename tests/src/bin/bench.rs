//! `tests/bench NAME`: measures a running fleet on this machine, each number beside its floor.

use std::process::ExitCode;

use clap::Parser;
use handover_tests::bench::{self, Settings};
use handover_tests::guard::{self, Entered};

fn main() -> ExitCode {
    let settings = Settings::parse();
    let plain = settings.only_wait || settings.only_stamp.is_some();
    let entered = if plain { Ok(Entered::Inside) } else { guard::enter() };
    let done = match entered {
        Ok(Entered::Ended(code)) => return code,
        Ok(Entered::Inside) => match settings.only_stamp {
            Some(listener) => bench::only_stamp(listener),
            None if settings.only_wait => bench::only_wait(),
            None => bench::run(&settings),
        },
        Err(error) => Err(error.into()),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}
