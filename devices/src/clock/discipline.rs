//! How the host turns readings of its own clock into samples: a state machine without clocks of its own.

use super::counter::{CounterDomain, Ticks};
use super::sample::{ClockKind, ClockSample, ClockStatus, Leap, Rate};

/// A counter value and a clock's time that belong together, give or take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CounterPair {
    /// The middle of the counter values read before and after the clock.
    pub counter: u64,
    /// The clock's time in nanoseconds, truncated by the clock.
    pub time_ns: u64,
    /// How many ticks before or after `counter` the clock may have been read.
    pub half_width: u64,
}

impl CounterPair {
    /// Reads `clock` between two looks at the counter, `attempts` times, and keeps the pair that took least: being
    /// preempted in between only widens a pair.
    pub fn narrowest(counter: &impl Ticks, clock: impl Fn() -> u64, attempts: u32) -> Self {
        let bracket = || {
            let before = counter.now();
            let time_ns = clock();
            let width = counter.now().wrapping_sub(before);
            Self {
                counter: before.wrapping_add(width / 2),
                time_ns,
                half_width: width / 2 + 1,
            }
        };
        (1..attempts)
            .map(|_| bracket())
            .fold(bracket(), |narrowest, pair| {
                if pair.half_width < narrowest.half_width {
                    pair
                } else {
                    narrowest
                }
            })
    }

    /// How far `time_ns` may be from the time at `counter`: half the bracket, its rounding, the clock's truncation.
    fn error_ns(&self, rate: Rate) -> u64 {
        u64::try_from(rate.elapsed_ns(self.half_width))
            .unwrap_or(u64::MAX)
            .saturating_add(2)
    }
}

/// What a discipline assumes and aims at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DisciplineLimits {
    /// By how much the clock's rate over the next samples' life may differ from its measured average, in parts per
    /// 10^9. The default is what Linux lets a time daemon's frequency correction reach, and `adjtime` slew: 500 ppm.
    pub wander_ppb: u32,
    /// How fast an offset may be slewed away, in parts per 10^9; a larger offset takes longer.
    pub slew_ppb: u32,
    /// Within which time an offset should be gone, in nanoseconds: about the interval between samples.
    pub horizon_ns: u64,
    /// How long a sample is valid for, in nanoseconds.
    pub valid_for_ns: u64,
}

impl Default for DisciplineLimits {
    fn default() -> Self {
        Self {
            wander_ppb: 500_000,
            slew_ppb: 500_000,
            horizon_ns: 100_000_000,
            valid_for_ns: 10_000_000_000,
        }
    }
}

/// A clock cannot be measured against a counter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CalibrationError {
    /// The counter or the clock did not go on in between, or at rates that [`Rate`] cannot express.
    #[error("{ticks} ticks of the counter against {ns} ns of the clock give no rate")]
    NoRate {
        /// What the counter did.
        ticks: u64,
        /// What the clock did.
        ns: u64,
    },
    /// There is no counter.
    #[error("there is no counter to measure the clock against")]
    NoCounter,
}

/// Follows one clock with a line of samples.
///
/// A new sample starts on the old one's line, so that readers of either agree and time does not step; the rate is the
/// measured one plus what slews the measured offset away. The bound is built by intersecting two intervals (as Cristian
/// and Marzullo do): where the old line says the time is, and where the bracketed reading says it is. If they do not
/// meet, the clock was set, or the counter jumped: the line starts anew under another disruption marker.
#[derive(Clone, Debug)]
pub struct Discipline {
    limits: DisciplineLimits,
    line: ClockSample,
    measured: Rate,
    /// How far `measured` may be off, in parts per 10^9.
    measured_ppb: u64,
    history: History,
}

impl Discipline {
    /// Starts from two pairs, some milliseconds apart, under a disruption marker that no discipline of the clock had
    /// before.
    ///
    /// # Errors
    ///
    /// [`CalibrationError`].
    pub fn calibrate(
        domain: CounterDomain,
        clock: ClockKind,
        first: CounterPair,
        second: CounterPair,
        disruption: u64,
        limits: DisciplineLimits,
    ) -> Result<Self, CalibrationError> {
        if domain == CounterDomain::Invalid {
            return Err(CalibrationError::NoCounter);
        }
        let estimate = RateEstimate::between(&first, &second).ok_or(CalibrationError::NoRate {
            ticks: second.counter.wrapping_sub(first.counter),
            ns: second.time_ns.saturating_sub(first.time_ns),
        })?;
        let mut history = History::default();
        history.push(first);
        history.push(second);
        let mut discipline = Self {
            limits,
            line: ClockSample {
                domain,
                clock,
                status: ClockStatus::Synchronized,
                leap: Leap::Unknown,
                error_growth_ppb: 0,
                counter: second.counter,
                time_ns: second.time_ns,
                rate: estimate.rate,
                error_ns: second.error_ns(estimate.rate),
                disruption,
                valid_for_ns: limits.valid_for_ns,
            },
            measured: estimate.rate,
            measured_ppb: estimate.error_ppb,
            history,
        };
        discipline.steer(0);
        Ok(discipline)
    }

