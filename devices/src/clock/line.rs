//! One reader's view of one clock: samples made into a line over the reader's own counter.

use super::counter::CounterDomain;
use super::estimate::Estimate;
use super::sample::{ClockKind, ClockSample, ExtrapolationError, Rate, Reading};
use super::transform::{CounterTransform, TransformSource};

/// A clock's slot, though a valid sample, does not tell this reader the time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TimelineError {
    /// The sample is of another clock.
    #[error("the slot of the {expected} clock holds a sample of {found}")]
    OtherClock {
        /// The clock that was asked for.
        expected: ClockKind,
        /// The clock that the slot tells.
        found: ClockKind,
    },
    /// The sample was taken with a counter that the reader's transform does not lead to.
    #[error("the clock counts with {found:?}, but this reader's counter relates to {expected:?}")]
    OtherCounter {
        /// What the transform leads to.
        expected: CounterDomain,
        /// What the sample was taken with.
        found: CounterDomain,
    },
    /// The transform is for a counter that the reader does not have.
    #[error("the transform leads from {expected:?}, but this reader counts with {found:?}")]
    OtherReader {
        /// What the transform leads from.
        expected: CounterDomain,
        /// What the reader has.
        found: CounterDomain,
    },
    /// Nothing relates the reader's counter to any other.
    #[error("this reader's counter has no valid transform to the clock's")]
    NoTransform,
    /// The estimate of the reader's counter has become too uncertain, or never was certain enough.
    #[error("the reader's counter is known to {error_ns} ns, and {max_error_ns} ns were asked for")]
    Uncertain {
        /// The bound that can be stated now, in nanoseconds.
        error_ns: u64,
        /// The largest one that the reader accepts.
        max_error_ns: u64,
    },
    /// The sample does not reach to now.
    #[error(transparent)]
    Extrapolation(#[from] ExtrapolationError),
}

/// How the reader's counter relates to the host's, with what it takes to judge that.
#[derive(Clone, Copy, Debug)]
pub(super) enum Mapping {
    /// The host, or whoever made the reader, says so.
    Told(CounterTransform),
    /// The reader found out.
    Estimated {
        estimate: Estimate,
        /// The counters that it relates: the reader's, and the host's.
        transform: CounterTransform,
        max_error_ns: u64,
    },
}

impl Mapping {
    fn transform(&self) -> &CounterTransform {
        match self {
            Self::Told(transform) | Self::Estimated { transform, .. } => transform,
        }
    }

    /// The host's count, and the bound on that in nanoseconds, for a counter that was read after the sample.
    fn to_host(self, counter: u64, sample: &ClockSample) -> Result<(u64, u64), TimelineError> {
        match self {
            Self::Told(transform) => Ok((transform.to_host(counter), transform.error_ns)),
            Self::Estimated {
                estimate,
                max_error_ns,
                ..
            } => {
                let (host, ticks) = estimate.to_host(counter);
                let error_ns = sample.rate.elapsed_ns(ticks) + 1;
                let error_ns = u64::try_from(error_ns).unwrap_or(u64::MAX);
                if error_ns > max_error_ns {
                    return Err(TimelineError::Uncertain {
                        error_ns,
                        max_error_ns,
                    });
                }
                // The host's counter is not behind the sample, which was there before. Where only the estimate says so, the
                // sample's count is as near, and within the same bound.
                let behind = sample.counter.wrapping_sub(host);
                match (1..=ticks).contains(&behind) {
                    true => Ok((sample.counter, error_ns)),
                    false => Ok((host, error_ns)),
                }
            }
        }
    }

    /// How long an estimate's bound stays below what is asked for.
    fn good_for_ns(&self, counter: u64, sample: &ClockSample) -> Option<u64> {
        let Self::Estimated {
            estimate,
            max_error_ns,
            ..
        } = self
        else {
            return None;
        };
        let (_, error_ns) = self.to_host(counter, sample).ok()?;
        let left = u128::from(max_error_ns.saturating_sub(error_ns)) * 1_000_000_000;
        u64::try_from(left / u128::from(estimate.growth_ppb.max(1))).ok()
    }

