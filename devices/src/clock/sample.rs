//! What a clock's slot says, and the arithmetic that turns it into the time now.

use shmbus_table::{InvalidValue, Value};

use super::counter::CounterDomain;

/// Nanoseconds per tick with 48 fractional bits: from 3.6 femtoseconds to 65 microseconds per tick.
///
/// A rate is rounded to 2^-48 ns per tick, which over one second of a counter of 3 GHz amounts to 0.00001 ns.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Rate(u64);

impl Rate {
    /// How many of the bits are behind the point.
    pub const FRACTION_BITS: u32 = 48;
    /// One nanosecond per tick.
    pub const ONE: Rate = Rate(1 << Self::FRACTION_BITS);

    /// The rate from its fixed-point bits; none for zero, at which time would stand still.
    pub fn from_bits(bits: u64) -> Option<Self> {
        (bits != 0).then_some(Self(bits))
    }

    /// The rate at which `ticks` take `ns` nanoseconds; none if it is out of range.
    pub fn from_ratio(ns: u64, ticks: u64) -> Option<Self> {
        let bits = (u128::from(ns) << Self::FRACTION_BITS).checked_div(u128::from(ticks))?;
        Self::from_bits(u64::try_from(bits).ok()?)
    }

    /// The fixed-point bits.
    pub fn bits(self) -> u64 {
        self.0
    }

    /// How long `ticks` take in nanoseconds, rounded down. At most 2^80, so nothing overflows.
    pub fn elapsed_ns(self, ticks: u64) -> u128 {
        (u128::from(ticks) * u128::from(self.0)) >> Self::FRACTION_BITS
    }
}

/// Which time a clock tells. The numbers are the published VMClock ABI's time types, which are virtio-rtc's; a clock's
/// number is its slot in the device's table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum ClockKind {
    /// The host's `CLOCK_REALTIME`: nanoseconds of UTC since 1970, leap seconds repeated.
    Utc = 0,
    /// Nanoseconds of TAI since 1970.
    Tai = 1,
    /// The host's `CLOCK_MONOTONIC`: nanoseconds since its boot, the time that the bus's deadlines are in.
    Monotonic = 2,
}

impl ClockKind {
    /// Every kind, in the order of their slots.
    pub const ALL: [ClockKind; 3] = [Self::Utc, Self::Tai, Self::Monotonic];

    /// The clock's slot in the device's table.
    pub fn slot(self) -> u32 {
        self as u32
    }

    /// The kind with this number.
    pub(super) fn from_number(number: u8) -> Option<Self> {
        Self::ALL.get(usize::from(number)).copied()
    }
}

/// How far a clock can be relied on. The numbers are the published VMClock ABI's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum ClockStatus {
    /// Nothing is known.
    Unknown = 0,
    /// The rate is being measured.
    Initializing = 1,
    /// The sample follows the host's clock within its bound.
    Synchronized = 2,
    /// The host's clock was followed, and is not any more; the bound still grows honestly.
    FreeRunning = 3,
    /// Not to be relied on.
    Unreliable = 4,
}

impl ClockStatus {
    fn from_number(number: u8) -> Option<Self> {
        [
            Self::Unknown,
            Self::Initializing,
            Self::Synchronized,
            Self::FreeRunning,
            Self::Unreliable,
        ]
        .get(usize::from(number))
        .copied()
    }
}

/// A leap second near by. The numbers are the published VMClock ABI's, but for [`Leap::Unknown`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Leap {
    /// None this month.
    None = 0,
    /// A second will be inserted at the end of the month.
    BeforePositive = 1,
    /// A second will be left out at the end of the month.
    BeforeNegative = 2,
    /// An inserted second is passing.
    DuringPositive = 3,
    /// A second was inserted at the end of last month.
    AfterPositive = 4,
    /// A second was left out at the end of last month.
    AfterNegative = 5,
    /// The host cannot tell.
    Unknown = 0xff,
}

impl Leap {
    fn from_number(number: u8) -> Option<Self> {
        [
            Self::None,
            Self::BeforePositive,
            Self::BeforeNegative,
            Self::DuringPositive,
            Self::AfterPositive,
            Self::AfterNegative,
            Self::Unknown,
        ]
        .into_iter()
        .find(|leap| *leap as u8 == number)
    }
}

