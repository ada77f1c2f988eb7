//! `guest clock` where the clock is a twin over rings: the same figures.

use std::io::{self, Write};
use std::time::{Duration, Instant};

use shmbus::Guest;
use shmbus::devices::clock::twin::{TwinClockReader, role};
use shmbus::devices::clock::{ClockKind, monotonic_ns, realtime_ns};
use shmbus::guest::{GuestEvent, clock_twin};

use crate::cli::error::CliError;

pub(super) fn run(guest: &mut Guest, device: u32, count: u32) -> Result<(), CliError> {
    let mut clock = clock_twin(guest, device)?;
    writeln!(
        io::stdout(),
        "clock       bus's time (ns)      off by (ns)  claimed bound (ns)  sample's age (ms)"
    )
    .map_err(CliError::Output)?;
    for reading in 0..count {
        if reading > 0 {
            std::thread::sleep(Duration::from_secs(1));
        }
        show(guest, device, &mut clock, ClockKind::Utc, realtime_ns)?;
        show(
            guest,
            device,
            &mut clock,
            ClockKind::Monotonic,
            monotonic_ns,
        )?;
    }
    Ok(())
}

/// Takes what has come. A ring may hold less than a sample of each clock: then the host is told of the buffers that are
/// lent again, and sends the others.
fn receive(
    guest: &mut Guest,
    device: u32,
    clock: &mut TwinClockReader,
    kind: ClockKind,
) -> Result<(), CliError> {
    let overdue = Instant::now() + super::PATIENCE;
    loop {
        let notify = clock.receive()?;
        guest.signal(device, role::SAMPLES_DRIVER, notify);
        if clock.now(kind).is_ok() || Instant::now() > overdue {
            return Ok(());
        }
        guest.wait(Some(super::PATIENCE))?;
        while let Some(event) = guest.next_event() {
            if let GuestEvent::HostGone(reason) = event {
                return Err(shmbus::GuestError::HostGone(reason).into());
            }
        }
    }
}

fn show(
    guest: &mut Guest,
    device: u32,
    clock: &mut TwinClockReader,
    kind: ClockKind,
    own_clock: fn() -> u64,
) -> Result<(), CliError> {
    receive(guest, device, clock, kind)?;
    let before = own_clock();
    let reading = clock.now(kind)?;
    let after = own_clock();
    let middle = before + after.saturating_sub(before) / 2;
    writeln!(
        io::stdout(),
        "{:<9} {:>20} {:>12} {:>19} {:>18.1}",
        kind.to_string(),
        reading.time_ns,
        reading.time_ns.wrapping_sub(middle) as i64,
        reading.error_ns,
        reading.age_ns as f64 / 1e6
    )
    .map_err(CliError::Output)
}
