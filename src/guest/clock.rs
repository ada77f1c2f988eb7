//! Clocks on a bus: reading them, and asking the host for its counter.

use std::time::{Duration, Instant};

use shmbus_devices::ActivateError;
use shmbus_devices::clock::device::{prepare, role};
use shmbus_devices::clock::{
    ClockDriver, ClockError, ClockKind, ClockReader, ClockTables, DriverError, EstimateLimits,
    Exchange, Reading, Ticks,
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
        if !ask(guest, device, driver)? {
            break;
        }
    }
    Ok(())
}

/// Asks once, and looks for the answer; returns whether it came.
fn ask<C: Ticks>(
    guest: &mut Guest,
    device: u32,
    driver: &mut ClockDriver<Mapped, C>,
) -> Result<bool, DriverError> {
    let notify = driver.ask()?;
    guest.signal(device, role::QUESTIONS, notify);
    let asked = Instant::now();
    while !driver.answered()? {
        let waited = asked.elapsed();
        if waited > PATIENCE {
            return Ok(false);
        }
        if waited > SPINNING {
            std::thread::yield_now();
        } else {
            std::hint::spin_loop();
        }
    }
    Ok(true)
}

/// Asks the host for its counter once. The answer counts for the next estimate too.
///
/// # Errors
///
/// [`GuestError::Clock`], among others [`DriverError::NoAnswer`].
pub fn exchange_counter<C: Ticks>(
    guest: &mut Guest,
    device: u32,
    driver: &mut ClockDriver<Mapped, C>,
) -> Result<Exchange, GuestError> {
    let answered = ask(guest, device, driver).map_err(|error| failed(device, error))?;
    let exchange = driver.exchange().filter(|_| answered);
    exchange.ok_or_else(|| failed(device, DriverError::NoAnswer))
}

/// A bus's clock that a guest keeps ready: if the host does not know how this guest's counter relates to its own, the guest
/// estimates it, and improves on that from time to time.
pub struct GuestClock {
    device: u32,
    driver: ClockDriver<Mapped>,
    /// None if the host knows the counter, as it does on its own processors.
    estimated: Option<Estimated>,
}

/// When the counter was estimated last, and for how long that is left as it is.
#[derive(Clone, Copy)]
struct Estimated {
    at: Instant,
    fresh_for: Duration,
}

impl Estimated {
    /// The bound of a first estimate grows fast: what the counters' ratio is measured over is short.
    const FIRST: Duration = Duration::from_millis(20);
    const LONGEST: Duration = Duration::from_secs(1);

    fn is_fresh(&self) -> bool {
        self.at.elapsed() < self.fresh_for
    }
}

impl GuestClock {
    /// The clock device `device`, whose driver is activated. No time is told with a bound above `max_error_ns` either way.
    ///
    /// # Errors
    ///
    /// [`GuestError`].
    pub fn new(guest: &mut Guest, device: u32, max_error_ns: u64) -> Result<Self, GuestError> {
        let limits = EstimateLimits {
            max_error_ns,
            ..EstimateLimits::default()
        };
        let driver = activate(guest, device)?
            .attach(limits)
            .map_err(|error| failed(device, error))?;
        let mut clock = Self {
            device,
            driver,
            estimated: None,
        };
        if clock.must_estimate()? {
            clock.estimate(guest)?;
        }
        Ok(clock)
    }

    /// What a clock shows now. Where the counter is estimated, a call blocks for some exchanges with the host once a second;
    /// otherwise it makes no system call.
    ///
    /// # Errors
    ///
    /// [`GuestError::Clock`].
    pub fn now(&mut self, guest: &mut Guest, clock: ClockKind) -> Result<Reading, GuestError> {
        if self.estimated.is_some_and(|last| !last.is_fresh()) && self.must_estimate()? {
            self.estimate(guest)?;
        }
        match self.driver.now(clock) {
            Ok(reading) => Ok(reading),
            // The bound has grown too large, or the counter was disrupted.
            Err(_) if self.must_estimate()? => {
                self.estimate(guest)?;
                self.driver.now(clock).map_err(|error| self.failed(error))
            }
            Err(error) => Err(self.failed(error)),
        }
    }

    fn must_estimate(&mut self) -> Result<bool, GuestError> {
        let must = self.driver.must_estimate();
        must.map_err(|error| self.failed(error))
    }

    fn estimate(&mut self, guest: &mut Guest) -> Result<(), GuestError> {
        estimate_counter(guest, self.device, &mut self.driver)?;
        let fresh_for = match self.estimated {
            Some(last) => (2 * last.fresh_for).min(Estimated::LONGEST),
            None => Estimated::FIRST,
        };
        let at = Instant::now();
        self.estimated = Some(Estimated { at, fresh_for });
        Ok(())
    }

    fn failed(&self, error: ClockError) -> GuestError {
        failed(self.device, error.into())
    }

    /// The clocks' reader.
    pub fn reader(&mut self) -> &mut ClockReader<Mapped> {
        self.driver.reader()
    }
}
