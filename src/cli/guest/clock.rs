//! `guest clock`: the bus's time beside this machine's own, or, in a virtual machine, beside the host's.

use std::io::{self, Write};
use std::time::{Duration, Instant};

use shmbus::Guest;
use shmbus::devices::clock::device::role;
use shmbus::devices::clock::{
    ClockDriver, ClockError, ClockKind, ClockReader, Counter, CounterDomain, CounterTransform,
    EstimateLimits, InjectedCounter, Reading, monotonic_ns, realtime_ns,
};
use shmbus::guest::{GuestEvent, clock_driver_over, estimate_counter};
use shmbus::shm::Mapped;
use shmbus::virtio::DeviceId;

use super::{clock_exchanges, find};
use crate::cli::error::CliError;
use crate::cli::guest_counter::fixed_point;

/// What the counter is made to show.
#[derive(Clone, Copy, Debug)]
pub(super) struct Injected {
    pub(super) scale: f64,
    pub(super) offset: i64,
}

/// Between two rows.
const PERIOD: Duration = Duration::from_secs(1);

/// Readings that a row stands for; it shows the one of them that an interruption disturbed least.
const READINGS: u64 = 1000;

pub(super) type Driver = ClockDriver<Mapped, InjectedCounter<Counter>>;

/// What the bus's time is compared with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Standard {
    /// This machine's own clock, which is the host's.
    OwnClock,
    /// What the host says in exchanges: this machine is another.
    Exchanges,
}

pub(super) fn run(
    guest: &mut Guest,
    standard: Standard,
    count: u32,
    injected: Injected,
    max_error_ns: u64,
) -> Result<(), CliError> {
    let device = find(guest, DeviceId::CLOCK)?;
    let regions = guest.regions(device);
    let Ok(clocks) = regions.get(role::CLOCKS) else {
        return super::clock_twin::run(guest, device, count);
    };
    // The host's counter may be none of this machine's.
    let nothing = CounterTransform::identity(CounterDomain::Invalid);
    let domain = ClockReader::new(clocks.clone(), Counter::monotonic_raw(), nothing)?
        .sample(ClockKind::Monotonic)?
        .domain;
    let counter = InjectedCounter::new(
        Counter::of(domain).unwrap_or_else(Counter::detect),
        fixed_point(injected.scale),
        injected.offset as u64,
    );
    let limits = EstimateLimits {
        max_error_ns,
        ..EstimateLimits::default()
    };
    let mut clock = clock_driver_over(guest, device, counter, limits)?;
    let (outside, readings) = match standard {
        Standard::OwnClock => (by_own_clock(guest, device, &mut clock, count)?, READINGS),
        Standard::Exchanges => {
            let outside = clock_exchanges::run(guest, device, &mut clock, count)?;
            (outside, clock_exchanges::PER_ROW)
        }
    };
    if outside > 0 {
        return Err(CliError::OutsideBound {
            outside,
            readings: readings * u64::from(count),
        });
    }
    Ok(())
}

/// Shows `count` rows, and returns how many readings of the monotonic clock were outside of what they claimed.
fn by_own_clock(
    guest: &mut Guest,
    device: u32,
    clock: &mut Driver,
    count: u32,
) -> Result<u64, CliError> {
    header(READINGS)?;
    let mut outside = 0;
    for row in 0..count {
        if row > 0 {
            wait(guest, device, clock)?;
        }
        if clock.must_estimate()? {
            let error_ns = estimate_counter(guest, device, clock)?;
            tracing::info!(error_ns, "this guest's counter is estimated");
        }
        // The wall clock may be set between a sample and its reading.
        show(clock, ClockKind::Utc, realtime_ns)?;
        outside += show(clock, ClockKind::Monotonic, monotonic_ns)?;
    }
    Ok(outside)
}

pub(super) fn header(readings: u64) -> Result<(), CliError> {
    print(format_args!(
        "clock       bus's time (ns)      off by (ns)  claimed bound (ns)  sample's age (ms)  outside of {readings}"
    ))
}

