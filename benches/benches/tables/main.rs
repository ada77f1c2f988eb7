//! Tables and signals beside their peers: `cargo xtask bench tables`.
//!
//! All contenders of a benchmark share a process, where they are interleaved, and what shares memory between processes has
//! its other side in a second one. `docs/benchmarks.md` says what each line compares.

#[path = "../contenders/tables/mod.rs"]
mod contenders;

mod targets;

use std::error::Error;
use std::process::ExitCode;

use clap::Parser;
use shmbus_benches::{
    Measure, Options, companion_of, measure_here, round_trip, run_in_real_time, run_suite,
};

#[derive(Parser)]
#[command(about = "Tables and signals beside their peers")]
struct Arguments {
    #[command(flatten)]
    options: Options,
}

fn main() -> ExitCode {
    let result = match companion_of(contenders::all) {
        Some(served) => served,
        None => {
            let Arguments { options } = Arguments::parse();
            if let Some(outcome) = run_in_real_time(options.realtime) {
                return outcome;
            }
            run(&options)
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

fn run(options: &Options) -> Result<(), Box<dyn Error>> {
    let mut all = contenders::all();
    match &options.here {
        Some(name) => {
            all.push(round_trip());
            measure_here(&all, name, options)
        }
        None => {
            let names = all.into_iter().map(|one| one.name);
            let wanted: Vec<String> = names.filter(|name| options.wants(name)).collect();
            run_suite(&wanted, options, &targets::ALL, Measure::in_one_process)
        }
    }
}
