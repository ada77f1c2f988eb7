//! `guest clock`: the bus's time beside this machine's own.

use std::io::{self, Write};
use std::time::Duration;

use shmbus::Guest;
use shmbus::devices::clock::{ClockKind, ClockReader, Reading, monotonic_ns, realtime_ns};
use shmbus::guest::clock_reader;
use shmbus::shm::Mapped;
use shmbus::virtio::DeviceId;

use super::find;
use crate::cli::error::CliError;

pub(super) fn run(guest: &mut Guest, count: u32) -> Result<(), CliError> {
    let device = find(guest, DeviceId::CLOCK)?;
    let mut clock = clock_reader(guest, device)?;
    writeln!(
        io::stdout(),
        "clock       bus's time (ns)      off by (ns)  claimed bound (ns)  sample's age (ms)"
    )
    .map_err(CliError::Output)?;
    for reading in 0..count {
        if reading > 0 {
            std::thread::sleep(Duration::from_secs(1));
        }
        show(&mut clock, ClockKind::Utc, realtime_ns)?;
        show(&mut clock, ClockKind::Monotonic, monotonic_ns)?;
    }
    Ok(())
}

fn show(
    clock: &mut ClockReader<Mapped>,
    kind: ClockKind,
    own_clock: fn() -> u64,
) -> Result<(), CliError> {
    let (error, reading) = error_of(clock, kind, own_clock)?;
    writeln!(
        io::stdout(),
        "{:<9} {:>20} {:>12} {:>19} {:>18.1}",
        kind.to_string(),
        reading.time_ns,
        error,
        reading.error_ns,
        reading.age_ns as f64 / 1e6
    )
    .map_err(CliError::Output)
}

/// How far the bus's clock is from this machine's own, read just before and after: of several readings that of the
/// narrowest bracket, since an interruption in between is not the clock's error.
pub(super) fn error_of(
    clock: &mut ClockReader<Mapped>,
    kind: ClockKind,
    own_clock: fn() -> u64,
) -> Result<(i64, Reading), CliError> {
    const ATTEMPTS: usize = 4;
    let mut narrowest: Option<(u64, i64, Reading)> = None;
    for _ in 0..ATTEMPTS {
        let before = own_clock();
        let reading = clock.now(kind)?;
        let after = own_clock();
        let width = after.saturating_sub(before);
        let middle = before + width / 2;
        let error = reading.time_ns.wrapping_sub(middle) as i64;
        if narrowest.is_none_or(|(narrow, ..)| width < narrow) {
            narrowest = Some((width, error, reading));
        }
    }
    match narrowest {
        Some((_, error, reading)) => Ok((error, reading)),
        None => Ok((0, clock.now(kind)?)),
    }
}
