//! Rings beside their peers: `cargo xtask bench rings`.
//!
//! What shares a process with its peers is interleaved there, in several processes; what runs against a program is
//! started anew for each repetition, and so is the program. `docs/benchmarks.md` says what each line compares.

#[path = "../contenders/rings/mod.rs"]
mod contenders;
#[path = "../contenders/positions.rs"]
mod positions;

mod callgrind;
mod measure;
mod peers;
mod ringtest;
mod targets;

use std::process::ExitCode;

use clap::Parser;
use shmbus_benches::{Options, measure_here, round_trip, run_in_real_time, run_suite};

use peers::Peer;

#[derive(Parser)]
#[command(about = "Rings beside their peers")]
struct Arguments {
    #[command(flatten)]
    options: Options,
    /// Count instructions per element instead
    #[arg(long, conflicts_with = "markdown")]
    callgrind: bool,
}

fn main() -> ExitCode {
    let Arguments { options, callgrind } = Arguments::parse();
    if let Some(outcome) = run_in_real_time(options.realtime) {
        return outcome;
    }
    let mut all = contenders::all();
    all.extend(positions::all());
    all.push(round_trip());
    let result = match &options.here {
        Some(name) => measure_here(&all, name, &options),
        None => {
            all.retain(|one| options.wants(&one.name));
            if callgrind {
                callgrind::count(&all, options.json)
            } else {
                let names = all.into_iter().map(|one| one.name);
                let compared: Vec<String> = names.filter(|name| Peer::of(name).is_some()).collect();
                run_suite(&compared, &options, &targets::ALL, measure::compare)
            }
        }
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}
