//! How a guest finds out by itself how its counter relates to the host's: arithmetic without clocks or memory of its
//! own.
//!
//! # The bound
//!
//! In an exchange the guest reads its counter, asks, the host reads *its* counter and answers, and the guest reads its
//! own again. Whatever took how long, the host's reading lies between the guest's two: with `g` in the middle of them
//! and `w` half of what lies between, the host's counter at `g` is the answer, give or take what it counts in `w`.
//! Being preempted only makes `w` larger, so of a burst the narrowest exchange counts, and the bound needs no
//! assumption about how the time is divided between asking and answering.
//!
//! Two exchanges `d` apart give the ratio of the counters to `(w1 + w2) / d`. From there on the ratio is assumed to
//! stay within [`EstimateLimits::wander_ppb`] of its average, which is all that is assumed. So the host's counter lies
//! within an interval that grows with the distance from the last exchange, and each new exchange is intersected with it
//! (as Cristian and Marzullo do). If they do not meet, a counter jumped.

use super::transform::CounterTransform;

/// One question and its answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exchange {
    /// The guest's counter before it asked.
    pub sent: u64,
    /// The host's counter after it saw the question, and before it answered.
    pub host: u64,
    /// The guest's counter after it saw the answer.
    pub received: u64,
}

impl Exchange {
    /// How many ticks of the guest's the exchange took.
    pub fn width(&self) -> u64 {
        self.received.wrapping_sub(self.sent)
    }

    fn middle(&self) -> u64 {
        self.sent.wrapping_add(self.width() / 2)
    }

    /// A count is what was passed last, hence the one more.
    fn half_width(&self) -> u64 {
        self.width() / 2 + 1
    }
}

/// What an estimate assumes and must reach.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EstimateLimits {
    /// By how much the ratio of the two counters may differ from its measured average, in parts per 10^9. The counters
    /// of a host and its guests come from one crystal, and do not differ at all; for two crystals the default is more
    /// than their drift with temperature over some seconds.
    pub wander_ppb: u32,
    /// The largest bound on the host's counter with which time is told, in nanoseconds either way.
    pub max_error_ns: u64,
}

impl Default for EstimateLimits {
    fn default() -> Self {
        Self {
            wander_ppb: 1_000,
            max_error_ns: 100_000,
        }
    }
}

/// The counters could not be related.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EstimateError {
    /// A single exchange gives no ratio.
    #[error("one exchange more is needed for an estimate of the counter")]
    TooFew,
    /// The counters' ratio is out of what 48 fractional bits can say.
    #[error("{host} ticks of the host's counter in {guest} of the guest's give no ratio")]
    NoRatio {
        /// What the host's counter did.
        host: u64,
        /// What the guest's did.
        guest: u64,
    },
    /// The new exchange contradicts the ones before: a counter jumped, or the ratio wandered. The estimate starts anew.
    #[error(
        "a counter jumped: the host's was expected within {expected_within} ticks, and was off by {off_by}"
    )]
    Jumped {
        /// How far off the host's counter could have been.
        expected_within: u64,
        /// How far off it was.
        off_by: u64,
    },
}

/// "When my counter showed this, the host's showed that", and how that goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Estimate {
    /// The guest's count that it starts from.
    pub guest: u64,
    /// The host's count at that.
    pub host: u64,
    /// Ticks of the host's counter for each of the guest's, with 48 fractional bits.
    pub scale: u64,
    /// The bound at `guest`, in ticks of the host's counter either way.
    pub error_ticks: u64,
    /// Growth of the bound, in parts per 10^9 of the distance from `guest`.
    pub growth_ppb: u32,
}

impl Estimate {
    /// The host's count at the guest's count `guest`, with its bound, in ticks of the host's counter.
    #[inline]
    pub fn to_host(&self, guest: u64) -> (u64, u64) {
        let distance = guest.wrapping_sub(self.guest) as i64;
        let scaled = scale_up(distance.unsigned_abs(), self.scale);
        let host = if distance >= 0 {
            self.host.wrapping_add(scaled)
        } else {
            self.host.wrapping_sub(scaled)
        };
        let growth = (u128::from(scaled) * u128::from(self.growth_ppb)).div_ceil(1_000_000_000);
        let growth = u64::try_from(growth).unwrap_or(u64::MAX);
        // One more for what the product was rounded down by.
        let error = self.error_ticks.saturating_add(growth).saturating_add(1);
        (host, error)
    }
}