    /// Follows a clock that is `ahead_ns` ahead of this one, knowing what is known of this one.
    pub(super) fn offset_by(&self, clock: ClockKind, ahead_ns: u64, disruption: u64) -> Self {
        let mut other = self.clone();
        other.line.clock = clock;
        other.line.time_ns = other.line.time_ns.saturating_add(ahead_ns);
        other.line.disruption = disruption;
        for pair in other.history.pairs.iter_mut().flatten() {
            pair.time_ns = pair.time_ns.saturating_add(ahead_ns);
        }
        other
    }

    /// The clock cannot be followed any more.
    pub(super) fn run_free(&mut self) {
        self.line.status = ClockStatus::FreeRunning;
    }

    /// The newest sample.
    pub fn sample(&self) -> &ClockSample {
        &self.line
    }

    /// Takes a new pair into account, and returns the sample that follows from it.
    pub fn observe(&mut self, pair: CounterPair) -> &ClockSample {
        // Our own line, which readers' staleness does not limit.
        let line = ClockSample {
            valid_for_ns: u64::MAX,
            ..self.line
        };
        let pair_error = i128::from(pair.error_ns(self.measured));
        let met = line.extrapolate(pair.counter).ok().and_then(|predicted| {
            let line_error = i128::from(predicted.error_ns);
            let (line_ns, pair_ns) = (i128::from(predicted.time_ns), i128::from(pair.time_ns));
            let earliest = (line_ns - line_error).max(pair_ns - pair_error);
            let latest = (line_ns + line_error).min(pair_ns + pair_error);
            (earliest <= latest).then_some((predicted.time_ns, earliest, latest))
        });
        match met {
            Some((time_ns, earliest, latest)) => {
                let settling = self.line.status == ClockStatus::Unreliable;
                self.learn_rate(pair);
                let middle = (earliest + latest).div_euclid(2);
                let offset = clamp_i64(middle - i128::from(time_ns));
                if settling && offset.unsigned_abs() > self.slewable_ns() {
                    // The rate was unknown since the last disruption: this is still the same one.
                    self.step(pair);
                    return &self.line;
                }
                let half = u64::try_from(latest - middle + 1).unwrap_or(u64::MAX);
                self.line.counter = pair.counter;
                self.line.time_ns = time_ns;
                self.line.error_ns = offset.unsigned_abs().saturating_add(half);
                self.steer(offset);
            }
            None => self.start_anew(pair),
        }
        &self.line
    }

    /// The rate of the line from now on: as measured, and a little faster or slower until `offset` ns are gone.
    fn steer(&mut self, offset: i64) {
        let limit = i128::from(self.limits.slew_ppb);
        let horizon = i128::from(self.limits.horizon_ns.max(1));
        let slew_ppb = (i128::from(offset) * 1_000_000_000 / horizon).clamp(-limit, limit);
        let bits = i128::from(self.measured.bits());
        let steered = bits + bits * slew_ppb / 1_000_000_000;
        if let Some(rate) = u64::try_from(steered).ok().and_then(Rate::from_bits) {
            self.line.rate = rate;
        }
        let growth = slew_ppb
            .unsigned_abs()
            .saturating_add(u128::from(self.measured_ppb))
            .saturating_add(u128::from(self.limits.wander_ppb));
        self.line.error_growth_ppb = u32::try_from(growth).unwrap_or(u32::MAX);
    }

    fn learn_rate(&mut self, pair: CounterPair) {
        self.history.push(pair);
        let Some(best) = self.history.best_estimate() else {
            return;
        };
        // A wide pair says little: the rate known before is good for as long as the assumed wander covers it.
        if best.error_ppb <= self.measured_ppb.max(u64::from(self.limits.wander_ppb) / 4) {
            self.measured = best.rate;
            self.measured_ppb = best.error_ppb;
            self.line.status = ClockStatus::Synchronized;
        }
    }

