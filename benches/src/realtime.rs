//! Real-time priority, for figures on a machine that others use.

use std::env;
use std::process::{Command, ExitCode};

/// Set where the priority has been raised.
const REALTIME: &str = "BENCHES_IN_REAL_TIME";

/// If it is asked for and has not been done: runs this program once more, by util-linux's `chrt`. Round-robin: two threads that spin on one processor, each waiting
/// for the other, must take turns.
pub fn run_in_real_time(is_wanted: bool) -> Option<ExitCode> {
    (is_wanted && env::var_os(REALTIME).is_none()).then(run_again)
}

fn run_again() -> ExitCode {
    let program = env::args_os();
    let status = Command::new("chrt")
        .args(["--rr", "10"])
        .args(program)
        .env(REALTIME, "1")
        .status();
    match status {
        Ok(status) if status.success() => ExitCode::SUCCESS,
        Ok(_) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: chrt cannot run: {error}");
            ExitCode::FAILURE
        }
    }
}
