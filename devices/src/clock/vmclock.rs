//! A clock as a VMClock page: the ABI that Linux guests and others read (`include/uapi/linux/vmclock-abi.h`, version
//! 1).
//!
//! The page is a projection, kept because it is read already, and weaker than the tables beside it:
//!
//! - It is a plain sequence count. A writer that is killed between two stores leaves it odd, and every reader waits,
//!   until somebody sets the page up anew. Readers must bound their tries. Nothing tells a reader whose writer is
//!   gone but the age of the counter's value.
//! - The count has 32 bits, and wraps: a reader that is stopped for exactly as long as 2^31 updates take sees torn
//!   time. At twenty updates a second that is three years.
//! - It tells one clock, and has no validity. Its counter is the guest's own, so there is a page for each guest.
//! - A bound on the error of UTC would be one against UTC itself, and nobody has told the host how far off it is. So
//!   for UTC and TAI the page gives the bound against the host's clock as the *estimated* error, and no *maximum*
//!   error; of the monotonic clock, which is the host's own, it is both.
//!
//! `TIME_MONOTONIC` is not claimed: the clock may be set. `NOTIFICATION_PRESENT` is not, either: the bus signals
//! disruptions, not updates.

use core::sync::atomic::Ordering;

use shmbus_shm::{Field, Window, WindowError};

use super::counter::CounterDomain;
use super::sample::{ClockKind, ClockSample, ClockStatus, Leap, Rate};
use super::transform::{CounterNotice, CounterTransform, TransformSource};

/// A page of which the guest's VMM makes one in the guest's address space.
pub const VMCLOCK_BYTES: usize = 4096;

const MAGIC: u32 = u32::from_le_bytes(*b"VCLK");
const VERSION: u16 = 1;

/// Where the words are, in bytes.
mod at {
    pub(super) const MAGIC: usize = 0;
    pub(super) const SIZE: usize = 4;
    /// The version, the counter, the type of time.
    pub(super) const KIND: usize = 8;
    pub(super) const SEQUENCE: usize = 12;
    /// What the sequence count protects.
    pub(super) const BODY: usize = 16;
}

/// Words of 64 bits from [`at::BODY`] on, the last one the generation of a VM that is restored from a snapshot, which
/// the device does not know of.
const BODY_WORDS: usize = 12;

/// Bits of the second word.
mod flag {
    pub(super) const TAI_OFFSET_VALID: u64 = 1 << 0;
    pub(super) const PERIOD_ESTERROR_VALID: u64 = 1 << 3;
    pub(super) const PERIOD_MAXERROR_VALID: u64 = 1 << 4;
    pub(super) const TIME_ESTERROR_VALID: u64 = 1 << 5;
    pub(super) const TIME_MAXERROR_VALID: u64 = 1 << 6;
}

/// The counters that the ABI knows have the numbers that they have here.
fn counter_id(domain: CounterDomain) -> CounterDomain {
    match domain {
        CounterDomain::Tsc | CounterDomain::Cntvct => domain,
        CounterDomain::MonotonicRaw | CounterDomain::Invalid => CounterDomain::Invalid,
    }
}

/// Writes a page.
#[derive(Debug)]
pub struct VmclockPage<W: Window> {
    sequence: Field<u32, W>,
    body: Vec<Field<u64, W>>,
    count: u32,
}

impl<W: Window> VmclockPage<W> {
    /// Sets a page up, which tells no time yet. A page that was there before goes on under the next count.
    ///
    /// # Errors
    ///
    /// [`WindowError`] for memory that is shorter than a page.
    pub fn new(window: &W, clock: ClockKind, counter: CounterDomain) -> Result<Self, WindowError> {
        let window = window.narrow(0, VMCLOCK_BYTES)?;
        let word = |offset| Field::<u32, W>::new(&window, offset);
        let sequence = word(at::SEQUENCE)?;
        let body = (0..BODY_WORDS)
            .map(|index| Field::new(&window, at::BODY + 8 * index))
            .collect::<Result<Vec<_>, _>>()?;
        let mut page = Self {
            count: sequence.load(Ordering::Relaxed) & !1,
            sequence,
            body,
        };
        page.write(&[0; BODY_WORDS]);
        let kind = u32::from(VERSION)
            | u32::from(counter_id(counter) as u8) << 16
            | u32::from(clock as u8) << 24;
        word(at::KIND)?.store(kind, Ordering::Relaxed);
        word(at::SIZE)?.store(VMCLOCK_BYTES as u32, Ordering::Relaxed);
        // Last: who finds it finds the rest.
        word(at::MAGIC)?.store(MAGIC, Ordering::Release);
        Ok(page)
    }

