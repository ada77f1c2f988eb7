//! A running guest: commands in it, its console, and its end.

use std::os::fd::OwnedFd;
use std::process::{ChildStdin, Command, ExitStatus};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Signal, pidfd_send_signal};
use tempfile::TempDir;

use crate::error::Error;
use crate::process::{Known, Progress, Shared, Started, contains, keep, said};
use crate::running::{Finished, Running};
use crate::wire::Frame;

/// How long a guest may take to start, on a machine that does much else.
const BOOT: Duration = Duration::from_secs(180);

/// How long a command may take, unless a test says otherwise.
pub(crate) const COMMAND: Duration = Duration::from_secs(120);

/// How long a guest may take to end.
const END: Duration = Duration::from_secs(60);

/// A guest that runs. It is killed when this is dropped.
pub struct Guest {
    name: String,
    shared: Arc<Shared>,
    process: OwnedFd,
    pid: u32,
    /// The line to the guest, and the number of the last command.
    commands: Mutex<(ChildStdin, u32)>,
    started: Instant,
    boot_time: Duration,
    /// What QEMU was started from; goes when QEMU is gone.
    _directory: TempDir,
}

impl Guest {
    /// Starts QEMU, whose standard streams are pipes.
    pub(crate) fn start(name: String, command: Command, directory: TempDir) -> Result<Self, Error> {
        let started = Instant::now();
        let shared = Arc::new(Shared::default());
        let Started {
            pid,
            process,
            commands,
        } = keep(command, Arc::clone(&shared))?;
        let mut guest = Self {
            name,
            shared,
            process,
            pid,
            commands: Mutex::new((commands, 0)),
            started,
            boot_time: Duration::ZERO,
            _directory: directory,
        };
        guest.wait(BOOT, "the start", None, |known| known.ready.then_some(()))?;
        guest.boot_time = started.elapsed();
        Ok(guest)
    }

    /// What it was called.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// How long it took until it took commands.
    #[must_use]
    pub fn boot_time(&self) -> Duration {
        self.boot_time
    }

    /// QEMU's process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// Runs a shell command to its end. What it leaves running must not hold its output.
    ///
    /// # Errors
    ///
    /// [`Error::Hung`] when it takes more than two minutes: then the guest is killed. [`Error::Ended`].
    pub fn run(&self, command: &str) -> Result<Finished, Error> {
        self.run_within(COMMAND, command)
    }

    /// The same with another limit.
    ///
    /// # Errors
    ///
    /// As for [`Guest::run`].
    pub fn run_within(&self, limit: Duration, command: &str) -> Result<Finished, Error> {
        self.start_command(command)?.wait_within(limit)
    }

    /// Runs a shell command that must exit with 0, and gives what it wrote.
    ///
    /// # Errors
    ///
    /// [`Error::Command`] if it exits with anything else; and as for [`Guest::run`].
    pub fn succeed(&self, command: &str) -> Result<String, Error> {
        self.succeed_within(COMMAND, command)
    }

    /// The same with another limit.
    ///
    /// # Errors
    ///
    /// As for [`Guest::succeed`].
    pub fn succeed_within(&self, limit: Duration, command: &str) -> Result<String, Error> {
        self.start_command(command)?.succeed_within(limit)
    }