    fn scale(&self) -> u64 {
        match self {
            Self::Told(transform) => transform.scale,
            Self::Estimated { estimate, .. } => estimate.scale,
        }
    }
}

/// What a sample, a mapping and one value of the reader's counter make: while neither sample nor mapping changes, a
/// time costs two multiplications, whatever the mapping is.
#[derive(Clone, Copy, Debug)]
struct Line {
    /// The reader's count that it starts from.
    start: u64,
    /// How far behind `start` the sums below do not leave 64 bits, nor the sample its validity; farther, the exact way
    /// is taken, which says what is wrong.
    reach: u64,
    /// Time, bound and age at `start`, in nanoseconds.
    time_ns: u64,
    error_ns: u64,
    age_ns: u64,
    /// Nanoseconds for each of the reader's ticks, with 48 fractional bits.
    rate: u64,
    /// How much the bound grows with each of them, likewise.
    growth: u64,
}

const FRACTION_BITS: u32 = Rate::FRACTION_BITS;

fn product(ticks: u64, rate: u64) -> u64 {
    ((u128::from(ticks) * u128::from(rate)) >> FRACTION_BITS) as u64
}

/// Turns samples of one clock into times that do not run backwards.
///
/// Only a disruption may set them back: within one, a sample that lies a little before what was already told (another
/// processor's counter, a rate that was corrected) repeats the last time instead, and its bound is widened by that.
#[derive(Clone, Copy, Debug)]
pub(super) struct Timeline {
    clock: ClockKind,
    line: Option<(Line, ClockSample)>,
    /// The last time told, and under which disruption.
    last_ns: u64,
    disruption: u64,
}

impl Timeline {
    pub(super) fn new(clock: ClockKind) -> Self {
        Self {
            clock,
            line: None,
            last_ns: 0,
            disruption: 0,
        }
    }

    /// Has the next time told from the sample itself.
    pub(super) fn begin_anew(&mut self) {
        self.line = None;
    }

    /// Takes over a new sample or mapping: until then, [`Timeline::glance`] goes by the last ones. `disruption` is the
    /// reader's counter's own marker.
    pub(super) fn follow(
        &mut self,
        sample: &ClockSample,
        mapping: &Mapping,
        disruption: u64,
        counter: u64,
    ) -> Result<Reading, TimelineError> {
        self.line = None;
        if sample.clock != self.clock {
            return Err(TimelineError::OtherClock {
                expected: self.clock,
                found: sample.clock,
            });
        }
        let transform = mapping.transform();
        if transform.source == TransformSource::Invalid || transform.host == CounterDomain::Invalid
        {
            return Err(TimelineError::NoTransform);
        }
        if sample.domain != transform.host {
            return Err(TimelineError::OtherCounter {
                expected: transform.host,
                found: sample.domain,
            });
        }
        let sample = ClockSample {
            disruption: sample.disruption.wrapping_add(disruption),
            ..*sample
        };
        let reading = self.exactly(&sample, mapping, counter)?;
        if let Some(line) = Line::through(&reading, &sample, mapping, counter) {
            self.line = Some((line, sample));
        }
        Ok(self.forwards(reading))
    }

    /// The time at the reader's counter value `counter`, if the last sample and mapping are still the newest, as far as
    /// that is cheap.
    #[inline(always)]
    pub(super) fn glance(&mut self, counter: u64) -> Option<Reading> {
        let (line, sample) = self.line.as_ref()?;
        let ticks = counter.wrapping_sub(line.start);
        if ticks > line.reach {
            return None;
        }
        let elapsed_ns = product(ticks, line.rate);
        let reading = Reading {
            time_ns: line.time_ns + elapsed_ns,
            error_ns: line.error_ns + product(ticks, line.growth),
            age_ns: line.age_ns + elapsed_ns,
            status: sample.status,
            disruption: sample.disruption,
        };
        Some(self.forwards(reading))
    }