    /// Tells a sample to the guest whose counter the notice speaks of. Where its transform is not known, or cannot be
    /// turned round, the page says that it is unreliable, and only the disruption marker holds.
    pub fn publish(
        &mut self,
        sample: &ClockSample,
        notice: &CounterNotice,
        tai_offset_s: Option<u16>,
    ) {
        let projected = Projected::new(sample, &notice.transform);
        let status = match projected {
            Some(_) => sample.status,
            None => ClockStatus::Unreliable,
        };
        let errors = match sample.clock {
            ClockKind::Monotonic => {
                flag::PERIOD_ESTERROR_VALID
                    | flag::PERIOD_MAXERROR_VALID
                    | flag::TIME_ESTERROR_VALID
                    | flag::TIME_MAXERROR_VALID
            }
            ClockKind::Utc | ClockKind::Tai => {
                flag::PERIOD_ESTERROR_VALID | flag::TIME_ESTERROR_VALID
            }
        };
        let flags = match projected {
            Some(_) => errors,
            None => 0,
        } | match tai_offset_s {
            Some(_) => flag::TAI_OFFSET_VALID,
            None => 0,
        };
        let leap = match sample.leap {
            Leap::Unknown => Leap::None,
            known => known,
        };
        let projected = projected.unwrap_or_default();
        let kinds = u64::from_le_bytes({
            let [low, high] = tai_offset_s.unwrap_or(0).to_le_bytes();
            // Two bytes of padding; no smearing is hinted at.
            [
                0,
                0,
                status as u8,
                0,
                low,
                high,
                leap as u8,
                projected.shift,
            ]
        });
        self.write(&[
            sample.disruption.wrapping_add(notice.disruption),
            flags,
            kinds,
            projected.counter,
            projected.period,
            projected.period_error,
            projected.period_error,
            projected.seconds,
            projected.fraction,
            projected.error_ns,
            projected.error_ns,
            0,
        ]);
    }

    fn write(&mut self, words: &[u64; BODY_WORDS]) {
        self.sequence.store(self.count | 1, Ordering::Relaxed);
        // The count is odd before any of the words is another one.
        self.sequence.fence(Ordering::Release);
        for (field, word) in self.body.iter().zip(words) {
            field.store(*word, Ordering::Relaxed);
        }
        self.count = self.count.wrapping_add(2);
        // All of the words are there before the count is even again.
        self.sequence.store(self.count, Ordering::Release);
    }
}

/// A sample in the guest's count and the ABI's units.
#[derive(Clone, Copy, Debug, Default)]
struct Projected {
    counter: u64,
    shift: u8,
    /// Of a tick, and its error, in 2^-(64 + shift) of a second.
    period: u64,
    period_error: u64,
    seconds: u64,
    /// In 2^-64 of a second.
    fraction: u64,
    error_ns: u64,
}

const SECOND_NS: u64 = 1_000_000_000;

impl Projected {
    fn new(sample: &ClockSample, transform: &CounterTransform) -> Option<Self> {
        if transform.source == TransformSource::Invalid
            || transform.host != sample.domain
            || counter_id(transform.reader) == CounterDomain::Invalid
        {
            return None;
        }
        // The guest's first count at which the host's is at least the sample's.
        let ahead = u128::from(sample.counter.wrapping_sub(transform.offset));
        let counter = (ahead << CounterTransform::FRACTION_BITS).div_ceil(transform.scale.into());
        let counter = u64::try_from(counter).ok()?;
        let behind = transform.to_host(counter).wrapping_sub(sample.counter);
        // A guest's tick at most, unless the product wraps.
        if behind > (transform.scale >> CounterTransform::FRACTION_BITS) + 1 {
            return None;
        }
        let rate = (u128::from(sample.rate.bits()) * u128::from(transform.scale))
            >> CounterTransform::FRACTION_BITS;
        let time_ns = sample
            .time_ns
            .checked_add(u64::try_from(sample.rate.elapsed_ns(behind)).ok()?)?;
        // Time at the count and the period are rounded down; the host's clock is cut to nanoseconds; a scaled count is
        // cut to one of the host's.
        let tick_ns = (sample.rate.bits() >> Rate::FRACTION_BITS) + 1;
        let error_ns = sample
            .error_ns
            .saturating_add(transform.error_ns)
            .saturating_add(ClockSample::ROUNDING_NS + 2 + tick_ns);
        let shift = Self::shift(rate)?;
        let in_units =
            |rate: u128| (rate << (64 - Rate::FRACTION_BITS + shift)) / u128::from(SECOND_NS);
        let growth = u128::from(sample.error_growth_ppb);
        let period = u64::try_from(in_units(rate)).ok()?;
        let period_error = (u128::from(period) * growth).div_ceil(SECOND_NS.into()) + 1;
        let fraction = (u128::from(time_ns % SECOND_NS) << 64) / u128::from(SECOND_NS);
        Some(Self {
            counter,
            shift: shift as u8,
            period,
            period_error: u64::try_from(period_error).unwrap_or(u64::MAX),
            seconds: time_ns / SECOND_NS,
            fraction: fraction as u64,
            error_ns,
        })
    }

