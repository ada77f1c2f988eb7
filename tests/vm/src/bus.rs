//! A bus on this machine, for guests in virtual machines: the program's `host`.

use std::ffi::OsStr;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::error::Error;
use crate::programs;

/// How long it may take to start, on a machine that does much else.
const START: Duration = Duration::from_secs(60);

/// `shmbus host`, which runs until this is dropped.
pub struct Bus {
    process: Child,
    directory: TempDir,
}

impl Bus {
    /// Serves devices to what QEMU's `ivshmem-doorbell` connects to: [`Bus::ivshmem`]. `arguments` say which.
    ///
    /// # Errors
    ///
    /// [`Error::Bus`] with what the host said; [`Error::Build`].
    pub fn start(arguments: &[&str]) -> Result<Self, Error> {
        let program = program()?;
        let directory = tempfile::Builder::new()
            .prefix("shmbus-bus-")
            .tempdir()
            .map_err(Error::file("create a directory in", Path::new("/tmp")))?;
        let said = directory.path().join("said");
        let file = File::create(&said).map_err(Error::file("create", &said))?;
        let process = Command::new(program)
            .args(["host".as_ref(), "--ivshmem".as_ref()] as [&OsStr; 2])
            .arg(directory.path().join("ivshmem"))
            // Whatever becomes of the test, its end of the pipe is closed.
            .arg("--until-stdin-closes")
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(file)
            .spawn()
            .map_err(Error::Start)?;
        let mut bus = Self { process, directory };
        let deadline = Instant::now() + START;
        while !bus.said().contains("serving QEMU") {
            let ended = bus.process.try_wait().map_err(Error::Start)?;
            if ended.is_some() || Instant::now() > deadline {
                return Err(Error::Bus { said: bus.said() });
            }
            thread::sleep(Duration::from_millis(20));
        }
        Ok(bus)
    }

    /// The socket that an `ivshmem-doorbell` connects to.
    #[must_use]
    pub fn ivshmem(&self) -> PathBuf {
        self.directory.path().join("ivshmem")
    }

    /// The host's process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.process.id()
    }

    /// What the host has logged.
    #[must_use]
    pub fn said(&self) -> String {
        std::fs::read_to_string(self.directory.path().join("said")).unwrap_or_default()
    }
}

impl Drop for Bus {
    fn drop(&mut self) {
        // For the report of a test that fails.
        eprintln!("the host said:\n{}", self.said());
        // It may have ended by itself.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// The program that guests have too: it is static, and runs anywhere.
fn program() -> Result<PathBuf, Error> {
    let programs = programs::build()?;
    let found = programs.into_iter().find(|(name, _)| name == "shmbus");
    found.map(|(_, path)| path).ok_or_else(|| Error::Build {
        output: "there is no program shmbus".to_owned(),
    })
}