/// "When the counter showed this, the time was that": one clock, at one moment.
///
/// # Error analysis
///
/// The bound is against the *host's* clock, not against what that clock itself should show. At a counter `d`
/// nanoseconds from [`ClockSample::counter`] it is `error_ns + d * error_growth_ppb / 10^9`, rounded up, plus 2 ns:
/// the product `ticks * rate` is rounded down (less than 1 ns; the rate's own rounding stays below 1 ns for
/// 2^48 ticks, a day at 3 GHz), and the host truncates its clock to nanoseconds (less than 1 ns).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClockSample {
    /// The counter that `counter` is a value of.
    pub domain: CounterDomain,
    /// Which time this is.
    pub clock: ClockKind,
    /// How far to rely on it.
    pub status: ClockStatus,
    /// Leap second information; for UTC only.
    pub leap: Leap,
    /// How fast the bound grows, in nanoseconds per second of distance from `counter`.
    pub error_growth_ppb: u32,
    /// The counter's value, in the host's own count.
    pub counter: u64,
    /// The time at that value, in nanoseconds of the clock's epoch.
    pub time_ns: u64,
    /// Nanoseconds per tick.
    pub rate: Rate,
    /// The bound at `counter`, in nanoseconds either way.
    pub error_ns: u64,
    /// Changes when time or counter jumped (migration, suspend, a clock that was set): nothing that was derived from
    /// earlier samples holds.
    pub disruption: u64,
    /// How far from `counter` the sample may be used, in nanoseconds; later it is stale.
    pub valid_for_ns: u64,
}

/// The time cannot be told from a sample and a counter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ExtrapolationError {
    /// The sample is older than it is valid for.
    #[error("the clock's last sample is {age_ns} ns old, and was valid for {valid_for_ns} ns")]
    Stale {
        /// How old it is; saturates.
        age_ns: u64,
        /// How long it was valid for.
        valid_for_ns: u64,
    },
    /// The counter lies further before the sample's than the counters of two processors can differ.
    #[error("the counter is {by_ns} ns behind the clock's last sample")]
    CounterBehind {
        /// By how much; saturates.
        by_ns: u64,
    },
    /// The time would not fit 64 bits of nanoseconds.
    #[error("the clock's sample runs out of the range of 64-bit nanoseconds")]
    OutOfRange,
}

/// A time with what is known about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reading {
    /// Nanoseconds of the clock's epoch.
    pub time_ns: u64,
    /// The host's clock showed this time give or take so many nanoseconds; `u64::MAX` if nothing is known.
    pub error_ns: u64,
    /// How long before the reading the sample was taken, in nanoseconds.
    pub age_ns: u64,
    /// The sample's status.
    pub status: ClockStatus,
    /// The sample's disruption marker.
    pub disruption: u64,
}

impl ClockSample {
    /// How far a counter may lie before the sample's: reader and host run on different processors, whose counters
    /// agree to far less than this.
    pub const COUNTER_SKEW_NS: u64 = 10_000;

    /// The time when the counter showed `counter`, which is in the sample's own count.
    ///
    /// Every field but the types' own promises may be hostile: the arithmetic has 128 bits and reports what leaves
    /// the range.
    ///
    /// # Errors
    ///
    /// [`ExtrapolationError`].
    #[inline]
    pub fn extrapolate(&self, counter: u64) -> Result<Reading, ExtrapolationError> {
        // A counter may wrap; the distance is what counts, and its sign.
        let ticks = counter.wrapping_sub(self.counter) as i64;
        let distance_ns = self.rate.elapsed_ns(ticks.unsigned_abs());
        let distance_ns = u64::try_from(distance_ns).unwrap_or(u64::MAX);
        let (time_ns, age_ns) = if ticks >= 0 {
            if distance_ns > self.valid_for_ns {
                return Err(ExtrapolationError::Stale {
                    age_ns: distance_ns,
                    valid_for_ns: self.valid_for_ns,
                });
            }
            (self.time_ns.checked_add(distance_ns), distance_ns)
        } else {
            if distance_ns > Self::COUNTER_SKEW_NS {
                return Err(ExtrapolationError::CounterBehind { by_ns: distance_ns });
            }
            (self.time_ns.checked_sub(distance_ns), 0)
        };
        let growth = u128::from(distance_ns) * u128::from(self.error_growth_ppb);
        let growth_ns = match u64::try_from(growth) {
            // Nearly always, and an order of magnitude faster than a division of 128 bits.
            Ok(growth) => growth.div_ceil(1_000_000_000),
            Err(_) => u64::try_from(growth.div_ceil(1_000_000_000)).unwrap_or(u64::MAX),
        };
        Ok(Reading {
            time_ns: time_ns.ok_or(ExtrapolationError::OutOfRange)?,
            error_ns: self
                .error_ns
                .saturating_add(growth_ns)
                .saturating_add(Self::ROUNDING_NS),
            age_ns,
            status: self.status,
            disruption: self.disruption,
        })
    }

    /// See the error analysis.
    pub(super) const ROUNDING_NS: u64 = 2;
}

impl Value for ClockSample {
    const TYPE_ID: u32 = u32::from_le_bytes(*b"CLCK");
    const WORDS: usize = 7;

    fn encode(&self, words: &mut [u64]) {
        let kinds = u64::from(self.domain as u8)
            | u64::from(self.clock as u8) << 8
            | u64::from(self.status as u8) << 16
            | u64::from(self.leap as u8) << 24
            | u64::from(self.error_growth_ppb) << 32;
        words.copy_from_slice(&[
            kinds,
            self.counter,
            self.time_ns,
            self.rate.bits(),
            self.error_ns,
            self.disruption,
            self.valid_for_ns,
        ]);
    }