    /// The shift that leaves the period as many bits as there are.
    fn shift(rate: u128) -> Option<u32> {
        // In units of 2^-64 s it is `rate << 16 / 10^9`, and 10^9 is a little less than 2^30.
        let bits = (128 - rate.leading_zeros()) + 16;
        (rate > 0 && bits <= 64 + 29).then(|| (64 + 29 - bits).min(63))
    }
}

#[cfg(test)]
mod tests {
    use shmbus_shm::testing::{Dying, Probed};
    use shmbus_shm::{Mapped, heap};

    use super::*;

    fn sample(number: u64) -> ClockSample {
        ClockSample {
            domain: CounterDomain::Tsc,
            clock: ClockKind::Utc,
            status: ClockStatus::Synchronized,
            leap: Leap::Unknown,
            error_growth_ppb: 0,
            counter: number,
            time_ns: number * SECOND_NS,
            rate: Rate::ONE,
            error_ns: number,
            disruption: number,
            valid_for_ns: 1,
        }
    }

    fn notice(transform: CounterTransform) -> CounterNotice {
        CounterNotice {
            transform,
            disruption: 0,
            disruptions: 0,
        }
    }

    /// The sequence, and three of the words that it protects: marker, counter, seconds.
    fn read(window: &Mapped) -> (u32, [u64; 3]) {
        let word = |at| {
            Field::<u64, _>::new(window, at)
                .unwrap()
                .load(Ordering::Relaxed)
        };
        let sequence = Field::<u32, _>::new(window, at::SEQUENCE).unwrap();
        (
            sequence.load(Ordering::Relaxed),
            [word(16), word(40), word(72)],
        )
    }

    /// A writer that is killed between any two stores leaves a whole value or an odd count, for ever; whoever sets the
    /// page up anew makes it even again.
    #[test]
    fn a_dead_writer_leaves_a_whole_value_or_an_odd_count() {
        let identity = notice(CounterTransform::identity(CounterDomain::Tsc));
        let mut odd = 0;
        for stores in 0..80 {
            let window = heap(VMCLOCK_BYTES);
            let dying = Probed::new(window.clone(), Dying::after(stores));
            let mut page = VmclockPage::new(&dying, ClockKind::Utc, CounterDomain::Tsc).unwrap();
            for number in 1..4 {
                page.publish(&sample(number), &identity, None);
            }
            let (sequence, words) = read(&window);
            if sequence % 2 == 0 {
                let number = u64::from(sequence / 2).saturating_sub(1);
                assert_eq!(words, [number; 3], "after {stores} stores");
            }
            odd += sequence % 2;
            let mut page = VmclockPage::new(&window, ClockKind::Utc, CounterDomain::Tsc).unwrap();
            page.publish(&sample(9), &identity, None);
            let (again, words) = read(&window);
            assert!(again % 2 == 0 && again > sequence && words == [9; 3]);
        }
        assert!(odd > 30, "{odd} times");
    }

    #[test]
    fn what_cannot_be_projected_is_unreliable() {
        let told = |transform, rate| {
            Projected::new(&ClockSample { rate, ..sample(5) }, &transform).is_some()
        };
        let identity = CounterTransform::identity(CounterDomain::Tsc);
        assert!(told(identity, Rate::ONE));
        let unknown = CounterTransform::unknown(CounterDomain::Tsc, CounterDomain::Tsc);
        assert!(!told(unknown, Rate::ONE));
        let raw = CounterTransform::identity(CounterDomain::MonotonicRaw);
        assert!(!told(raw, Rate::ONE));
        for scale in [1, u64::MAX] {
            for rate in [1, u64::MAX] {
                // Whatever comes of it, nothing overflows.
                told(
                    CounterTransform { scale, ..identity },
                    Rate::from_bits(rate).unwrap(),
                );
            }
        }
    }
}
