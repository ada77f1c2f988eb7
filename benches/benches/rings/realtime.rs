//! Real-time priority, for figures on a machine that others use.

use std::env;
use std::process::{Command, ExitCode};

use crate::REALTIME;

/// Runs this program once more, by util-linux's `chrt`. Round-robin: two threads that spin on one processor, each waiting
/// for the other, must take turns.
pub(crate) fn run_again() -> ExitCode {
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
