//! How old is the deadline that a host acts on? A timer over tables beside its twins over rings, over the load:
//! `cargo xtask bench ages`.
//!
//! A guest sets one timer again and again at an offered rate, from a twentieth of what the host can serve to ten times as
//! much. The host acts on what it gets: it arms a timer of the kernel, and spins for what else a host would do
//! ([`load::SPIN`]). The age is the time at which it begins to act less the time at which the guest called the driver with
//! the value that is acted on. Both are pinned threads of one process, over the same device code, doorbells and signal set.
//! `docs/benchmarks.md` says how to read what comes out.

mod bell;
mod guest;
mod host;
mod load;

use std::error::Error;
use std::process::ExitCode;

use clap::Parser;
use shmbus_benches::{AgeLine, AgePoint, Options, TooFewProcessors, run_in_real_time};
use shmbus_devices::lane::{Carrier, Reading, RingCarrier};
use shmbus_ring::RingKind;
use shmbus_shm::RingFormat;

use self::load::{Effort, LOADS};

/// Entries of the twins' rings.
const SIZES: [u16; 3] = [1, 16, 256];

#[derive(Parser)]
#[command(about = "The age of what a host acts on, over tables and over rings")]
struct Arguments {
    #[command(flatten)]
    options: Options,
}

fn main() -> ExitCode {
    let Arguments { options } = Arguments::parse();
    if let Some(outcome) = run_in_real_time(options.realtime) {
        return outcome;
    }
    match run(&options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if error.is::<TooFewProcessors>() => {
            eprintln!("SKIPPED: {error}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

/// The twin whose ring has so many entries. Packed rings, which do with one line an element.
fn twin(reading: Reading, size: u16) -> Carrier {
    Carrier::Ring(RingCarrier {
        kind: RingKind::plain(RingFormat::Packed),
        size,
        reading,
    })
}

fn run(options: &Options) -> Result<(), Box<dyn Error>> {
    let effort = match options {
        Options { bench: false, .. } => Effort::ONCE,
        Options { quick: true, .. } => Effort::QUICK,
        _ => Effort::FULL,
    };
    let serving_ns = load::serving_ns()?;
    eprintln!(
        "the host takes {serving_ns:.0} ns to act on a deadline; load 1 is a deadline in that time"
    );
    let form = match options {
        Options { json: true, .. } => Form::Json,
        Options { markdown: true, .. } => Form::Markdown,
        _ => Form::Plain,
    };
    form.begin();
    for size in SIZES {
        let bench = format!("age-{size}");
        if !options.wants(&bench) {
            continue;
        }
        for load in LOADS {
            // Interleaved, so that the machine's drift hits all alike.
            let mut points: [Vec<AgePoint>; 3] = Default::default();
            for _ in 0..effort.repetitions {
                let carriers = [
                    Carrier::Table,
                    twin(Reading::Every, size),
                    twin(Reading::Last, size),
                ];
                for (carrier, points) in carriers.into_iter().zip(&mut points) {
                    points.push(load::measure(carrier, load, serving_ns, effort.run)?);
                }
            }
            let [ours, every, last] = &points;
            for (peer, theirs) in [("ring-every", every), ("ring-last", last)] {
                let line = AgeLine::new(&bench, peer, load, ours, theirs);
                form.print(&line)?;
            }
        }
    }
    Ok(())
}

/// How lines are printed.
#[derive(Clone, Copy)]
enum Form {
    Json,
    Markdown,
    Plain,
}

impl Form {
    fn begin(self) {
        match self {
            Self::Json => {}
            Self::Markdown => println!("{}", AgeLine::MARKDOWN),
            Self::Plain => println!("{}", AgeLine::HEADING),
        }
    }

    fn print(self, line: &AgeLine) -> serde_json::Result<()> {
        let text = match self {
            Self::Json => serde_json::to_string(line)?,
            Self::Markdown => line.markdown(),
            Self::Plain => line.row(),
        };
        println!("{text}");
        Ok(())
    }
}
