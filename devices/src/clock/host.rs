//! The host's clocks, measured against its counter.

use std::time::Duration;

use rustix::time::ClockId;

use super::counter::{Ticks, nanoseconds};
use super::discipline::{CalibrationError, CounterPair, Discipline, DisciplineLimits};
use super::sample::{ClockKind, ClockSample, ClockStatus};

/// How many brackets a pair is the narrowest of: enough that one of them is hardly ever interrupted.
const ATTEMPTS: u32 = 8;

const SECOND_NS: u64 = 1_000_000_000;

/// The host's `CLOCK_MONOTONIC` in nanoseconds: the time that the bus's deadlines are in.
pub fn monotonic_ns() -> u64 {
    nanoseconds(ClockId::Monotonic)
}

/// The host's `CLOCK_REALTIME` in nanoseconds since 1970.
pub fn realtime_ns() -> u64 {
    nanoseconds(ClockId::Realtime)
}

fn tai_ns() -> u64 {
    // Miri knows no TAI; a kernel that does not know its offset shows UTC there, too.
    nanoseconds(if cfg!(miri) {
        ClockId::Realtime
    } else {
        ClockId::Tai
    })
}

/// A sample of each clock that is served, in the order of [`ClockKind::ALL`].
pub type Samples = [Option<ClockSample>; ClockKind::ALL.len()];

/// Where the time comes from: in tests, from elsewhere than the kernel.
#[derive(Clone, Copy, Debug)]
struct Sources {
    utc: fn() -> u64,
    tai: fn() -> u64,
    monotonic: fn() -> u64,
}

/// This machine's clocks, each followed by a [`Discipline`].
///
/// UTC and the monotonic clock are always served. TAI is UTC and an offset that a time daemon gives the kernel; until
/// then the kernel's is 0, which it has not been since 1961. So TAI is served from when the offset is another one.
#[derive(Clone, Debug)]
pub struct HostClocks<C> {
    counter: C,
    sources: Sources,
    utc: Discipline,
    tai: Option<Discipline>,
    monotonic: Discipline,
    /// The disruption marker that all began with.
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
        let sources = Sources {
            utc: realtime_ns,
            tai: tai_ns,
            monotonic: monotonic_ns,
        };
        Self::calibrate_to(sources, counter, limits)
    }

    fn calibrate_to(
        sources: Sources,
        counter: C,
        limits: DisciplineLimits,
    ) -> Result<Self, CalibrationError> {
        let pairs = || {
            (
                CounterPair::narrowest(&counter, sources.utc, ATTEMPTS),
                CounterPair::narrowest(&counter, sources.monotonic, ATTEMPTS),
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
            tai: None,
            monotonic: follow(ClockKind::Monotonic, first.1, second.1)?,
            born: disruption,
            counter,
            sources,
        })
    }

    /// Reads the clocks again, and returns the samples to publish.
    pub fn measure(&mut self) -> Samples {
        let utc = CounterPair::narrowest(&self.counter, self.sources.utc, ATTEMPTS);
        self.utc.observe(utc);
        let monotonic = CounterPair::narrowest(&self.counter, self.sources.monotonic, ATTEMPTS);
        self.monotonic.observe(monotonic);
        match (&mut self.tai, self.sources.tai_offset_ns()) {
            (Some(tai), Some(1..)) => {
                tai.observe(CounterPair::narrowest(
                    &self.counter,
                    self.sources.tai,
                    ATTEMPTS,
                ));
            }
            (tai @ None, Some(offset_ns @ 1..)) => {
                *tai = Some(self.utc.offset_by(ClockKind::Tai, offset_ns, self.born));
            }
            // Known no more: what was known last goes on, and says so.
            (Some(tai), _) => tai.run_free(),
            (None, _) => {}
        }
        self.samples()
    }

    /// How far TAI is ahead of UTC, in whole seconds; none if nobody has told the kernel.
    pub fn tai_offset_s(&self) -> Option<u16> {
        let sample = self.tai.as_ref()?.sample();
        let ahead = sample.time_ns.checked_sub(self.utc.sample().time_ns)?;
        // Both were measured within the same call, microseconds apart.
        (sample.status != ClockStatus::FreeRunning)
            .then(|| u16::try_from((ahead + SECOND_NS / 2) / SECOND_NS).ok())?
    }

    /// How often a clock was found set, or the counter to have jumped.
    pub fn disruptions(&self) -> u64 {
        self.samples()
            .iter()
            .flatten()
            .map(|sample| sample.disruption.wrapping_sub(self.born))
            .fold(0, u64::saturating_add)
    }

    /// The newest samples, without reading the clocks.
    pub fn samples(&self) -> Samples {
        [
            Some(*self.utc.sample()),
            self.tai.as_ref().map(|tai| *tai.sample()),
            Some(*self.monotonic.sample()),
        ]
    }

    /// The counter that the samples are taken with.
    pub fn counter(&self) -> &C {
        &self.counter
    }
}