    /// What can be slewed away within one horizon.
    fn slewable_ns(&self) -> u64 {
        let slewable = u128::from(self.limits.slew_ppb) * u128::from(self.limits.horizon_ns);
        u64::try_from(slewable / 1_000_000_000).unwrap_or(u64::MAX)
    }

    /// The clock was set, or the counter is another one: of what was known, only the rate may still hold.
    fn start_anew(&mut self, pair: CounterPair) {
        self.history = History::default();
        self.history.push(pair);
        self.measured_ppb = u64::from(u32::MAX);
        self.line.status = ClockStatus::Unreliable;
        self.step(pair);
    }

    /// Puts the line onto `pair`, and says that time has jumped.
    fn step(&mut self, pair: CounterPair) {
        self.line.counter = pair.counter;
        self.line.time_ns = pair.time_ns;
        self.line.error_ns = pair.error_ns(self.measured);
        self.line.disruption = self.line.disruption.wrapping_add(1);
        self.steer(0);
    }
}

fn clamp_i64(value: i128) -> i64 {
    value.clamp(i128::from(i64::MIN + 1), i128::from(i64::MAX)) as i64
}

/// A rate measured between two pairs.
struct RateEstimate {
    rate: Rate,
    error_ppb: u64,
}

impl RateEstimate {
    fn between(first: &CounterPair, second: &CounterPair) -> Option<Self> {
        let ticks = second.counter.wrapping_sub(first.counter);
        let ns = second.time_ns.checked_sub(first.time_ns)?;
        let rate = Rate::from_ratio(ns, ticks)?;
        let error_ns = u128::from(first.error_ns(rate)) + u128::from(second.error_ns(rate));
        let error_ppb = (error_ns * 1_000_000_000).div_ceil(u128::from(ns.max(1)));
        Some(Self {
            rate,
            error_ppb: u64::try_from(error_ppb).unwrap_or(u64::MAX),
        })
    }
}

/// The last pairs, spaced so that the oldest is some time ago.
#[derive(Clone, Debug, Default)]
struct History {
    pairs: [Option<CounterPair>; 16],
    newest: usize,
}

impl History {
    fn push(&mut self, pair: CounterPair) {
        self.newest = (self.newest + 1) % self.pairs.len();
        self.pairs[self.newest] = Some(pair);
    }

    /// The surest rate between the newest pair and an older one.
    fn best_estimate(&self) -> Option<RateEstimate> {
        let newest = self.pairs[self.newest].as_ref()?;
        self.pairs
            .iter()
            .flatten()
            .filter_map(|older| RateEstimate::between(older, newest))
            .min_by_key(|estimate| estimate.error_ppb)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A clock that is known exactly: in 2^-16 ns, against a counter.
    struct Truth {
        counter: u64,
        time: u128,
        /// Nanoseconds per tick, 16 fractional bits.
        rate: u128,
    }

    impl Truth {
        fn advance(&mut self, ticks: u64) {
            self.counter = self.counter.wrapping_add(ticks);
            self.time += self.rate * u128::from(ticks);
        }

        fn ns(&self) -> u64 {
            (self.time >> 16) as u64
        }

        /// A pair whose clock reading happened anywhere within the bracket.
        fn pair(&self, half_width: u64, skew: i64) -> CounterPair {
            CounterPair {
                counter: self.counter.wrapping_add_signed(skew),
                time_ns: self.ns(),
                half_width,
            }
        }
    }

    const START: u64 = 1 << 40;

    fn calibrated(truth: &mut Truth) -> Discipline {
        let first = truth.pair(30, 11);
        truth.advance(10_000_000);
        let second = truth.pair(30, -17);
        Discipline::calibrate(
            CounterDomain::Tsc,
            ClockKind::Monotonic,
            first,
            second,
            0,
            DisciplineLimits::default(),
        )
        .unwrap()
    }

    fn truth() -> Truth {
        Truth {
            counter: u64::MAX - 50_000_000,
            time: u128::from(START) << 16,
            rate: (1 << 16) * 5 / 13,
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: if cfg!(miri) { 4 } else { 256 }, failure_persistence: None, ..ProptestConfig::default() })]

