//! The programs of the Linux kernel's `tools/virtio/ringtest`, which xtask builds.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

use shmbus_benches::{ProcessError, two_processors};

/// One of the programs, and how it is run.
pub(crate) struct Program {
    pub(crate) name: &'static str,
    outstanding: Option<u32>,
    sleep: bool,
}

impl Program {
    /// Polling, with as many elements outstanding as the ring holds.
    pub(crate) fn new(name: &'static str) -> Self {
        Self {
            name,
            outstanding: None,
            sleep: false,
        }
    }

    /// With at most so many elements outstanding.
    pub(crate) fn outstanding(self, count: u32) -> Self {
        Self {
            outstanding: Some(count),
            ..self
        }
    }

    /// Each side sleeps when it has nothing to do.
    pub(crate) fn sleeping(self) -> Self {
        Self {
            sleep: true,
            ..self
        }
    }

    /// The program that passes `operations` elements, its threads where ours are.
    ///
    /// # Errors
    ///
    /// [`ProcessError::Skipped`] if it has not been built, or there are too few processors.
    pub(crate) fn command(&self, operations: u64) -> Result<Command, ProcessError> {
        let path = directory().join(self.name);
        if !path.is_file() {
            return Err(ProcessError::Skipped(format!(
                "ringtest's {} has not been built from linux-source-6.1",
                self.name
            )));
        }
        let [driver, device] =
            two_processors().map_err(|error| ProcessError::Skipped(error.to_string()))?;
        let mut command = Command::new(path);
        command
            .args(["--guest-affinity", &driver.to_string()])
            .args(["--host-affinity", &device.to_string()])
            .args(["--run-cycles", &operations.to_string()]);
        if let Some(count) = self.outstanding {
            command.args(["--outstanding", &count.to_string()]);
        }
        if self.sleep {
            command.arg("--sleep");
        }
        Ok(command)
    }
}

/// Where xtask builds them.
fn directory() -> PathBuf {
    match env::var_os("RINGTEST") {
        Some(directory) => directory.into(),
        None => Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/ringtest"),
    }
}
