//! Clocks on a bus: reading them, and asking the host for its counter.

use std::time::{Duration, Instant};

use shmbus_devices::ActivateError;
use shmbus_devices::clock::device::{prepare, role};
use shmbus_devices::clock::{
    ClockDriver, ClockReader, ClockTables, DriverError, EstimateLimits, Ticks,
};
use shmbus_shm::Mapped;
use shmbus_virtio::Features;

use super::{Guest, GuestError};

/// Exchanges of a burst, of which the narrowest counts.
const EXCHANGES: usize = 24;

/// Bursts until the bound must be as small as is asked for.
const BURSTS: u32 = 20;

/// Between two bursts: their distance is what the ratio of the counters is measured over.
const BETWEEN_BURSTS: Duration = Duration::from_millis(10);

/// How long an answer is waited for: the host may be busy, or not running.
const PATIENCE: Duration = Duration::from_millis(100);

/// For how long of that the guest does nothing else.
const SPINNING: Duration = Duration::from_micros(100);

/// A reader of a clock device's clocks, for a guest on the host's own processors and with its counter. It needs no
/// driver.
///
/// # Errors
///
/// [`GuestError::Driver`].
pub fn clock_reader(guest: &Guest, device: u32) -> Result<ClockReader<Mapped>, GuestError> {
    let driver = |source: ActivateError| GuestError::Driver { device, source };
    let regions = guest.regions(device);
    let window = regions
        .get(role::CLOCKS)
        .map_err(|error| driver(error.into()))?;
    ClockReader::local(window.clone()).map_err(|error| driver(error.into()))
}

/// The driver of a clock device, which is activated: it hears how this guest's counter relates to the host's, and is
/// signalled of disruptions (the region [`role::NOTICES`]).
///
/// # Errors
///
/// [`GuestError`].
pub fn clock_driver(guest: &mut Guest, device: u32) -> Result<ClockDriver<Mapped>, GuestError> {
    let tables = activate(guest, device)?;
    tables
        .attach(EstimateLimits::default())
        .map_err(|error| failed(device, error))
}

/// The same over a counter of the caller's own.
///
/// # Errors
///
/// [`GuestError`].
pub fn clock_driver_over<C: Ticks>(
    guest: &mut Guest,
    device: u32,
    counter: C,
    limits: EstimateLimits,
) -> Result<ClockDriver<Mapped, C>, GuestError> {
    let tables = activate(guest, device)?;
    tables
        .attach_with(counter, limits)
        .map_err(|error| failed(device, error))
}

fn failed(device: u32, error: DriverError) -> GuestError {
    let source = Box::new(error);
    GuestError::Clock { device, source }
}

fn activate(guest: &mut Guest, device: u32) -> Result<ClockTables<Mapped>, GuestError> {
    let tables =
        prepare(&guest.regions(device)).map_err(|source| GuestError::Driver { device, source })?;
    guest.activate(device, Features::VERSION_1)?;
    Ok(tables)
}

/// Asks the host for its counter until this guest's is known as well as the driver's limits ask for, and returns the
/// bound in nanoseconds. Once known, a call improves on it by one burst of questions; about one a second keeps the
/// bound small. Blocks for some tens of milliseconds the first time, and for microseconds later; a few seconds if the
/// host does not answer.
///
/// # Errors
///
/// [`GuestError::Clock`]: among others [`DriverError::Bound`] if so small a bound cannot be had, and
/// [`DriverError::NoAnswer`].
pub fn estimate_counter<C: Ticks>(
    guest: &mut Guest,
    device: u32,
    driver: &mut ClockDriver<Mapped, C>,
) -> Result<u64, GuestError> {
    let failed = |error| failed(device, error);
    let mut bursts = 0;
    loop {
        ask_for_a_burst(guest, device, driver).map_err(failed)?;
        bursts += 1;
        match driver.conclude() {
            Ok(error_ns) => return Ok(error_ns),
            Err(DriverError::NoAnswer | DriverError::Bound { .. } | DriverError::Estimate(_))
                if bursts < BURSTS =>
            {
                std::thread::sleep(BETWEEN_BURSTS);
            }
            Err(error) => return Err(failed(error)),
        }
    }
}

fn ask_for_a_burst<C: Ticks>(
    guest: &mut Guest,
    device: u32,
    driver: &mut ClockDriver<Mapped, C>,
) -> Result<(), DriverError> {
    for _ in 0..EXCHANGES {
        let notify = driver.ask()?;
        guest.signal(device, role::QUESTIONS, notify);
        let asked = Instant::now();
        while !driver.answered()? {
            let waited = asked.elapsed();
            if waited > PATIENCE {
                return Ok(());
            }
            if waited > SPINNING {
                std::thread::yield_now();
            } else {
                std::hint::spin_loop();
            }
        }
    }
    Ok(())
}
