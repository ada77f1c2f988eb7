//! Two processes on one shared memory: the test executes itself again as the writing process.
#![allow(dead_code)] // each test uses its part

use std::env;
use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::process::parent_id;
use std::process::{Child, Command, Stdio};

use shmbus_shm::{Access, SharedMemory};
use shmbus_table::TableLayout;

/// What the writing process is told: the memory's owner and descriptor, its size, and the table's shape.
const MEMORY: &str = "SHMBUS_TEST_MEMORY";

/// How often a test does what it counts; set it to torture for longer.
pub(crate) fn count_from(variable: &str, default: u64) -> u64 {
    match env::var(variable) {
        Ok(text) => text
            .parse()
            .unwrap_or_else(|_| panic!("{variable}={text} is not a number")),
        Err(_) => default,
    }
}

/// A value whose words all show which publication of its slot it is.
pub(crate) fn stamp(value: &mut [u64], number: u64) {
    for (index, word) in value.iter_mut().enumerate() {
        *word = number << 16 | index as u64;
    }
}

/// Which publication a value is, after checking that all of it is.
pub(crate) fn number_of(value: &[u64]) -> u64 {
    let number = value[0] >> 16;
    for (index, word) in value.iter().enumerate() {
        assert_eq!(*word, number << 16 | index as u64, "torn");
    }
    number
}

/// A writing process. It is killed, by SIGKILL, at the latest when this is dropped.
pub(crate) struct WritingProcess(Child);

impl WritingProcess {
    /// Executes the test `name` of this binary again, as a process that writes to `memory`.
    pub(crate) fn start(name: &str, memory: &SharedMemory, layout: TableLayout) -> Self {
        let spec = format!(
            "{} {} {} {} {}",
            std::process::id(),
            memory.as_fd().as_raw_fd(),
            memory.bytes(),
            layout.slots(),
            layout.slot_bytes()
        );
        let child = Command::new(env::current_exe().unwrap())
            .args([name, "--exact", "--nocapture", "--test-threads=1"])
            .env(MEMORY, spec)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        Self(child)
    }

    pub(crate) fn child(&mut self) -> &mut Child {
        &mut self.0
    }

    pub(crate) fn kill(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

impl Drop for WritingProcess {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The memory that a writing process was started with.
pub(crate) struct Assignment {
    owner: u32,
    fd: OwnedFd,
    bytes: u64,
    pub(crate) layout: TableLayout,
}

impl Assignment {
    /// `None` in the process that runs the tests.
    pub(crate) fn get() -> Option<Self> {
        let spec = env::var(MEMORY).ok()?;
        let numbers: Vec<u64> = spec
            .split(' ')
            .map(|number| number.parse().unwrap())
            .collect();
        let [owner, fd, bytes, slots, slot_bytes] = numbers[..] else {
            panic!("{MEMORY}={spec}");
        };
        Some(Self {
            owner: owner as u32,
            fd: descriptor_of(owner as u32, fd, true),
            bytes,
            layout: TableLayout::new(slots as u32, slot_bytes as u32).unwrap(),
        })
    }

    pub(crate) fn map(&self, access: Access) -> SharedMemory {
        SharedMemory::from_peer(self.fd.try_clone().unwrap(), self.bytes, access).unwrap()
    }

    /// Whether the process that runs the tests is gone: then nobody will kill this one.
    pub(crate) fn is_orphaned(&self) -> bool {
        parent_id() != self.owner
    }
}

/// Opens a descriptor of another process of ours.
pub(crate) fn descriptor_of(process: u32, fd: u64, writable: bool) -> OwnedFd {
    File::options()
        .read(true)
        .write(writable)
        .open(format!("/proc/{process}/fd/{fd}"))
        .unwrap()
        .into()
}