/// A number of ticks in the other counter's.
fn scale_up(ticks: u64, scale: u64) -> u64 {
    let scaled = (u128::from(ticks) * u128::from(scale)) >> CounterTransform::FRACTION_BITS;
    u64::try_from(scaled).unwrap_or(u64::MAX)
}

/// Below this a scale's own rounding would count.
const LEAST_SCALE: u64 = 1 << 20;

/// Follows the host's counter by exchanges.
#[derive(Clone, Debug)]
pub struct Estimator {
    limits: EstimateLimits,
    /// The narrowest exchanges of the last bursts, in a circle.
    history: [Option<Exchange>; 16],
    next: usize,
    estimate: Option<Estimate>,
}

impl Estimator {
    /// Knows nothing yet.
    pub fn new(limits: EstimateLimits) -> Self {
        Self {
            limits,
            history: [None; 16],
            next: 0,
            estimate: None,
        }
    }

    /// What it assumes and must reach.
    pub fn limits(&self) -> &EstimateLimits {
        &self.limits
    }

    /// What is known so far.
    pub fn estimate(&self) -> Option<&Estimate> {
        self.estimate.as_ref()
    }

    /// Forgets everything: the counter is another one.
    pub fn forget(&mut self) {
        *self = Self::new(self.limits);
    }

    /// Takes the narrowest exchange of a burst into account.
    ///
    /// # Errors
    ///
    /// [`EstimateError`]; the exchange is then where a new estimate starts from.
    pub fn observe(&mut self, exchange: Exchange) -> Result<&Estimate, EstimateError> {
        let outcome = self.intersect(exchange);
        if matches!(outcome, Err(EstimateError::Jumped { .. })) {
            self.forget();
        }
        self.history[self.next % self.history.len()] = Some(exchange);
        self.next += 1;
        let estimate = outcome?;
        Ok(self.estimate.insert(estimate))
    }

    fn intersect(&self, exchange: Exchange) -> Result<Estimate, EstimateError> {
        let ratio = self.ratio(&exchange)?;
        let guest = exchange.middle();
        let measured_error = scale_up(exchange.half_width(), ratio.scale).saturating_add(2);
        let measured = Interval::around(exchange.host, exchange.host, measured_error);
        let interval = match &self.estimate {
            None => measured,
            Some(before) => {
                let (host, error) = before.to_host(guest);
                let expected = Interval::around(exchange.host, host, error);
                expected.meet(&measured).ok_or(EstimateError::Jumped {
                    expected_within: error,
                    off_by: (exchange.host.wrapping_sub(host) as i64).unsigned_abs(),
                })?
            }
        };
        let growth = ratio.error_ppb + u64::from(self.limits.wander_ppb);
        let middle = (interval.least + interval.most).div_euclid(2);
        let error = u64::try_from(interval.most - middle).unwrap_or(u64::MAX);
        Ok(Estimate {
            guest,
            host: exchange.host.wrapping_add(middle as u64),
            scale: ratio.scale,
            error_ticks: error,
            growth_ppb: u32::try_from(growth).unwrap_or(u32::MAX),
        })
    }

    /// The surest ratio between an earlier exchange and this one; or the one known before, which is good for as long as
    /// the assumed wander covers it, if this exchange says less.
    fn ratio(&self, to: &Exchange) -> Result<Ratio, EstimateError> {
        let mut best: Result<Ratio, _> = Err(EstimateError::TooFew);
        for from in self.history.iter().flatten() {
            match (Ratio::between(from, to), &best) {
                (Ok(ratio), Ok(known)) if ratio.error_ppb >= known.error_ppb => {}
                (Ok(ratio), _) => best = Ok(ratio),
                (Err(error), Err(EstimateError::TooFew)) => best = Err(error),
                (Err(_), _) => {}
            }
        }
        let Some(before) = &self.estimate else {
            return best;
        };
        let wander = u64::from(self.limits.wander_ppb);
        let before = Ratio {
            scale: before.scale,
            error_ppb: u64::from(before.growth_ppb).saturating_sub(wander),
        };
        match best {
            Ok(ratio) if ratio.error_ppb <= before.error_ppb.max(wander / 4) => Ok(ratio),
            _ => Ok(before),
        }
    }
}

