//! Buses with 1 to 10,000 timer devices: what a device costs to have, and what it costs to find the one that changed.
//!
//! Each size runs in two processes of its own, a host and a guest, so that memory can be told apart. There is no peer:
//! the figure to look at is how a line differs from that of a single device. `docs/benchmarks.md` explains the columns.

mod guest;
mod host;
mod process;

use std::env;
use std::error::Error;
use std::path::PathBuf;
use std::process::{Command, ExitCode};

use clap::Parser;
use serde::{Deserialize, Serialize};

use guest::Found;

/// How many devices there are on the buses that are compared.
const SIZES: [u32; 5] = [1, 10, 100, 1_000, 10_000];

#[derive(Parser)]
#[command(about = "What a device on the bus costs")]
struct Arguments {
    /// Print one JSON object a line
    #[arg(long)]
    json: bool,
    /// Few rounds: a smoke test, no figures
    #[arg(long)]
    quick: bool,
    /// Be the host of a bus with so many devices, until standard input ends
    #[arg(long, hide = true, requires = "socket")]
    host: Option<u32>,
    /// Be the guest of a bus with so many devices, and print what was found
    #[arg(long, hide = true)]
    guest: Option<u32>,
    #[arg(long, hide = true)]
    socket: Option<PathBuf>,
    #[arg(long, hide = true, default_value_t = 1)]
    rounds: usize,
    /// What cargo says to a benchmark that it does not only test
    #[arg(long, hide = true)]
    bench: bool,
}

/// A line of the result.
#[derive(Debug, Deserialize, Serialize)]
struct Line {
    bench: String,
    devices: u32,
    /// What the guest found, per device or per event.
    #[serde(flatten)]
    found: Found,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let outcome = match (&arguments.socket, arguments.host, arguments.guest) {
        (Some(socket), Some(devices), _) => host::serve(socket, devices),
        (_, _, Some(devices)) => print_found(devices, arguments.rounds),
        _ => compare(&arguments),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn print_found(devices: u32, rounds: usize) -> Result<(), Box<dyn Error>> {
    let found = guest::measure(devices, rounds)?;
    println!("{}", serde_json::to_string(&found)?);
    Ok(())
}

fn compare(arguments: &Arguments) -> Result<(), Box<dyn Error>> {
    let (sizes, rounds) = match arguments {
        Arguments { bench: false, .. } => (&SIZES[..3], 10),
        Arguments { quick: true, .. } => (&SIZES[..], 200),
        _ => (&SIZES[..], 20_000),
    };
    if !arguments.json {
        println!("{}", Found::HEADINGS);
    }
    for devices in sizes {
        let output = Command::new(env::current_exe()?)
            .args(["--guest", &devices.to_string()])
            .args(["--rounds", &rounds.to_string()])
            .output()?;
        if !output.status.success() {
            let errors = String::from_utf8_lossy(&output.stderr);
            return Err(format!("{devices} devices: {}", errors.trim()).into());
        }
        let found: Found = serde_json::from_slice(&output.stdout)?;
        if arguments.json {
            let bench = format!("scale/{devices}");
            let line = Line {
                bench,
                devices: *devices,
                found,
            };
            println!("{}", serde_json::to_string(&line)?);
        } else {
            println!("{}", found.row(*devices));
        }
    }
    Ok(())
}
