//! The host's clocks, measured against its counter.

use std::time::Duration;

use rustix::time::ClockId;

use super::counter::{Ticks, nanoseconds};
use super::discipline::{CalibrationError, CounterPair, Discipline, DisciplineLimits};
use super::sample::{ClockKind, ClockSample};

/// The clocks that a host serves. TAI is not among them: Linux tells it without saying whether it knows the offset.
pub const SERVED: [ClockKind; 2] = [ClockKind::Utc, ClockKind::Monotonic];

/// How many brackets a pair is the narrowest of: enough that one of them is hardly ever interrupted.
const ATTEMPTS: u32 = 8;

/// The host's `CLOCK_MONOTONIC` in nanoseconds: the time that the bus's deadlines are in.
pub fn monotonic_ns() -> u64 {
    nanoseconds(ClockId::Monotonic)
}

/// The host's `CLOCK_REALTIME` in nanoseconds since 1970.
pub fn realtime_ns() -> u64 {
    nanoseconds(ClockId::Realtime)
}

/// This machine's clocks, each followed by a [`Discipline`].
#[derive(Clone, Debug)]
pub struct HostClocks<C> {
    counter: C,
    utc: Discipline,
    monotonic: Discipline,
    /// The disruption marker that both began with.
    born: u64,
}

impl<C: Ticks> HostClocks<C> {
    /// How long [`HostClocks::calibrate`] blocks: a bracket of 50 ns over 4 ms gives the first rate to 25 ppm, and
    /// every later sample improves on it.
    pub const CALIBRATION: Duration = Duration::from_millis(4);

    /// Measures the clocks' rates; blocks for [`HostClocks::CALIBRATION`].
    ///
    /// # Errors
    ///
    /// [`CalibrationError`] if the counter does not count, or a clock was set back meanwhile.
    pub fn calibrate(counter: C, limits: DisciplineLimits) -> Result<Self, CalibrationError> {
        let pairs = || {
            (
                CounterPair::narrowest(&counter, realtime_ns, ATTEMPTS),
                CounterPair::narrowest(&counter, monotonic_ns, ATTEMPTS),
            )
        };
        let first = pairs();
        std::thread::sleep(Self::CALIBRATION);
        let second = pairs();
        // Nobody can tell whether this host goes on where another one stopped, so its life is a disruption of its own.
        let disruption = first.0.time_ns;
        let follow = |clock, first, second| {
            Discipline::calibrate(counter.domain(), clock, first, second, disruption, limits)
        };
        Ok(Self {
            utc: follow(ClockKind::Utc, first.0, second.0)?,
            monotonic: follow(ClockKind::Monotonic, first.1, second.1)?,
            born: disruption,
            counter,
        })
    }

    /// Reads the clocks again, and returns the samples to publish: those of [`SERVED`], in that order.
    pub fn measure(&mut self) -> [ClockSample; SERVED.len()] {
        let utc = CounterPair::narrowest(&self.counter, realtime_ns, ATTEMPTS);
        let monotonic = CounterPair::narrowest(&self.counter, monotonic_ns, ATTEMPTS);
        [*self.utc.observe(utc), *self.monotonic.observe(monotonic)]
    }

    /// How often a clock was found set, or the counter to have jumped.
    pub fn disruptions(&self) -> u64 {
        [&self.utc, &self.monotonic]
            .into_iter()
            .map(|clock| clock.sample().disruption.wrapping_sub(self.born))
            .fold(0, u64::saturating_add)
    }

    /// The newest samples, without reading the clocks.
    pub fn samples(&self) -> [ClockSample; SERVED.len()] {
        [*self.utc.sample(), *self.monotonic.sample()]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Counter;

    /// The samples are true: at every moment the host's clock lies within the bound, which brackets make certain
    /// however the thread is scheduled.
    #[test]
    fn the_host_s_clocks_lie_within_the_published_bound() {
        for counter in [Counter::detect(), Counter::monotonic_raw()] {
            let mut clocks = HostClocks::calibrate(counter, DisciplineLimits::default()).unwrap();
            let rounds = if cfg!(miri) { 3 } else { 2_000 };
            let (mut readings, mut narrow) = (0, 0);
            for round in 0..rounds {
                let samples = if round % 20 == 0 {
                    clocks.measure()
                } else {
                    clocks.samples()
                };
                for (sample, clock) in samples.iter().zip([realtime_ns, monotonic_ns]) {
                    let before = clock();
                    let reading = sample.extrapolate(counter.now()).unwrap();
                    let after = clock();
                    if before > after {
                        continue; // The wall clock was set meanwhile.
                    }
                    if sample.clock == ClockKind::Utc
                        && reading.time_ns.abs_diff(before) > 1_000_000_000
                    {
                        continue; // The wall clock was set since the last measurement.
                    }
                    let earliest = before.saturating_sub(reading.error_ns);
                    let latest = after.saturating_add(reading.error_ns);
                    assert!(
                        (earliest..=latest).contains(&reading.time_ns),
                        "{counter:?}: {reading:?} outside {before}..={after}"
                    );
                    readings += 1;
                    narrow += u32::from(reading.error_ns < 100_000);
                }
            }
            assert!(readings >= rounds, "too few readings: {readings}");
            assert!(
                cfg!(miri) || narrow > 0,
                "a bound of 100 us or more says nothing"
            );
        }
    }
}
