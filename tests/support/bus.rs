//! A bus with a host of its own.

use std::fs;
use std::net::Ipv4Addr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use rustix::process::Signal;
use serde_json::Value;
use tempfile::TempDir;

use super::process::{Finished, Process};

/// A directory that goes with its test.
pub(crate) struct Scratch(TempDir);

impl Scratch {
    pub(crate) fn new() -> Self {
        Self(
            tempfile::Builder::new()
                .prefix("shmbus-")
                .tempdir()
                .unwrap(),
        )
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// Writes a file below a directory of its own, which holds nothing else and may be served.
    pub(crate) fn offer(&self, name: &str, contents: &[u8]) -> PathBuf {
        let directory = self.path("files");
        fs::create_dir_all(&directory).unwrap();
        fs::write(directory.join(name), contents).unwrap();
        directory
    }

    /// Lets every user look in.
    pub(crate) fn open_to_all(&self) {
        fs::set_permissions(self.0.path(), fs::Permissions::from_mode(0o777)).unwrap();
    }
}

/// The program under test, with nothing on standard input.
pub(crate) fn program() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_shmbus"));
    command.stdin(Stdio::null()).env_remove("RUST_LOG");
    command
}

/// A running host and where it is.
pub(crate) struct Bus {
    pub(crate) scratch: Scratch,
    pub(crate) socket: PathBuf,
    pub(crate) host: Process,
}

impl Bus {
    /// Net, clock and timer.
    pub(crate) fn start() -> Self {
        Self::with(&[])
    }

    /// Net, clock and timer, and more arguments for the host.
    pub(crate) fn with(arguments: &[&str]) -> Self {
        Self::of(&["net", "clock", "timer"], arguments)
    }

    /// Net on rings of a format, clock and timer.
    pub(crate) fn on_rings(format: &str) -> Self {
        let net = format!("net,ring={format}");
        Self::of(&[&net, "clock", "timer"], &[])
    }

    /// These devices.
    pub(crate) fn of_devices(devices: &[&str]) -> Self {
        Self::of(devices, &[])
    }

    /// Net, clock and timer, for guests in QEMU as well, who come by the sockets named `private` and `shared`.
    pub(crate) fn for_qemu(ring: &str) -> Self {
        let scratch = Scratch::new();
        let (private, shared) = (scratch.path("private"), scratch.path("shared"));
        let shared = format!("{},shared,max-guests=4", shared.display());
        let arguments = ["--ivshmem", private.to_str().unwrap(), "--ivshmem", &shared];
        let net = format!("net,ring={ring}");
        Self::at(scratch, &[&net, "clock", "timer"], &arguments)
    }

    fn of(devices: &[&str], arguments: &[&str]) -> Self {
        Self::at(Scratch::new(), devices, arguments)
    }

    fn at(scratch: Scratch, devices: &[&str], arguments: &[&str]) -> Self {
        let socket = scratch.path("bus");
        let host = Self::host(&socket, devices, arguments);
        Self {
            scratch,
            socket,
            host,
        }
    }

    /// Starts a host, and waits until it serves.
    fn host(socket: &Path, devices: &[&str], arguments: &[&str]) -> Process {
        let mut command = program();
        command.arg("host").arg("--socket").arg(socket);
        for device in devices {
            command.args(["--device", device]);
        }
        let host = Process::start(command.args(arguments));
        host.said("serving");
        host
    }

    /// Ends the host by a signal, and starts another at the same place, with rings of a format.
    pub(crate) fn restart_host(&mut self, signal: Signal, format: &str) -> Finished {
        self.host.signal(signal);
        let finished = self.host.wait();
        let net = format!("net,ring={format}");
        self.host = Self::host(&self.socket, &[&net, "clock", "timer"], &[]);
        finished
    }

    /// The command of a guest.
    pub(crate) fn guest_command(&self) -> Command {
        let mut command = program();
        command.arg("guest").arg("--socket").arg(&self.socket);
        command
    }

