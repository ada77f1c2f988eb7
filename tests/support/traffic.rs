//! A guest that fetches a file over and over, and says how far it has got.

use std::process::Stdio;

use serde_json::Value;

use super::bus::{Bus, ServingGuest};
use super::process::Process;

/// Traffic between two guests.
pub(crate) struct Traffic {
    pub(crate) process: Process,
}

impl Traffic {
    /// Fetches until it is stopped, and checks every file.
    pub(crate) fn start(bus: &Bus, server: &ServingGuest, file: &str, sha256: &str) -> Self {
        let mut command = bus.guest_command();
        // It stops when its standard input closes.
        command.stdin(Stdio::piped());
        command.args(["--report", "net", "fetch", &server.url(file)]);
        command.args(["--sink", "discard", "--seconds", "3600", "--sha256", sha256]);
        Self {
            process: Process::start(&mut command),
        }
    }

    /// Bytes fetched so far.
    pub(crate) fn bytes(&self) -> u64 {
        let stderr = self.process.stderr();
        let last = events(&stderr).filter_map(|event| event["bytes"].as_u64());
        last.last().unwrap_or(0)
    }

    /// Waits until this many more bytes have come.
    pub(crate) fn flows(&self, more: u64) {
        let goal = self.bytes() + more;
        self.process
            .wait_for(&format!("report of {goal} bytes"), |stderr| {
                let line = stderr.rsplit_once('\n')?.0.lines().next_back()?;
                let event: Value = serde_json::from_str(line).ok()?;
                (event["bytes"].as_u64()? >= goal).then_some(())
            });
    }

    /// Stops it, and fails the test unless every file that came whole was right. Returns their number.
    #[track_caller]
    pub(crate) fn stop(self) -> u64 {
        let finished = self.process.stop().expect_success();
        let done = events(&finished.stderr).find(|event| event["event"] == "done");
        let done = done.unwrap_or_else(|| panic!("no report from {finished}"));
        assert_eq!(done["sha256_ok"], true, "{finished}");
        done["files"].as_u64().unwrap()
    }
}

fn events(stderr: &str) -> impl Iterator<Item = Value> {
    stderr
        .lines()
        .filter_map(|line| serde_json::from_str(line).ok())
}
