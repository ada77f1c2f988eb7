//! QEMU as a process: what its streams say, and its end.

use std::collections::BTreeMap;
use std::io::{self, BufReader, Read};
use std::os::fd::OwnedFd;
use std::process::{Child, ChildStdin, Command, ExitStatus};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, mpsc};
use std::thread;

use rustix::process::{Pid, PidfdFlags, pidfd_open};

use crate::error::{Error, Said};
use crate::wire::Frame;

/// What is known of a guest, as its threads learn it.
#[derive(Default)]
pub(crate) struct Known {
    pub(crate) ready: bool,
    /// The console, and what QEMU says.
    pub(crate) said: Vec<u8>,
    pub(crate) commands: BTreeMap<u32, Progress>,
    pub(crate) ended: Option<ExitStatus>,
}

/// How far a command has come.
#[derive(Default)]
pub(crate) struct Progress {
    pub(crate) output: Vec<u8>,
    pub(crate) status: Option<i32>,
}

#[derive(Default)]
pub(crate) struct Shared {
    known: Mutex<Known>,
    pub(crate) changed: Condvar,
}

impl Shared {
    pub(crate) fn lock(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn change(&self, change: impl FnOnce(&mut Known)) {
        change(&mut self.lock());
        self.changed.notify_all();
    }
}

/// A process that was started.
pub(crate) struct Started {
    pub(crate) pid: u32,
    pub(crate) process: OwnedFd,
    pub(crate) commands: ChildStdin,
}

/// Starts the process in a thread that lives as long as it does: the kernel kills it when its parent's thread ends.
pub(crate) fn keep(mut command: Command, shared: Arc<Shared>) -> Result<Started, Error> {
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

pub(crate) fn said(known: &Known) -> Said {
    Said(String::from_utf8_lossy(&known.said).replace('\r', ""))
}

pub(crate) fn contains(bytes: &[u8], text: &str) -> bool {
    text.is_empty()
        || bytes
            .windows(text.len())
            .any(|part| part == text.as_bytes())
}
