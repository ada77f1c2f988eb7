//! Runs in a guest: `agent` takes commands from the host, and what else there is are the guests' parts of tests that are
//! no business of the program `shmbus`.

mod agent;
mod vfio;

use std::env;
use std::process::ExitCode;

fn main() -> ExitCode {
    let arguments: Vec<_> = env::args().skip(1).collect();
    let words: Vec<_> = arguments.iter().map(String::as_str).collect();
    let result = match words.as_slice() {
        ["agent", line] => agent::serve(line).map_err(|error| format!("{line}: {error}")),
        ["vfio", arguments @ ..] => vfio::run(arguments).map_err(|error| error.to_string()),
        other => Err(format!("no such test: {other:?}")),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("shmbus-in-guest: {why}");
            ExitCode::FAILURE
        }
    }
}
