//! Other processes: a test executes itself again.

use std::env;
use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::process::parent_id;
use std::process::{Child, ChildStdout, Command, Stdio};

use shmbus_shm::{Access, SharedMemory};
use shmbus_table::{TableFlags, TableLayout, TableOptions};

use crate::stamped::{Progress, SLOTS};

/// What a process is told: its parent, the table's shape, the memory's owner and descriptor there, and how many values
/// to read.
const ASSIGNMENT: &str = "SHMBUS_TEST_ASSIGNMENT";

/// A memory of some process.
#[derive(Clone, Copy)]
pub(crate) struct Place {
    process: u32,
    fd: u64,
}

impl Place {
    /// Where this process's own memory is.
    pub(crate) fn of(memory: &SharedMemory) -> Self {
        Self {
            process: std::process::id(),
            fd: memory.as_fd().as_raw_fd() as u64,
        }
    }

    /// Maps it.
    pub(crate) fn map(self, layout: TableLayout, access: Access) -> SharedMemory {
        let fd: OwnedFd = File::options()
            .read(true)
            .write(access == Access::ReadWrite)
            .open(format!("/proc/{}/fd/{}", self.process, self.fd))
            .unwrap()
            .into();
        SharedMemory::from_peer(fd, Progress::memory_bytes(layout), access).unwrap()
    }
}

/// A process that was started. It is killed, by SIGKILL, at the latest when this is dropped.
pub(crate) struct Process {
    child: Child,
    output: BufReader<ChildStdout>,
}

impl Process {
    /// Executes the test `name` of this binary again, with a memory to look at or without, and `reads` to do.
    pub(crate) fn start(name: &str, layout: TableLayout, place: Option<Place>, reads: u64) -> Self {
        let place = place.unwrap_or(Place { process: 0, fd: 0 });
        let assignment = format!(
            "{} {} {} {} {} {} {reads}",
            std::process::id(),
            layout.slot_bytes(),
            layout.copies(),
            layout.flags().bits(),
            place.process,
            place.fd,
        );
        let mut child = Command::new(env::current_exe().unwrap())
            .args([name, "--exact", "--nocapture", "--test-threads=1"])
            .env(ASSIGNMENT, assignment)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let output = BufReader::new(child.stdout.take().unwrap());
        Self { child, output }
    }

    /// Waits for a line of `word` and what follows it; `None` at the end of the output.
    pub(crate) fn said(&mut self, word: &str) -> Option<String> {
        let mut line = String::new();
        while self.output.read_line(&mut line).unwrap() > 0 {
            if let Some(said) = line.strip_prefix(word) {
                return Some(said.trim().to_owned());
            }
            line.clear();
        }
        None
    }

    /// Waits for the memory that the process announces.
    pub(crate) fn announced_memory(&mut self) -> Place {
        let fd = self
            .said("memory ")
            .expect("the process announces its memory");
        Place {
            process: self.child.id(),
            fd: fd.parse().unwrap(),
        }
    }

    pub(crate) fn assert_runs(&mut self) {
        let ended = self.child.try_wait().unwrap();
        assert!(ended.is_none(), "the process gave up: {ended:?}");
    }

    pub(crate) fn assert_succeeds(&mut self) {
        assert!(self.child.wait().unwrap().success());
    }

    pub(crate) fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What this process was started for.
pub(crate) struct Assignment {
    parent: u32,
    pub(crate) layout: TableLayout,
    pub(crate) place: Place,
    pub(crate) reads: u64,
}

impl Assignment {
    /// `None` in the process that runs the tests.
    pub(crate) fn get() -> Option<Self> {
        let text = env::var(ASSIGNMENT).ok()?;
        let numbers: Vec<u64> = text
            .split(' ')
            .map(|number| number.parse().unwrap())
            .collect();
        let [parent, slot_bytes, copies, flags, process, fd, reads] = numbers[..] else {
            panic!("{ASSIGNMENT}={text}");
        };
        let mut options = TableOptions::new().copies(copies as u32);
        if flags == u64::from(TableFlags::TRANSACTIONS.bits()) {
            options = options.transactions();
        }
        let process = process as u32;
        Some(Self {
            parent: parent as u32,
            layout: TableLayout::with_options(SLOTS, slot_bytes as u32, options).unwrap(),
            place: Place { process, fd },
            reads,
        })
    }

    /// Whether the process that runs the tests is gone: then nobody will kill this one.
    pub(crate) fn is_orphaned(&self) -> bool {
        parent_id() != self.parent
    }
}

/// Says something to the process that runs the tests, on a line of its own: the test harness leaves one unfinished.
pub(crate) fn say(word: &str, what: &str) {
    let mut output = std::io::stdout().lock();
    writeln!(output, "\n{word}{what}").unwrap();
    output.flush().unwrap();
}

/// Announces a memory of this process.
pub(crate) fn announce(memory: &SharedMemory) {
    say("memory ", &memory.as_fd().as_raw_fd().to_string());
}