fn print(line: std::fmt::Arguments) -> Result<(), CliError> {
    writeln!(io::stdout(), "{line}").map_err(CliError::Output)
}

/// Until the next row; says so if the host tells of a disruption meanwhile.
fn wait(guest: &mut Guest, device: u32, clock: &mut Driver) -> Result<(), CliError> {
    let until = Instant::now() + PERIOD;
    loop {
        look_at_events(guest, device, clock)?;
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(());
        }
        guest.wait(Some(left))?;
    }
}

/// Says so if the host tells of a disruption.
pub(super) fn look_at_events(
    guest: &mut Guest,
    device: u32,
    clock: &mut Driver,
) -> Result<(), CliError> {
    guest.wait(Some(Duration::ZERO))?;
    while let Some(event) = guest.next_event() {
        match event {
            GuestEvent::Signalled {
                device: signalled,
                role: role::NOTICES,
            } if signalled == device => {
                let disruptions = clock.disruptions()?;
                if disruptions > 0 {
                    print(format_args!("disrupted {disruptions} time(s)"))?;
                }
            }
            GuestEvent::HostGone(reason) => {
                return Err(shmbus::guest::GuestError::HostGone(reason).into());
            }
            _ => {}
        }
    }
    Ok(())
}

/// Shows a clock, and returns how many readings were outside of what they claimed.
fn show(clock: &mut Driver, kind: ClockKind, own_clock: fn() -> u64) -> Result<u64, CliError> {
    let mut outside = 0;
    let mut narrowest: Option<Bracketed> = None;
    for _ in 0..READINGS {
        let bracketed = Bracketed::read(|| clock.now(kind), own_clock)?;
        outside += u64::from(!bracketed.keeps_its_claim());
        if narrowest.is_none_or(|narrow| bracketed.width() < narrow.width()) {
            narrowest = Some(bracketed);
        }
    }
    if let Some(Bracketed { reading, .. }) = narrowest {
        print(format_args!(
            "{:<9} {:>20} {:>12} {:>19} {:>18.1} {:>16}",
            kind.to_string(),
            reading.time_ns,
            narrowest.map_or(0, |narrowest| narrowest.error()),
            reading.error_ns,
            reading.age_ns as f64 / 1e6,
            outside,
        ))?;
    }
    Ok(outside)
}

/// A reading between two of this machine's own clock: whatever happens in between only widens the bracket.
#[derive(Clone, Copy, Debug)]
struct Bracketed {
    before: u64,
    reading: Reading,
    after: u64,
}

impl Bracketed {
    fn read(
        read: impl FnOnce() -> Result<Reading, ClockError>,
        own_clock: fn() -> u64,
    ) -> Result<Self, CliError> {
        let before = own_clock();
        let reading = read()?;
        let after = own_clock();
        Ok(Self {
            before,
            reading,
            after,
        })
    }

    fn width(&self) -> u64 {
        self.after.saturating_sub(self.before)
    }

    /// How far the reading is from the bracket's middle.
    fn error(&self) -> i64 {
        let middle = self.before + self.width() / 2;
        self.reading.time_ns.wrapping_sub(middle) as i64
    }

    /// Whether the clock can have shown what the reading claims.
    fn keeps_its_claim(&self) -> bool {
        let error_ns = self.reading.error_ns;
        let possible = self.before.saturating_sub(error_ns)..=self.after.saturating_add(error_ns);
        possible.contains(&self.reading.time_ns)
    }
}

/// How far the bus's clock is from this machine's own, read just before and after: of several readings that of the
/// narrowest bracket, since an interruption in between is not the clock's error.
pub(super) fn error_of(
    mut read: impl FnMut() -> Result<Reading, ClockError>,
    own_clock: fn() -> u64,
) -> Result<(i64, Reading), CliError> {
    const ATTEMPTS: usize = 4;
    let mut narrowest = Bracketed::read(&mut read, own_clock)?;
    for _ in 1..ATTEMPTS {
        let next = Bracketed::read(&mut read, own_clock)?;
        if next.width() < narrowest.width() {
            narrowest = next;
        }
    }
    Ok((narrowest.error(), narrowest.reading))
}
