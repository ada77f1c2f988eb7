//! What the slots of the two tables say.

use shmbus_table::{Generation, InvalidValue, Value};

/// What a guest says of one of its timers. The last value that it wrote is the only one there is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Deadline {
    /// The timer is off.
    Cancelled,
    /// The timer fires once, when the bus's monotonic clock reaches so many nanoseconds; at once if it has.
    At(u64),
}

const CANCELLED: u64 = 0;
const ARMED: u64 = 1;

impl Value for Deadline {
    const TYPE_ID: u32 = u32::from_le_bytes(*b"DEAD");
    const WORDS: usize = 2;

    fn encode(&self, words: &mut [u64]) {
        words.copy_from_slice(&match *self {
            Self::Cancelled => [CANCELLED, 0],
            Self::At(ns) => [ARMED, ns],
        });
    }

    fn decode(words: &[u64]) -> Result<Self, InvalidValue> {
        let &[state, ns] = words else {
            return Err(wrong_length(words, "two words"));
        };
        match state {
            CANCELLED => Ok(Self::Cancelled),
            ARMED => Ok(Self::At(ns)),
            found => Err(InvalidValue {
                word: 0,
                found,
                expected: "0 (cancelled) or 1 (armed)",
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
    /// That deadline, in nanoseconds of the bus's monotonic clock.
    pub deadline_ns: u64,
    /// When the host fired it, by the same clock.
    pub fired_ns: u64,
}

impl Value for Expiration {
    const TYPE_ID: u32 = u32::from_le_bytes(*b"EXPI");
    const WORDS: usize = 3;

    fn encode(&self, words: &mut [u64]) {
        words.copy_from_slice(&[self.answers.word(), self.deadline_ns, self.fired_ns]);
    }

    fn decode(words: &[u64]) -> Result<Self, InvalidValue> {
        let &[answers, deadline_ns, fired_ns] = words else {
            return Err(wrong_length(words, "three words"));
        };
        Ok(Self {
            answers: Generation::from_word(answers).ok_or(InvalidValue {
                word: 0,
                found: answers,
                expected: "a generation",
            })?,
            deadline_ns,
            fired_ns,
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