/// Where the host's counter may be, counted from a value near by, so that wrapping does not matter.
struct Interval {
    least: i128,
    most: i128,
}

impl Interval {
    fn around(origin: u64, host: u64, error: u64) -> Self {
        let middle = i128::from(host.wrapping_sub(origin) as i64);
        Self {
            least: middle - i128::from(error),
            most: middle + i128::from(error),
        }
    }

    fn meet(&self, other: &Self) -> Option<Self> {
        let least = self.least.max(other.least);
        let most = self.most.min(other.most);
        (least <= most).then_some(Self { least, most })
    }
}

/// A ratio of the counters, measured between two exchanges.
struct Ratio {
    scale: u64,
    error_ppb: u64,
}

impl Ratio {
    fn between(from: &Exchange, to: &Exchange) -> Result<Self, EstimateError> {
        let host = to.host.wrapping_sub(from.host);
        let guest = to.middle().wrapping_sub(from.middle());
        let failed = EstimateError::NoRatio { host, guest };
        // Both ends of the host's readings, and the counts' own rounding.
        let slack = from
            .half_width()
            .saturating_add(to.half_width())
            .saturating_add(2);
        let sure = guest
            .checked_sub(slack)
            .filter(|sure| *sure > 0)
            .ok_or(failed)?;
        let scaled = (u128::from(host) << CounterTransform::FRACTION_BITS) / u128::from(guest);
        let scale = u64::try_from(scaled).map_err(|_| failed)?;
        if scale < LEAST_SCALE || guest > u64::MAX / 2 {
            return Err(failed);
        }
        let error = (u128::from(slack) * 1_000_000_000).div_ceil(u128::from(sure));
        // Two ticks of the host's counter, cut at either end.
        let cut = 2_000_000_000_u128.div_ceil(u128::from(host.max(1)));
        let rounding = 1_000_000_000_u128.div_ceil(u128::from(scale));
        Ok(Self {
            scale,
            error_ppb: u64::try_from(error + cut + rounding).unwrap_or(u64::MAX / 2),
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The host's counter, exactly: in 2^-32 ticks, against the guest's.
    struct Truth {
        guest: u64,
        host: u128,
        ratio: u128,
    }

    impl Truth {
        fn advance(&mut self, ticks: u64) {
            self.guest = self.guest.wrapping_add(ticks);
            self.host += self.ratio * u128::from(ticks);
        }

        fn count(&self) -> u64 {
            (self.host >> 32) as u64
        }

        /// An exchange whose two ways take so many ticks of the guest's.
        fn exchange(&mut self, there: u64, back: u64) -> Exchange {
            let sent = self.guest;
            self.advance(there);
            let host = self.count();
            self.advance(back);
            Exchange {
                sent,
                host,
                received: self.guest,
            }
        }
    }

    fn off_by(estimate: &Estimate, truth: &Truth) -> (u64, u64) {
        let (host, error) = estimate.to_host(truth.guest);
        (
            (host.wrapping_sub(truth.count()) as i64).unsigned_abs(),
            error,
        )
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: if cfg!(miri) { 4 } else { 256 }, failure_persistence: None, ..ProptestConfig::default() })]

        /// Whatever the counters' ratio and start, however long each way of each exchange, and with a ratio that
        /// wanders by as much as is assumed: the host's counter lies within the bound at any moment.
        #[test]
        fn the_host_s_counter_lies_within_the_bound(
            start in any::<(u64, u64)>(),
            ratio in (1u128 << 22)..(1 << 42),
            steps in prop::collection::vec(
                (100_000u64..3_000_000_000, 0u64..50_000, 0u64..50_000, -500i128..=500),
                2..40,
            ),
        ) {
            let mut truth = Truth { guest: start.0, host: u128::from(start.1) << 32, ratio };
            let mut estimator = Estimator::new(EstimateLimits::default());
            for (ticks, there, back, wander_ppb) in steps {
                // Both halves of the wander stay inside what is assumed around the average.
                truth.ratio = (ratio as i128 + ratio as i128 * wander_ppb / 1_000_000_000) as u128;
                truth.advance(ticks);
                if let Some(estimate) = estimator.estimate() {
                    let (off, error) = off_by(estimate, &truth);
                    prop_assert!(off <= error, "off by {} of {}", off, error);
                }
                let exchange = truth.exchange(there, back);
                match estimator.observe(exchange) {
                    Ok(estimate) => {
                        let (off, error) = off_by(estimate, &truth);
                        prop_assert!(off <= error, "off by {} of {}, just now", off, error);
                    }
                    // The first, or two that are too close to tell anything.
                    Err(EstimateError::TooFew | EstimateError::NoRatio { .. }) => {}
                    Err(jumped) => prop_assert!(false, "{}", jumped),
                }
            }
        }
    }

