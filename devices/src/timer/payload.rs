//! What the slots of the two lanes say.

use core::num::NonZeroU64;

use shmbus_table::{Generation, InvalidValue, Value};

/// What a guest says of one of its timers. The last value that it wrote is the only one that counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Deadline {
    /// The timer is off.
    Cancelled,
    /// The timer fires once, when the bus's monotonic clock reaches so many nanoseconds; at once if it has.
    At(u64),
    /// The timer fires for the first time as `At` does, and then again and again.
    Periodic {
        /// When first, in nanoseconds of the bus's monotonic clock.
        first_ns: u64,
        /// From one time to the next, in nanoseconds.
        period_ns: NonZeroU64,
    },
}

const CANCELLED: u64 = 0;
const ARMED: u64 = 1;
const PERIODIC: u64 = 2;

impl Deadline {
    /// When the timer is to fire for the `nth` time, counted from 1; nothing if it never does.
    pub fn nth_ns(self, nth: u64) -> Option<u64> {
        match self {
            Self::Cancelled => None,
            Self::At(ns) => (nth == 1).then_some(ns),
            Self::Periodic {
                first_ns,
                period_ns,
            } => period_ns
                .get()
                .checked_mul(nth.checked_sub(1)?)?
                .checked_add(first_ns),
        }
    }

    /// How often its time has come at `now_ns`.
    pub fn passed(self, now_ns: u64) -> u64 {
        let since = |first_ns: u64| now_ns.checked_sub(first_ns);
        match self {
            Self::Cancelled => 0,
            Self::At(ns) => u64::from(since(ns).is_some()),
            Self::Periodic {
                first_ns,
                period_ns,
            } => since(first_ns).map_or(0, |since| (since / period_ns).saturating_add(1)),
        }
    }
}

impl Value for Deadline {
    const TYPE_ID: u32 = u32::from_le_bytes(*b"DEAD");
    const WORDS: usize = 3;

    fn encode(&self, words: &mut [u64]) {
        words.copy_from_slice(&match *self {
            Self::Cancelled => [CANCELLED, 0, 0],
            Self::At(ns) => [ARMED, ns, 0],
            Self::Periodic {
                first_ns,
                period_ns,
            } => [PERIODIC, first_ns, period_ns.get()],
        });
    }

    fn decode(words: &[u64]) -> Result<Self, InvalidValue> {
        let &[state, ns, period] = words else {
            return Err(wrong_length(words, "three words"));
        };
        match state {
            CANCELLED => Ok(Self::Cancelled),
            ARMED => Ok(Self::At(ns)),
            PERIODIC => Ok(Self::Periodic {
                first_ns: ns,
                period_ns: NonZeroU64::new(period).ok_or(InvalidValue {
                    word: 2,
                    found: period,
                    expected: "a period that is not zero",
                })?,
            }),
            found => Err(InvalidValue {
                word: 0,
                found,
                expected: "0 (cancelled), 1 (armed) or 2 (periodic)",
            }),
        }
    }
}

/// What the host says of a timer: that it fired, and which deadline that answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Expiration {
    /// The generation of the deadline that was answered. The guest discards an expiration that answers an older one
    /// than it wrote last.
    pub answers: Generation,
    /// When it was due, in nanoseconds of the bus's monotonic clock: of a periodic timer the last time of `count`.
    pub deadline_ns: u64,
    /// When the host fired it, by the same clock.
    pub fired_ns: u64,
    /// How often its time has come since it was set: 1, or more for a periodic timer. An expiration that takes the place
    /// of another loses nothing by that: the guest knows how far it had counted.
    pub count: NonZeroU64,
}

impl Value for Expiration {
    const TYPE_ID: u32 = u32::from_le_bytes(*b"EXPI");
    const WORDS: usize = 4;

    fn encode(&self, words: &mut [u64]) {
        words.copy_from_slice(&[
            self.answers.word(),
            self.deadline_ns,
            self.fired_ns,
            self.count.get(),
        ]);
    }

    fn decode(words: &[u64]) -> Result<Self, InvalidValue> {
        let &[answers, deadline_ns, fired_ns, count] = words else {
            return Err(wrong_length(words, "four words"));
        };
        Ok(Self {
            answers: Generation::from_word(answers).ok_or(InvalidValue {
                word: 0,
                found: answers,
                expected: "a generation",
            })?,
            deadline_ns,
            fired_ns,
            count: NonZeroU64::new(count).ok_or(InvalidValue {
                word: 3,
                found: count,
                expected: "a count that is not zero",
            })?,
        })
    }
}

/// A table gives every value its words, so this is for other callers only.
fn wrong_length(words: &[u64], expected: &'static str) -> InvalidValue {
    InvalidValue {
        word: words.len(),
        found: 0,
        expected,
    }
}