    /// The time without a line.
    fn exactly(
        &self,
        sample: &ClockSample,
        mapping: &Mapping,
        counter: u64,
    ) -> Result<Reading, TimelineError> {
        let (host, error_ns) = mapping.to_host(counter, sample)?;
        let mut reading = sample.extrapolate(host)?;
        reading.error_ns = reading.error_ns.saturating_add(error_ns);
        Ok(reading)
    }

    /// Sees to it that time does not run backwards.
    #[inline(always)]
    fn forwards(&mut self, mut reading: Reading) -> Reading {
        if reading.time_ns < self.last_ns || reading.disruption != self.disruption {
            if reading.disruption == self.disruption {
                let held_back = self.last_ns - reading.time_ns;
                reading.error_ns = reading.error_ns.saturating_add(held_back);
                reading.time_ns = self.last_ns;
            }
            self.disruption = reading.disruption;
        }
        self.last_ns = reading.time_ns;
        reading
    }
}

impl Line {
    /// The line from a reading at `counter` on; none if its rates are out of range.
    fn through(
        reading: &Reading,
        sample: &ClockSample,
        mapping: &Mapping,
        counter: u64,
    ) -> Option<Self> {
        let scale = mapping.scale();
        let rate = (u128::from(sample.rate.bits()) * u128::from(scale)) >> FRACTION_BITS;
        let growth_ppb = u64::from(sample.error_growth_ppb)
            + match mapping {
                Mapping::Told(_) => 0,
                Mapping::Estimated { estimate, .. } => u64::from(estimate.growth_ppb),
            };
        // Of the rate before it was cut.
        let growth = ((rate + 1) * u128::from(growth_ppb)).div_ceil(1_000_000_000) + 1;
        // What rounding adds, and what the bound grows by meanwhile: the time's and the bound's own product, and one
        // tick of the host's that a scaled count was cut by; the rate's own rounding is below a nanosecond for as long
        // as its ticks are fewer than 2^48.
        let tick_ns = if scale == CounterTransform::SCALE_ONE {
            0
        } else {
            (sample.rate.bits() >> FRACTION_BITS) + 1
        };
        let (rate, growth) = (u64::try_from(rate).ok()?, u64::try_from(growth).ok()?);
        let unseen_ns = u128::from(tick_ns) + 2;
        let unseen_growth = (unseen_ns * u128::from(growth_ppb)).div_ceil(1_000_000_000);
        let error_ns = reading
            .error_ns
            .saturating_add(3)
            .saturating_add(tick_ns)
            .saturating_add(u64::try_from(unseen_growth).unwrap_or(u64::MAX));
        let mut forward_ns = sample
            .valid_for_ns
            .saturating_sub(reading.age_ns)
            .min(u64::MAX - reading.time_ns)
            .min(u64::MAX - reading.age_ns);
        if let Some(good_for_ns) = mapping.good_for_ns(counter, sample) {
            forward_ns = forward_ns.min(good_for_ns);
        }
        let in_ticks = |ns: u64, rate: u64| {
            let ticks = (u128::from(ns) << FRACTION_BITS) / u128::from(rate.max(1));
            u64::try_from(ticks).unwrap_or(u64::MAX)
        };
        Some(Self {
            start: counter,
            reach: in_ticks(forward_ns, rate)
                .min(in_ticks(u64::MAX - error_ns, growth))
                .min(1 << FRACTION_BITS),
            time_ns: reading.time_ns,
            error_ns,
            age_ns: reading.age_ns,
            rate,
            growth,
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::clock::{ClockStatus, Leap};

    fn sample() -> ClockSample {
        ClockSample {
            domain: CounterDomain::Tsc,
            clock: ClockKind::Monotonic,
            status: ClockStatus::Synchronized,
            leap: Leap::Unknown,
            error_growth_ppb: 0,
            counter: 1_000,
            time_ns: 50_000,
            rate: Rate::ONE,
            error_ns: 10,
            disruption: 1,
            valid_for_ns: 1_000_000,
        }
    }

    fn identity() -> Mapping {
        Mapping::Told(CounterTransform::identity(CounterDomain::Tsc))
    }

    #[test]
    fn time_goes_back_only_by_a_disruption() {
        let mut timeline = Timeline::new(ClockKind::Monotonic);
        let told = timeline.follow(&sample(), &identity(), 0, 1_500).unwrap();
        assert_eq!((told.time_ns, told.error_ns), (50_500, 12));
        let told = timeline.glance(1_600).unwrap();
        assert_eq!(
            (told.time_ns, told.error_ns, told.age_ns),
            (50_600, 15, 600)
        );
        assert_eq!(timeline.glance(1_499), None, "the exact way");

        let corrected = ClockSample {
            time_ns: 49_900,
            ..sample()
        };
        let told = timeline.follow(&corrected, &identity(), 0, 1_550).unwrap();
        assert_eq!((told.time_ns, told.error_ns), (50_600, 12 + 150));
        let told = timeline.glance(1_560).unwrap();
        assert_eq!((told.time_ns, told.error_ns), (50_600, 15 + 140));

        let set_back = ClockSample {
            disruption: 2,
            ..corrected
        };
        let told = timeline.follow(&set_back, &identity(), 0, 1_550).unwrap();
        assert_eq!((told.time_ns, told.error_ns), (50_450, 12));
        // The reader's own counter may be what was disrupted.
        let told = timeline.follow(&set_back, &identity(), 7, 1_500).unwrap();
        assert_eq!((told.time_ns, told.disruption), (50_400, 9));
    }

    /// The sample was there when the counter was read: an unsure estimate that says otherwise is only unsure.
    #[test]
    fn a_sample_that_is_fresher_than_an_estimate_is_sure_is_not_from_the_future() {
        let sample = ClockSample {
            counter: 1_000_000,
            ..sample()
        };
        let estimated = |error_ticks| Mapping::Estimated {
            estimate: Estimate {
                guest: 600_000,
                host: 600_000,
                scale: CounterTransform::SCALE_ONE,
                error_ticks,
                growth_ppb: 0,
            },
            transform: CounterTransform::identity(CounterDomain::Tsc),
            max_error_ns: 1_000_000,
        };
        let mut timeline = Timeline::new(ClockKind::Monotonic);
        let told = timeline.follow(&sample, &estimated(400_000), 0, 600_000);
        let told = told.unwrap();
        assert_eq!((told.time_ns, told.age_ns), (50_000, 0));
        // The host's counter was at most that sure bound beyond the estimate.
        assert!((400_000..400_100).contains(&told.error_ns), "{told:?}");
        assert_eq!(timeline.glance(600_100).unwrap().time_ns, 50_100);
        let surer = timeline.follow(&sample, &estimated(300_000), 0, 600_000);
        assert!(
            matches!(surer, Err(TimelineError::Extrapolation(_))),
            "{surer:?}"
        );
    }

    #[test]
    fn what_belongs_to_another_clock_or_counter_is_refused() {
        let mut timeline = Timeline::new(ClockKind::Utc);
        assert_eq!(
            timeline.follow(&sample(), &identity(), 0, 1_500),
            Err(TimelineError::OtherClock {
                expected: ClockKind::Utc,
                found: ClockKind::Monotonic
            })
        );
        let mut timeline = Timeline::new(ClockKind::Monotonic);
        timeline.follow(&sample(), &identity(), 0, 1_500).unwrap();
        let other = CounterTransform::identity(CounterDomain::MonotonicRaw);
        assert_eq!(
            timeline.follow(&sample(), &Mapping::Told(other), 0, 1_500),
            Err(TimelineError::OtherCounter {
                expected: CounterDomain::MonotonicRaw,
                found: CounterDomain::Tsc
            })
        );
        assert_eq!(timeline.glance(1_500), None, "the old line does not hold");
        let unknown = CounterTransform::unknown(CounterDomain::Tsc, CounterDomain::Tsc);
        assert_eq!(
            timeline.follow(&sample(), &Mapping::Told(unknown), 0, 1_500),
            Err(TimelineError::NoTransform)
        );
        assert!(matches!(
            timeline.follow(&sample(), &identity(), 0, 2_000_000),
            Err(TimelineError::Extrapolation(
                ExtrapolationError::Stale { .. }
            ))
        ));
    }

    #[test]
    fn an_estimate_is_used_until_it_is_too_uncertain() {
        let mapping = Mapping::Estimated {
            estimate: Estimate {
                guest: 500,
                host: 1_000,
                scale: CounterTransform::SCALE_ONE * 2,
                error_ticks: 100,
                growth_ppb: 1_000_000,
            },
            transform: CounterTransform {
                source: TransformSource::Estimated,
                ..CounterTransform::identity(CounterDomain::Tsc)
            },
            max_error_ns: 1_000,
        };
        let mut timeline = Timeline::new(ClockKind::Monotonic);
        let told = timeline.follow(&sample(), &mapping, 0, 600).unwrap();
        // 100 ticks of the guest's are 200 of the host's; the estimate's bound is rounded up three times.
        assert_eq!((told.time_ns, told.error_ns), (50_200, 12 + 100 + 3));
        assert_eq!(timeline.glance(1_600).unwrap().time_ns, 52_200);
        let outcome = timeline.follow(&sample(), &mapping, 0, 450_500);
        assert!(
            matches!(
                outcome,
                Err(TimelineError::Uncertain {
                    error_ns: 1_002,
                    ..
                })
            ),
            "{outcome:?}"
        );
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: if cfg!(miri) { 4 } else { 512 }, failure_persistence: None, ..ProptestConfig::default() })]

        /// Whatever sample and transform say: the line tells what the exact way tells, to within what it adds to the
        /// bound, never claims less, and does not overflow within its reach.
        #[test]
        fn the_line_agrees_with_the_exact_way(
            words in any::<(u64, u64, u64, u64, u32)>(),
            shifts in (0u32..64, 0u32..64, 0u32..64),
            identity in any::<bool>(),
            offset in any::<u64>(),
            start in any::<u64>(),
            ahead in any::<u64>(),
            fraction in any::<u64>(),
        ) {
            let sample = ClockSample {
                counter: 0,
                time_ns: words.0 >> shifts.0,
                rate: Rate::from_bits((words.1 >> shifts.1).max(1)).unwrap(),
                error_ns: words.2,
                valid_for_ns: words.3 >> shifts.2,
                error_growth_ppb: words.4,
                ..sample()
            };
            let scale = if identity { CounterTransform::SCALE_ONE } else { (words.2 >> shifts.1).max(1) };
            let transform = CounterTransform { scale, offset, ..CounterTransform::identity(CounterDomain::Tsc) };
            let mapping = Mapping::Told(transform);
            // The sample was taken a little while before the reader's first look.
            let sample = ClockSample { counter: transform.to_host(start).wrapping_sub(ahead >> shifts.2), ..sample };
            let mut timeline = Timeline::new(ClockKind::Monotonic);
            if timeline.follow(&sample, &mapping, 0, start).is_err() { return Ok(()) }
            let Some((line, _)) = timeline.line else { return Ok(()) };
            let reach = line.reach;
            let ticks = ((u128::from(fraction) * u128::from(reach)) >> 64) as u64;
            for counter in [start.wrapping_add(ticks), start.wrapping_add(reach)] {
                // A product that wrapped is another counter's.
                if counter < start { continue }
                let told = timeline.glance(counter).unwrap();
                let Ok(exact) = timeline.exactly(&sample, &mapping, counter) else { continue };
                let slack = told.error_ns.saturating_sub(exact.error_ns);
                prop_assert!(told.error_ns >= exact.error_ns, "{:?} claims less than {:?}", told, exact);
                prop_assert!(told.time_ns.abs_diff(exact.time_ns) <= slack || told.error_ns == u64::MAX,
                    "{:?} against {:?}", told, exact);
            }
        }
    }
}