    fn truth() -> Truth {
        Truth {
            guest: u64::MAX - 1_000,
            host: 77 << 32,
            ratio: (3 << 32) / 2,
        }
    }

    #[test]
    fn a_narrow_exchange_is_worth_more_than_a_wide_one() {
        let mut truth = truth();
        let mut estimator = Estimator::new(EstimateLimits::default());
        let first = truth.exchange(500, 700);
        assert_eq!(estimator.observe(first), Err(EstimateError::TooFew));
        for _ in 0..20 {
            truth.advance(1_000_000_000);
            let exchange = truth.exchange(500, 700);
            estimator.observe(exchange).unwrap();
        }
        let known = *estimator.estimate().unwrap();
        assert!(
            known.error_ticks < 1_000 && known.growth_ppb < 1_200,
            "{known:?}"
        );
        truth.advance(1_000);
        let wide = truth.exchange(90_000_000, 10);
        let after = *estimator.observe(wide).unwrap();
        // What is left of it is the growth over a tenth of a second.
        assert!(after.error_ticks < known.error_ticks + 400_000, "{after:?}");
        let (off, error) = off_by(&after, &truth);
        assert!(off <= error, "off by {off} of {error}");
    }

    #[test]
    fn a_counter_that_jumps_is_found_and_estimated_anew() {
        let mut truth = truth();
        let mut estimator = Estimator::new(EstimateLimits::default());
        for _ in 0..3 {
            let exchange = truth.exchange(500, 700);
            let _ = estimator.observe(exchange);
            truth.advance(10_000_000);
        }
        truth.guest = 5;
        let exchange = truth.exchange(500, 700);
        let outcome = estimator.observe(exchange);
        assert!(
            matches!(outcome, Err(EstimateError::Jumped { .. })),
            "{outcome:?}"
        );
        assert_eq!(estimator.estimate(), None);
        truth.advance(10_000_000);
        let exchange = truth.exchange(500, 700);
        let estimate = *estimator.observe(exchange).unwrap();
        let (off, error) = off_by(&estimate, &truth);
        assert!(off <= error && error < 10_000, "off by {off} of {error}");
    }

    #[test]
    fn counters_that_stand_still_or_lie_give_no_ratio() {
        for (host, guest) in [(0, 10_000_000), (u64::MAX / 2, 10_000), (9, 3)] {
            let mut estimator = Estimator::new(EstimateLimits::default());
            let mut exchange = truth().exchange(500, 700);
            let _ = estimator.observe(exchange);
            exchange.host = exchange.host.wrapping_add(host);
            exchange.sent = exchange.sent.wrapping_add(guest);
            exchange.received = exchange.received.wrapping_add(guest);
            let outcome = estimator.observe(exchange);
            assert!(
                matches!(outcome, Err(EstimateError::NoRatio { .. })),
                "{outcome:?}"
            );
        }
    }

    /// A host answers what it likes: no panic, and no bound that is smaller than its exchange's.
    #[test]
    fn lies_saturate() {
        let mut estimator = Estimator::new(EstimateLimits::default());
        let mut word = 1_u64;
        for _ in 0..if cfg!(miri) { 100 } else { 10_000 } {
            let mut next = || {
                word ^= word << 13;
                word ^= word >> 7;
                word ^= word << 17;
                word
            };
            let exchange = Exchange {
                sent: next(),
                host: next(),
                received: next(),
            };
            if let Ok(estimate) = estimator.observe(exchange) {
                estimate.to_host(word);
            }
        }
    }
}