impl Sources {
    /// The kernel's offset of TAI, which is one of whole seconds; none if the clocks were set meanwhile, so that it
    /// cannot be told.
    fn tai_offset_ns(&self) -> Option<u64> {
        let before = (self.utc)();
        let tai = (self.tai)();
        let after = (self.utc)();
        let took = after.checked_sub(before)?;
        let least = tai.saturating_sub(after);
        let offset = least.div_ceil(SECOND_NS) * SECOND_NS;
        // A single whole number of seconds lies in the bracket.
        (took < SECOND_NS && offset <= tai.saturating_sub(before)).then_some(offset)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

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
                let sources = [realtime_ns, tai_ns, monotonic_ns];
                for (sample, clock) in samples.iter().zip(sources) {
                    let Some(sample) = sample else { continue };
                    let before = clock();
                    let reading = sample.extrapolate(counter.now()).unwrap();
                    let after = clock();
                    if before > after {
                        continue; // The wall clock was set meanwhile.
                    }
                    if sample.clock != ClockKind::Monotonic
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

    /// Seconds that a time daemon has given the kernel.
    static TAI_OFFSET_S: AtomicU64 = AtomicU64::new(0);

    fn told_tai_ns() -> u64 {
        monotonic_ns() + TAI_OFFSET_S.load(Ordering::Relaxed) * SECOND_NS
    }

    /// With the monotonic clock for UTC, so that nobody sets it.
    #[test]
    fn tai_is_served_while_its_offset_is_known() {
        let sources = Sources {
            utc: monotonic_ns,
            tai: told_tai_ns,
            monotonic: monotonic_ns,
        };
        let counter = Counter::detect();
        let limits = DisciplineLimits::default();
        let mut clocks = HostClocks::calibrate_to(sources, counter, limits).unwrap();
        assert_eq!((clocks.measure()[1], clocks.tai_offset_s()), (None, None));
        TAI_OFFSET_S.store(37, Ordering::Relaxed);
        for _ in 0..3 {
            let before = told_tai_ns();
            let tai = clocks.measure()[1].unwrap();
            let reading = tai.extrapolate(counter.now()).unwrap();
            let after = told_tai_ns();
            let possible = before - reading.error_ns..=after + reading.error_ns;
            assert!(possible.contains(&reading.time_ns), "{reading:?}");
            assert_eq!((tai.clock, tai.disruption), (ClockKind::Tai, clocks.born));
            assert_eq!(clocks.tai_offset_s(), Some(37));
        }
        // A leap second: TAI does not notice.
        TAI_OFFSET_S.store(0, Ordering::Relaxed);
        let tai = clocks.measure()[1].unwrap();
        assert_eq!(tai.status, ClockStatus::FreeRunning);
        assert_eq!((tai.disruption, clocks.tai_offset_s()), (clocks.born, None));
    }
}