    #[inline]
    fn decode(words: &[u64]) -> Result<Self, InvalidValue> {
        let invalid = |word: usize, expected| InvalidValue {
            word,
            found: words.get(word).copied().unwrap_or(0),
            expected,
        };
        let &[
            kinds,
            counter,
            time_ns,
            rate,
            error_ns,
            disruption,
            valid_for_ns,
        ] = words
        else {
            return Err(invalid(words.len(), "one of seven words"));
        };
        let [domain, clock, status, leap, ..] = kinds.to_le_bytes();
        Ok(Self {
            domain: CounterDomain::from_number(domain)
                .ok_or_else(|| invalid(0, "a counter domain in bits 0 to 7"))?,
            clock: ClockKind::from_number(clock)
                .ok_or_else(|| invalid(0, "a kind of clock in bits 8 to 15"))?,
            status: ClockStatus::from_number(status)
                .ok_or_else(|| invalid(0, "a clock status in bits 16 to 23"))?,
            leap: Leap::from_number(leap)
                .ok_or_else(|| invalid(0, "a leap second indicator in bits 24 to 31"))?,
            error_growth_ppb: (kinds >> 32) as u32,
            counter,
            time_ns,
            rate: Rate::from_bits(rate).ok_or_else(|| invalid(3, "a rate that is not zero"))?,
            error_ns,
            disruption,
            valid_for_ns,
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn sample() -> ClockSample {
        ClockSample {
            domain: CounterDomain::Tsc,
            clock: ClockKind::Monotonic,
            status: ClockStatus::Synchronized,
            leap: Leap::Unknown,
            error_growth_ppb: 1_000,
            counter: 1_000_000,
            time_ns: 5_000_000_000,
            rate: Rate::from_ratio(1, 2).unwrap(),
            error_ns: 40,
            disruption: 3,
            valid_for_ns: 5_000_000_000,
        }
    }

    #[test]
    fn time_and_bound_grow_with_the_counter() {
        let reading = sample().extrapolate(1_000_000 + 2_000_000_000).unwrap();
        assert_eq!(reading.time_ns, 6_000_000_000);
        assert_eq!(reading.age_ns, 1_000_000_000);
        assert_eq!(reading.error_ns, 40 + 1_000 + 2);

        // A counter that wrapped is one that went on.
        let wrapping = ClockSample {
            counter: u64::MAX - 9,
            ..sample()
        };
        assert_eq!(wrapping.extrapolate(10).unwrap().time_ns, 5_000_000_010);
    }

    #[test]
    fn what_lies_outside_the_sample_is_refused() {
        let sample = sample();
        assert_eq!(
            sample.extrapolate(sample.counter + 10_000_000_002),
            Err(ExtrapolationError::Stale {
                age_ns: 5_000_000_001,
                valid_for_ns: 5_000_000_000
            })
        );
        assert_eq!(
            sample.extrapolate(sample.counter - 20).unwrap().time_ns,
            4_999_999_990
        );
        assert_eq!(
            sample.extrapolate(sample.counter - 20_002),
            Err(ExtrapolationError::CounterBehind { by_ns: 10_001 })
        );
        let late = ClockSample {
            time_ns: u64::MAX - 1,
            ..sample
        };
        assert_eq!(
            late.extrapolate(late.counter + 4),
            Err(ExtrapolationError::OutOfRange)
        );
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: if cfg!(miri) { 4 } else { 256 }, failure_persistence: None, ..ProptestConfig::default() })]

        /// Random words either say what is wrong or decode to what encodes to the same words, and extrapolate without
        /// a panic to what exact arithmetic says.
        #[test]
        fn hostile_words_are_refused_or_extrapolate_exactly(
            mut words in any::<[u64; ClockSample::WORDS]>(),
            kinds in prop::option::of((0u8..4, 0u8..4, 0u8..6, 0u8..7)),
            counter in any::<u64>(),
        ) {
            if let Some((domain, clock, status, leap)) = kinds {
                words[0] = words[0] & !0xffff_ffff | u64::from(u32::from_le_bytes([domain, clock, status, leap]));
            }
            let Ok(sample) = ClockSample::decode(&words) else { return Ok(()) };
            let mut encoded = [0; ClockSample::WORDS];
            sample.encode(&mut encoded);
            prop_assert_eq!(encoded, words);
            let Ok(reading) = sample.extrapolate(counter) else { return Ok(()) };
            let ticks = i128::from(counter.wrapping_sub(sample.counter) as i64);
            let exact = i128::from(sample.time_ns) * (1 << 48) + ticks.saturating_mul(i128::from(sample.rate.bits()));
            let shown = i128::from(reading.time_ns) * (1 << 48);
            prop_assert!((shown - exact).abs() < 1 << 48, "{} against {}", shown, exact);
            prop_assert!(reading.error_ns >= sample.error_ns);
        }
    }
}
