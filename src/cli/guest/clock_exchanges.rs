//! `guest clock` in a virtual machine, whose own clock is another machine's: the bus's time beside the host's, by exchanges.
//!
//! In an exchange the host says what its counter showed at some moment between two readings of this guest's. What the host's clock
//! showed then follows from its own sample, without any estimate. So the reading before, less its bound, may not be later, nor
//! the reading after, plus its bound, earlier. The estimate is older than the exchanges that check it, by up to a row's time.

use std::io::{self, Write};
use std::time::Duration;

use shmbus::Guest;
use shmbus::devices::clock::{ClockKind, Reading};
use shmbus::guest::{estimate_counter, exchange_counter};

use super::clock::{Driver, header};
use crate::cli::error::CliError;

/// Rounds of exchanges of a row, and how many there are in each.
const ROUNDS: u32 = 20;
const EXCHANGES: u32 = 10;
/// Between two rounds: a row takes about a second.
const BETWEEN: Duration = Duration::from_millis(50);

/// Exchanges of a row.
pub(super) const PER_ROW: u64 = ROUNDS as u64 * EXCHANGES as u64;

/// The host's time, and the bus's as this guest reads it, before and after.
#[derive(Clone, Copy, Debug)]
struct Bracketed {
    before: Reading,
    host: Reading,
    after: Reading,
}

impl Bracketed {
    fn width(&self) -> u64 {
        self.after.time_ns.saturating_sub(self.before.time_ns)
    }

    /// How far the bracket's middle is from the host's time.
    fn error(&self) -> i64 {
        let middle = self.before.time_ns + self.width() / 2;
        middle.wrapping_sub(self.host.time_ns) as i64
    }

    fn keeps_its_claim(&self) -> bool {
        let least = |reading: &Reading| reading.time_ns.saturating_sub(reading.error_ns);
        let most = |reading: &Reading| reading.time_ns.saturating_add(reading.error_ns);
        least(&self.before) <= most(&self.host) && least(&self.host) <= most(&self.after)
    }
}

/// What a row shows of a clock.
#[derive(Default)]
struct Row {
    narrowest: Option<Bracketed>,
    outside: u64,
}

impl Row {
    fn take(&mut self, bracketed: Bracketed) {
        self.outside += u64::from(!bracketed.keeps_its_claim());
        let width = bracketed.width();
        if self.narrowest.is_none_or(|narrow| width < narrow.width()) {
            self.narrowest = Some(bracketed);
        }
    }

    fn show(&self, kind: ClockKind) -> Result<(), CliError> {
        let Some(bracketed) = self.narrowest else {
            return Ok(());
        };
        let reading = bracketed.after;
        writeln!(
            io::stdout(),
            "{:<9} {:>20} {:>12} {:>19} {:>18.1} {:>16}",
            kind.to_string(),
            reading.time_ns,
            bracketed.error(),
            reading.error_ns,
            reading.age_ns as f64 / 1e6,
            self.outside,
        )
        .map_err(CliError::Output)
    }
}

/// Shows `count` rows, and returns how many readings of the monotonic clock were outside of what they claimed. The other may be set
/// between a sample and its reading.
pub(super) fn run(
    guest: &mut Guest,
    device: u32,
    clock: &mut Driver,
    count: u32,
) -> Result<u64, CliError> {
    header(PER_ROW)?;
    let mut outside = 0;
    for _ in 0..count {
        estimate(guest, device, clock)?;
        let (mut utc, mut monotonic) = (Row::default(), Row::default());
        for _ in 0..ROUNDS {
            // The bound of a first estimate may grow too large before the row is full: under load, exchanges take long.
            if clock.now(ClockKind::Monotonic).is_err() {
                estimate(guest, device, clock)?;
            }
            for _ in 0..EXCHANGES {
                utc.take(exchange(guest, device, clock, ClockKind::Utc)?);
                monotonic.take(exchange(guest, device, clock, ClockKind::Monotonic)?);
            }
            std::thread::sleep(BETWEEN);
            super::clock::look_at_events(guest, device, clock)?;
        }
        utc.show(ClockKind::Utc)?;
        monotonic.show(ClockKind::Monotonic)?;
        outside += monotonic.outside;
    }
    Ok(outside)
}

/// Where the host does not know this guest's counter.
fn estimate(guest: &mut Guest, device: u32, clock: &mut Driver) -> Result<(), CliError> {
    if clock.must_estimate()? {
        let error_ns = estimate_counter(guest, device, clock)?;
        tracing::info!(error_ns, "this guest's counter is estimated");
    }
    Ok(())
}

fn exchange(
    guest: &mut Guest,
    device: u32,
    clock: &mut Driver,
    kind: ClockKind,
) -> Result<Bracketed, CliError> {
    // Older than the exchange: a sample does not say what was long before it.
    let sample = clock.reader().sample(kind)?;
    let before = clock.now(kind)?;
    let exchange = exchange_counter(guest, device, clock)?;
    let after = clock.now(kind)?;
    let host = sample
        .extrapolate(exchange.host)
        .map_err(|error| CliError::HostsTime(error.to_string()))?;
    Ok(Bracketed {
        before,
        host,
        after,
    })
}