    pub(crate) fn guest(&self, arguments: &[&str]) -> Process {
        Process::start(self.guest_command().args(arguments))
    }

    /// A guest that serves a directory, once it does.
    pub(crate) fn serve(&self, directory: &Path) -> ServingGuest {
        self.serve_as(directory, &[])
    }

    /// The same, with more arguments for `guest net`.
    pub(crate) fn serve_as(&self, directory: &Path, arguments: &[&str]) -> ServingGuest {
        let mut command = self.guest_command();
        command.arg("net").args(arguments);
        let process = Process::start(command.arg("serve").arg(directory));
        let line = process.said("http://");
        let (_, rest) = line.split_once("http://").unwrap();
        let (address, _) = rest.split_once(':').unwrap();
        ServingGuest {
            address: address.parse().unwrap(),
            process,
        }
    }

    /// Starts to fetch a file of a guest's.
    pub(crate) fn fetch(&self, server: &ServingGuest, file: &str) -> Process {
        self.guest(&["net", "fetch", &server.url(file)])
    }

    /// Fails the test unless a file arrives as it is.
    #[track_caller]
    pub(crate) fn expect_fetch(&self, server: &ServingGuest, file: &str, contents: &[u8]) {
        let fetched = self.fetch(server, file).finish().expect_success();
        assert!(fetched.stdout == contents, "another file: {fetched}");
    }

    /// What an inspector sees.
    pub(crate) fn inspect(&self) -> Value {
        inspect(&self.socket).expect_success().json()
    }

    /// That a guest finds the machine's own time in the bus's clocks, and their bounds, and finds them a second time.
    #[track_caller]
    pub(crate) fn tells_the_time(&self) {
        let clock = self.guest(&["clock", "--count", "2"]).finish();
        let clock = clock.expect_success();
        let rows: Vec<Vec<&str>> = clock
            .text()
            .lines()
            .skip(1)
            .map(|line| line.split_whitespace().collect())
            .collect();
        assert_eq!(rows.len(), 4, "{clock}");
        for row in &rows {
            let number = |column: usize| row[column].parse::<i64>().unwrap();
            let (time, off_by, bound) = (number(1), number(2), number(3));
            assert!(time > 0 && bound > 0, "{clock}");
            // Both readings are taken by one process: it is off by no more than the bound and an interruption.
            assert!(off_by.abs() < bound + 10_000_000, "{clock}");
        }
        assert_eq!(rows[0][0], rows[2][0], "the same clocks again: {clock}");
    }

    /// How many guests are on the bus.
    pub(crate) fn guests(&self) -> usize {
        self.inspect()["guests"].as_array().unwrap().len()
    }

    /// A counter of the first device of a kind.
    pub(crate) fn counter(&self, kind: &str, name: &str) -> u64 {
        let view = self.inspect();
        let devices = view["devices"].as_array().unwrap();
        let device = devices
            .iter()
            .find(|device| device["kind"] == kind)
            .unwrap();
        let counters = device["counters"].as_array().unwrap();
        let counter = counters.iter().find(|counter| counter[0] == name);
        counter.unwrap_or_else(|| panic!("no {name}: {device}"))[1]
            .as_u64()
            .unwrap()
    }

    /// Ends the host as a user would, and fails the test unless it ends well.
    pub(crate) fn stop(self) -> Finished {
        self.host.stop().expect_success()
    }
}

/// Looks at a bus.
pub(crate) fn inspect(socket: &Path) -> Finished {
    Process::start(
        program()
            .args(["inspect", "--json", "--socket"])
            .arg(socket),
    )
    .finish()
}

/// A guest that serves files.
pub(crate) struct ServingGuest {
    pub(crate) address: Ipv4Addr,
    pub(crate) process: Process,
}

impl ServingGuest {
    pub(crate) fn url(&self, file: &str) -> String {
        format!("{}:80/{file}", self.address)
    }
}