        /// Whatever the brackets' widths, the intervals and the rate's wander within what is assumed: the time lies
        /// within the published bound at any moment, and the line never steps.
        #[test]
        fn the_bound_holds_and_time_is_continuous(
            steps in prop::collection::vec(
                (1u64..300_000_000, 1u64..200_000, -100i64..=100, -200i128..=200),
                1..60,
            ),
        ) {
            let mut truth = truth();
            let nominal = truth.rate;
            let mut discipline = calibrated(&mut truth);
            let mut last_half_width = 30;
            for (ticks, half_width, skew_percent, wander_ppm) in steps {
                let before = *discipline.sample();
                // Both halves of the wander stay inside the 500 ppm that are assumed around the average.
                truth.rate = (nominal as i128 + nominal as i128 * wander_ppm / 1_000_000) as u128;
                // Brackets follow one another.
                truth.advance(last_half_width + ticks + half_width);
                last_half_width = half_width;
                let reading = before.extrapolate(truth.counter).unwrap();
                prop_assert!(
                    reading.time_ns.abs_diff(truth.ns()) <= reading.error_ns,
                    "{} against {} give or take {}", reading.time_ns, truth.ns(), reading.error_ns
                );
                let skew = half_width as i64 * skew_percent / 100;
                let pair = truth.pair(half_width, skew);
                let after = *discipline.observe(pair);
                prop_assert_eq!(after.disruption, 0);
                let old = before.extrapolate(pair.counter).unwrap().time_ns;
                prop_assert_eq!(after.time_ns, old);
            }
        }
    }

    #[test]
    fn an_offset_is_slewed_away_and_the_rate_is_learnt() {
        let mut truth = truth();
        let mut discipline = calibrated(&mut truth);
        let at_first = discipline.sample().error_growth_ppb;
        for _ in 0..40 {
            truth.advance(130_000_000); // 50 ms
            discipline.observe(truth.pair(30, 0));
        }
        let sample = *discipline.sample();
        let error = sample.time_ns.abs_diff(truth.ns());
        assert!(error <= 2, "{error} ns off");
        assert!(sample.error_ns < 30, "{sample:?}");
        assert!(sample.error_growth_ppb < at_first);
        assert!(sample.error_growth_ppb < 501_000, "{sample:?}");
    }

    #[test]
    fn a_wide_pair_does_not_spoil_what_is_known() {
        let mut truth = truth();
        let mut discipline = calibrated(&mut truth);
        for _ in 0..20 {
            truth.advance(130_000_000);
            discipline.observe(truth.pair(30, 0));
        }
        let known = *discipline.sample();
        truth.advance(130_000);
        // Preempted for 10 ms in the middle of every bracket.
        let sample = *discipline.observe(truth.pair(26_000_000, 25_000_000));
        assert!(
            sample.error_ns < known.error_ns + 10_000_000 / 1_000,
            "{sample:?}"
        );
        assert_eq!(sample.status, ClockStatus::Synchronized);
    }

    #[test]
    fn a_clock_that_is_set_is_a_disruption_and_is_followed() {
        let mut truth = truth();
        let mut discipline = calibrated(&mut truth);
        truth.advance(130_000_000);
        truth.time -= 1_000_000_000 << 16;
        let sample = *discipline.observe(truth.pair(30, 0));
        assert_eq!(sample.disruption, 1);
        assert_eq!(sample.status, ClockStatus::Unreliable);
        assert_eq!(sample.time_ns, truth.ns());
        truth.advance(130_000_000);
        let sample = *discipline.observe(truth.pair(30, 0));
        assert_eq!(sample.disruption, 1);
        assert_eq!(sample.status, ClockStatus::Synchronized);

        // A counter that starts again (suspend, migration) is one too; one that runs at another rate needs two pairs.
        truth.counter = 5;
        let sample = *discipline.observe(truth.pair(30, 0));
        assert_eq!((sample.disruption, sample.counter), (2, 5));
        truth.rate *= 3;
        truth.advance(130_000_000);
        let sample = *discipline.observe(truth.pair(30, 0));
        assert_eq!((sample.disruption, sample.time_ns), (3, truth.ns()));
        assert_eq!(sample.status, ClockStatus::Synchronized);
    }

    #[test]
    fn what_stands_still_gives_no_rate() {
        let pair = CounterPair {
            counter: 5,
            time_ns: 5,
            half_width: 1,
        };
        let calibrate = |domain, second| {
            Discipline::calibrate(
                domain,
                ClockKind::Utc,
                pair,
                second,
                0,
                DisciplineLimits::default(),
            )
            .err()
        };
        assert_eq!(
            calibrate(CounterDomain::Tsc, pair),
            Some(CalibrationError::NoRate { ticks: 0, ns: 0 })
        );
        assert_eq!(
            calibrate(CounterDomain::Invalid, pair),
            Some(CalibrationError::NoCounter)
        );
    }
}
