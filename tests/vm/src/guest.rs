//! A running guest: commands in it, its console, and its end.

use std::collections::BTreeMap;
use std::io::{self, BufReader, Read};
use std::os::fd::OwnedFd;
use std::process::{Child, ChildStdin, Command, ExitStatus};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use tempfile::TempDir;

use crate::error::{Error, Said};
use crate::wire::Frame;

/// How long a guest may take to start, on a machine that does much else.
const BOOT: Duration = Duration::from_secs(180);

/// How long a command may take, unless a test says otherwise.
const COMMAND: Duration = Duration::from_secs(120);

/// How long a guest may take to end.
const END: Duration = Duration::from_secs(60);

/// What is known of a guest, as its threads learn it.
#[derive(Default)]
struct Known {
    ready: bool,
    /// The console, and what QEMU says.
    said: Vec<u8>,
    commands: BTreeMap<u32, Progress>,
    ended: Option<ExitStatus>,
}

/// How far a command has come.
#[derive(Default)]
struct Progress {
    output: Vec<u8>,
    status: Option<i32>,
}

#[derive(Default)]
struct Shared {
    known: Mutex<Known>,
    changed: Condvar,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change(&self, change: impl FnOnce(&mut Known)) {
        change(&mut self.lock());
        self.changed.notify_all();
    }
}

/// A guest that runs. It is killed when this is dropped.
pub struct Guest {
    name: String,
    shared: Arc<Shared>,
    process: OwnedFd,
    pid: u32,
    commands: Mutex<(ChildStdin, u32)>,
    started: Instant,
    boot_time: Duration,
    /// What QEMU was started from; goes when QEMU is gone.
    _directory: TempDir,
}

/// A command that has ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finished {
    /// Its exit status; 128 more than the number of the signal that ended it.
    pub status: i32,
    /// What it wrote to its standard output and error.
    pub output: Vec<u8>,
}

impl Finished {
    /// What it wrote, as text.
    #[must_use]
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.output).into_owned()
    }
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
        let mut commands = self.commands.lock().unwrap_or_else(PoisonError::into_inner);
        let (line, last) = &mut *commands;
        *last += 1;
        let id = *last;
        self.shared.change(|known| {
            known.commands.insert(id, Progress::default());
        });
        if Frame::Run(id, command.into()).write(line).is_err() {
            // QEMU is going.
            self.wait(END, command, None, |_| None::<()>)?;
        }
        Ok(Running {
            guest: self,
            id,
            command: command.to_owned(),
        })
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
    fn wait<T>(
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

/// A command that goes on in a guest.
pub struct Running<'a> {
    guest: &'a Guest,
    id: u32,
    command: String,
}

impl Running<'_> {
    /// Waits until it has written a text.
    ///
    /// # Errors
    ///
    /// [`Error::Command`] if it ends before; [`Error::Hung`], [`Error::Ended`].
    pub fn wait_for(&self, text: &str) -> Result<(), Error> {
        self.wait_for_within(COMMAND, text)
    }

    /// The same with another limit.
    ///
    /// # Errors
    ///
    /// As for [`Running::wait_for`].
    pub fn wait_for_within(&self, limit: Duration, text: &str) -> Result<(), Error> {
        let during = format!("{text:?} from `{}`", self.command);
        let ended = self.guest.wait(limit, &during, Some(self.id), |known| {
            let progress = known.commands.get(&self.id)?;
            if contains(&progress.output, text) {
                return Some(None);
            }
            let status = progress.status?;
            Some(Some((status, progress.output.clone(), said(known))))
        })?;
        match ended {
            None => Ok(()),
            Some((status, output, said)) => Err(Error::Command {
                command: self.command.clone(),
                status,
                output: String::from_utf8_lossy(&output).into_owned(),
                said,
            }),
        }
    }

    /// What it has written so far.
    #[must_use]
    pub fn output(&self) -> String {
        let known = self.guest.shared.lock();
        let output = known.commands.get(&self.id).map(|p| p.output.as_slice());
        String::from_utf8_lossy(output.unwrap_or_default()).into_owned()
    }

    /// Sends a signal to it and to its children; `SIGTERM` is 15.
    ///
    /// # Errors
    ///
    /// [`Error::Ended`].
    pub fn signal(&self, signal: i32) -> Result<(), Error> {
        let mut commands = self
            .guest
            .commands
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if Frame::Signal(self.id, signal)
            .write(&mut commands.0)
            .is_ok()
        {
            return Ok(());
        }
        self.guest.wait(END, &self.command, None, |_| None)
    }

    /// Waits for its end.
    ///
    /// # Errors
    ///
    /// [`Error::Hung`], [`Error::Ended`].
    pub fn wait(self) -> Result<Finished, Error> {
        self.wait_within(COMMAND)
    }

    /// The same with another limit.
    ///
    /// # Errors
    ///
    /// As for [`Running::wait`].
    pub fn wait_within(self, limit: Duration) -> Result<Finished, Error> {
        let during = format!("`{}`", self.command);
        self.guest.wait(limit, &during, Some(self.id), |known| {
            let status = known.commands.get(&self.id)?.status?;
            let progress = known.commands.remove(&self.id)?;
            Some(Finished {
                status,
                output: progress.output,
            })
        })
    }

    /// Waits for its end, which must be an exit with 0; gives what it wrote.
    ///
    /// # Errors
    ///
    /// [`Error::Command`], [`Error::Hung`], [`Error::Ended`].
    pub fn succeed_within(self, limit: Duration) -> Result<String, Error> {
        let (guest, command) = (self.guest, self.command.clone());
        let finished = self.wait_within(limit)?;
        if finished.status == 0 {
            return Ok(finished.text());
        }
        Err(Error::Command {
            command,
            status: finished.status,
            output: finished.text(),
            said: said(&guest.shared.lock()),
        })
    }
}

