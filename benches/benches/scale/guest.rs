//! A guest that uses all devices, and then one at a time.

use std::env;
use std::error::Error;
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use shmbus::guest::timer_driver;
use shmbus::{Guest, GuestEvent};
use shmbus_benches::median;
use shmbus_devices::clock::monotonic_ns;
use shmbus_devices::timer::TimerDriver;
use shmbus_devices::timer::device::role;
use shmbus_shm::Mapped;

use super::process;

const PATIENCE: Duration = Duration::from_secs(20);

/// What was measured on one bus.
#[derive(Debug, Default, Deserialize, Serialize)]
pub(crate) struct Found {
    /// The host had the devices registered, and listened: microseconds for each device.
    register_us: f64,
    /// The guest was connected, and had every region mapped that the directory tells of.
    connect_us: f64,
    /// The guest's driver was set up and the device activated, one after the other.
    activate_us: f64,
    /// The host's private memory, in bytes for each device that is active and idle; with all that a process has anyway.
    host_bytes: f64,
    /// The guest's.
    guest_bytes: f64,
    /// Memory shared by host and guest.
    shared_bytes: f64,
    /// The host's descriptors.
    descriptors: u64,
    /// The host's processor time for a deadline that is set and fires, always of the same device.
    same_host_ns: f64,
    /// The same, each time of another device.
    any_host_ns: f64,
    /// From setting a deadline that has passed to being told that it fired: median.
    any_round_trip_ns: f64,
}

impl Found {
    pub(crate) const HEADINGS: &str = "\
| devices | register, us | connect, us | activate, us | host, B | guest, B | shared, B | descriptors | same, ns | any, ns | there and back, ns |
| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |";

    pub(crate) fn row(&self, devices: u32) -> String {
        format!(
            "| {devices} | {:.2} | {:.2} | {:.2} | {:.0} | {:.0} | {:.0} | {} | {:.0} | {:.0} | {:.0} |",
            self.register_us,
            self.connect_us,
            self.activate_us,
            self.host_bytes,
            self.guest_bytes,
            self.shared_bytes,
            self.descriptors,
            self.same_host_ns,
            self.any_host_ns,
            self.any_round_trip_ns,
        )
    }
}

/// Starts a host, and is its guest.
pub(crate) fn measure(devices: u32, rounds: usize) -> Result<Found, Box<dyn Error>> {
    let scratch = tempfile::tempdir()?;
    let socket = scratch.path().join("bus");
    let mut host = Host(
        Command::new(env::current_exe()?)
            .args(["--host", &devices.to_string(), "--socket"])
            .arg(&socket)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?,
    );
    let said = host.0.stdout.take().ok_or("the host has no output")?;
    let mut line = String::new();
    BufReader::new(said).read_line(&mut line)?;
    let registered: f64 = line.trim().parse()?;
    let each = f64::from(devices);
    let mut found = Found {
        register_us: registered / 1_000.0 / each,
        ..Found::default()
    };
    let process = host.0.id();
    let (own_before, _) = process::memory(std::process::id())?;

    let began = Instant::now();
    let guest = Guest::connect(&socket, "scale", PATIENCE)?;
    found.connect_us = micros(began) / each;
    let began = Instant::now();
    let mut timers = Timers::activate(guest, devices)?;
    found.activate_us = micros(began) / each;
    let (own, _) = process::memory(std::process::id())?;
    let (hosts, shared) = process::memory(process)?;
    found.host_bytes = hosts as f64 / each;
    found.guest_bytes = own.saturating_sub(own_before) as f64 / each;
    found.shared_bytes = shared as f64 / each;
    found.descriptors = process::descriptors(process)?;

    // Each device is used once, so that none is new below.
    for device in 0..devices {
        timers.fire(device)?;
    }
    let before = process::processor_ns(process)?;
    for _ in 0..rounds {
        timers.fire(devices / 2)?;
    }
    found.same_host_ns = (process::processor_ns(process)? - before) as f64 / rounds as f64;

    let mut times = Vec::with_capacity(rounds);
    let before = process::processor_ns(process)?;
    // Steps through all devices without order that a prefetcher would see: the step has no factor in common with any size.
    let mut device = 0;
    for _ in 0..rounds {
        device = (device + 6_007) % devices;
        let began = Instant::now();
        timers.fire(device)?;
        times.push(began.elapsed().as_nanos() as f64);
    }
    found.any_host_ns = (process::processor_ns(process)? - before) as f64 / rounds as f64;
    found.any_round_trip_ns = median(&mut times);
    timers.guest.leave();
    Ok(found)
}

fn micros(began: Instant) -> f64 {
    began.elapsed().as_nanos() as f64 / 1_000.0
}

/// A host that ends with this value.
struct Host(Child);

impl Drop for Host {
    fn drop(&mut self) {
        // Its standard input ends here.
        drop(self.0.stdin.take());
        let _ = self.0.wait();
    }
}

struct Timers {
    guest: Guest,
    drivers: Vec<TimerDriver<Mapped>>,
}

impl Timers {
    fn activate(mut guest: Guest, devices: u32) -> Result<Self, Box<dyn Error>> {
        let drivers = (0..devices)
            .map(|device| timer_driver(&mut guest, device))
            .collect::<Result<_, _>>()?;
        Ok(Self { guest, drivers })
    }

    /// Sets a deadline that has passed, and waits to be told that it fired.
    fn fire(&mut self, device: u32) -> Result<(), Box<dyn Error>> {
        let driver = &mut self.drivers[device as usize];
        let notify = driver.set(0, monotonic_ns())?;
        self.guest.signal(device, role::DEADLINES, notify);
        loop {
            if !self.guest.wait(Some(PATIENCE))? {
                return Err(format!("timer {device} did not fire in {PATIENCE:?}").into());
            }
            while let Some(event) = self.guest.next_event() {
                let GuestEvent::Signalled {
                    device: signalled, ..
                } = event
                else {
                    continue;
                };
                let mut fired = false;
                let notify = self.drivers[signalled as usize].poll(|_| fired = true)?;
                self.guest.signal(signalled, role::DEADLINES, notify);
                if fired && signalled == device {
                    return Ok(());
                }
            }
        }
    }
}
