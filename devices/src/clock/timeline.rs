//! One reader's view of one clock.

use super::counter::CounterDomain;
use super::sample::{ClockKind, ClockSample, ExtrapolationError, Reading};
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
    /// Nothing relates the reader's counter to any other.
    #[error("this reader's counter has no valid transform to the clock's")]
    NoTransform,
    /// The sample does not reach to now.
    #[error(transparent)]
    Extrapolation(#[from] ExtrapolationError),
}

/// Turns samples of one clock into times that do not run backwards.
///
/// Only a disruption may set them back: within one, a sample that lies a little before what was already told (another
/// processor's counter, a rate that was corrected) repeats the last time instead, and its bound is widened by that.
#[derive(Clone, Copy, Debug)]
pub(super) struct Timeline {
    clock: ClockKind,
    last: Option<Told>,
}

#[derive(Clone, Copy, Debug)]
struct Told {
    time_ns: u64,
    disruption: u64,
}

impl Timeline {
    pub(super) fn new(clock: ClockKind) -> Self {
        Self { clock, last: None }
    }

    /// The time at the reader's counter value `counter`.
    pub(super) fn tell(
        &mut self,
        sample: &ClockSample,
        transform: &CounterTransform,
        counter: u64,
    ) -> Result<Reading, TimelineError> {
        if sample.clock != self.clock {
            return Err(TimelineError::OtherClock {
                expected: self.clock,
                found: sample.clock,
            });
        }
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
        let mut reading = sample.extrapolate(transform.to_host(counter))?;
        reading.error_ns = reading.error_ns.saturating_add(transform.error_ns);
        if let Some(last) = self.last
            && last.disruption == reading.disruption
            && last.time_ns > reading.time_ns
        {
            let held_back = last.time_ns - reading.time_ns;
            reading.error_ns = reading.error_ns.saturating_add(held_back);
            reading.time_ns = last.time_ns;
        }
        self.last = Some(Told {
            time_ns: reading.time_ns,
            disruption: reading.disruption,
        });
        Ok(reading)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::{ClockStatus, Leap, Rate};

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

    #[test]
    fn time_goes_back_only_by_a_disruption() {
        let identity = CounterTransform::identity(CounterDomain::Tsc);
        let mut timeline = Timeline::new(ClockKind::Monotonic);
        let told = timeline.tell(&sample(), &identity, 1_500).unwrap();
        assert_eq!((told.time_ns, told.error_ns), (50_500, 12));

        let corrected = ClockSample {
            time_ns: 49_900,
            ..sample()
        };
        let told = timeline.tell(&corrected, &identity, 1_550).unwrap();
        assert_eq!((told.time_ns, told.error_ns), (50_500, 12 + 50));

        let set_back = ClockSample {
            disruption: 2,
            ..corrected
        };
        let told = timeline.tell(&set_back, &identity, 1_550).unwrap();
        assert_eq!((told.time_ns, told.error_ns), (50_450, 12));
    }

    #[test]
    fn what_belongs_to_another_clock_or_counter_is_refused() {
        let mut timeline = Timeline::new(ClockKind::Utc);
        let identity = CounterTransform::identity(CounterDomain::Tsc);
        assert_eq!(
            timeline.tell(&sample(), &identity, 1_500),
            Err(TimelineError::OtherClock {
                expected: ClockKind::Utc,
                found: ClockKind::Monotonic
            })
        );
        let mut timeline = Timeline::new(ClockKind::Monotonic);
        let other = CounterTransform::identity(CounterDomain::MonotonicRaw);
        assert_eq!(
            timeline.tell(&sample(), &other, 1_500),
            Err(TimelineError::OtherCounter {
                expected: CounterDomain::MonotonicRaw,
                found: CounterDomain::Tsc
            })
        );
        let unknown = CounterTransform {
            source: TransformSource::Invalid,
            ..identity
        };
        assert_eq!(
            timeline.tell(&sample(), &unknown, 1_500),
            Err(TimelineError::NoTransform)
        );
        assert!(matches!(
            timeline.tell(&sample(), &identity, 2_000_000),
            Err(TimelineError::Extrapolation(
                ExtrapolationError::Stale { .. }
            ))
        ));
    }
}