/// A process that was started.
struct Started {
    pid: u32,
    process: OwnedFd,
    commands: ChildStdin,
}

/// Starts the process in a thread that lives as long as it does: the kernel kills it when its parent's thread ends.
fn keep(mut command: Command, shared: Arc<Shared>) -> Result<Started, Error> {
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || {
        let (started, mut child) = match start(&mut command) {
            Ok(started) => started,
            Err(error) => {
                let _ = sender.send(Err(Error::Start(error)));
                return;
            }
        };
        let (Some(stdout), Some(stderr)) = (child.stdout.take(), child.stderr.take()) else {
            return;
        };
        let _ = sender.send(Ok(started));
        thread::scope(|scope| {
            scope.spawn(|| read_console(stderr, &shared));
            scope.spawn(|| read_frames(BufReader::new(stdout), &shared));
        });
        // Its streams are at their end: it is gone, or about to go.
        if let Ok(status) = child.wait() {
            shared.change(|known| known.ended = Some(status));
        }
    });
    receiver
        .recv()
        .unwrap_or_else(|_| Err(Error::Start(io::Error::other("its streams are missing"))))
}

/// Until it is waited for, its id is its own: the descriptor is of this process.
fn start(command: &mut Command) -> io::Result<(Started, Child)> {
    let mut child = command.spawn()?;
    let pid = child.id();
    let raw = Pid::from_raw(pid.cast_signed()).ok_or(io::ErrorKind::InvalidData)?;
    let process = pidfd_open(raw, PidfdFlags::empty())?;
    let commands = child.stdin.take().ok_or(io::ErrorKind::BrokenPipe)?;
    let started = Started {
        pid,
        process,
        commands,
    };
    Ok((started, child))
}

fn read_console(mut console: impl Read, shared: &Shared) {
    let mut bytes = [0; 4096];
    while let Ok(count @ 1..) = console.read(&mut bytes) {
        shared.change(|known| known.said.extend_from_slice(&bytes[..count]));
    }
}

fn read_frames(mut line: impl Read, shared: &Shared) {
    loop {
        match Frame::read(&mut line) {
            Ok(Frame::Ready) => shared.change(|known| known.ready = true),
            Ok(Frame::Output(id, bytes)) => shared.change(|known| {
                if let Some(progress) = known.commands.get_mut(&id) {
                    progress.output.extend_from_slice(&bytes);
                }
            }),
            Ok(Frame::End(id, status)) => shared.change(|known| {
                if let Some(progress) = known.commands.get_mut(&id) {
                    progress.status = Some(status);
                }
            }),
            Ok(Frame::Run(..) | Frame::Signal(..)) => {}
            Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                let text = format!("(the line for commands is out of step: {error})\n");
                shared.change(|known| known.said.extend_from_slice(text.as_bytes()));
                break;
            }
            Err(_) => break,
        }
    }
    // A process that waits to write would never end.
    let _ = io::copy(&mut line, &mut io::sink());
}

fn said(known: &Known) -> Said {
    Said(String::from_utf8_lossy(&known.said).replace('\r', ""))
}

fn contains(bytes: &[u8], text: &str) -> bool {
    text.is_empty()
        || bytes
            .windows(text.len())
            .any(|part| part == text.as_bytes())
}