    /// Starts a shell command that goes on beside others.
    ///
    /// # Errors
    ///
    /// [`Error::Ended`].
    pub fn start_command(&self, command: &str) -> Result<Running<'_>, Error> {
        let id = {
            let mut commands = self.commands.lock().unwrap_or_else(PoisonError::into_inner);
            commands.1 += 1;
            commands.1
        };
        self.shared.change(|known| {
            known.commands.insert(id, Progress::default());
        });
        self.send(&Frame::Run(id, command.into()), command)?;
        Ok(Running::new(self, id, command.to_owned()))
    }

    /// Tells the guest something; if it does not listen any more, the error is how it ended.
    pub(crate) fn send(&self, frame: &Frame, during: &str) -> Result<(), Error> {
        let sent = {
            let mut commands = self.commands.lock().unwrap_or_else(PoisonError::into_inner);
            frame.write(&mut commands.0)
        };
        match sent {
            Ok(()) => Ok(()),
            Err(_) => self.wait(END, during, None, |_| None),
        }
    }

    pub(crate) fn known(&self) -> MutexGuard<'_, Known> {
        self.shared.lock()
    }

    /// Waits until the console shows a text.
    ///
    /// # Errors
    ///
    /// [`Error::Hung`] when it does not in time; [`Error::Ended`].
    pub fn wait_for_console(&self, text: &str, limit: Duration) -> Result<(), Error> {
        self.wait(limit, &format!("{text:?} on the console"), None, |known| {
            contains(&known.said, text).then_some(())
        })
    }

    /// All that the console has shown, and QEMU's messages.
    #[must_use]
    pub fn console(&self) -> String {
        String::from_utf8_lossy(&self.shared.lock().said).into_owned()
    }

    /// Whether QEMU runs.
    #[must_use]
    pub fn is_running(&self) -> bool {
        self.shared.lock().ended.is_none()
    }

    /// Kills QEMU, as by a power failure, and waits until it is gone.
    pub fn kill(&self) {
        // It may be gone already.
        let _ = pidfd_send_signal(&self.process, Signal::KILL);
        let deadline = Instant::now() + END;
        let mut known = self.shared.lock();
        while known.ended.is_none() && Instant::now() < deadline {
            known = self.after_change(known, deadline);
        }
    }

    /// Stops QEMU's threads, or lets them go on: a guest that does nothing for a while.
    pub fn pause(&self, pause: bool) {
        let signal = if pause { Signal::STOP } else { Signal::CONT };
        let _ = pidfd_send_signal(&self.process, signal);
    }

    /// Switches it off, and waits until QEMU is gone.
    ///
    /// # Errors
    ///
    /// [`Error::Hung`] if it does not go: it is killed then.
    pub fn shut_down(self) -> Result<ExitStatus, Error> {
        self.start_command("poweroff -f")?;
        let deadline = Instant::now() + END;
        let mut known = self.shared.lock();
        loop {
            if let Some(status) = known.ended {
                return Ok(status);
            }
            if Instant::now() >= deadline {
                drop(known);
                return Err(self.hung(END, "switching off", None));
            }
            known = self.after_change(known, deadline);
        }
    }

    /// Waits for what `look` looks for.
    pub(crate) fn wait<T>(
        &self,
        limit: Duration,
        during: &str,
        command: Option<u32>,
        mut look: impl FnMut(&mut Known) -> Option<T>,
    ) -> Result<T, Error> {
        let deadline = Instant::now() + limit;
        let mut known = self.shared.lock();
        loop {
            if let Some(found) = look(&mut known) {
                return Ok(found);
            }
            if let Some(status) = known.ended {
                return Err(Error::Ended {
                    status,
                    during: self.during(during),
                    said: said(&known),
                });
            }
            if Instant::now() >= deadline {
                drop(known);
                return Err(self.hung(limit, during, command));
            }
            known = self.after_change(known, deadline);
        }
    }

    fn after_change<'a>(
        &self,
        known: MutexGuard<'a, Known>,
        deadline: Instant,
    ) -> MutexGuard<'a, Known> {
        let rest = deadline.saturating_duration_since(Instant::now());
        self.shared
            .changed
            .wait_timeout(known, rest)
            .unwrap_or_else(PoisonError::into_inner)
            .0
    }

    /// Ends the guest and says what it said.
    fn hung(&self, limit: Duration, during: &str, command: Option<u32>) -> Error {
        self.kill();
        let known = self.shared.lock();
        let output = command
            .and_then(|id| known.commands.get(&id))
            .map(|progress| String::from_utf8_lossy(&progress.output).into_owned());
        Error::Hung {
            limit,
            during: self.during(during),
            output: output.unwrap_or_default(),
            said: said(&known),
        }
    }

    fn during(&self, during: &str) -> String {
        let age = self.started.elapsed().as_secs_f64();
        format!("{during}; {}, {age:.1} s old", self.name)
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        self.kill();
        if thread::panicking() {
            eprintln!("{}:\n{}", self.name, said(&self.shared.lock()));
        }
    }
}
