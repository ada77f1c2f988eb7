//! A value on its way through a ring.

use shmbus_table::{Epoch, Generation, InvalidValue, Value};

/// Words before the value's: the slot, and the generation.
const HEADER_WORDS: usize = 2;

/// The longest element: two lines.
const MOST_WORDS: usize = 16;

/// Bytes of the longest element.
pub(super) const MOST_BYTES: usize = 8 * MOST_WORDS;

/// An element breaks the rules.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ElementError {
    /// It is not as long as the values are.
    #[error("an element has {found} bytes, {expected} were expected")]
    Bytes {
        /// How long an element is.
        expected: usize,
        /// How long this one is.
        found: u64,
    },
    /// It is of a slot that there is not.
    #[error("an element of slot {slot}, of {slots}")]
    Slot {
        /// The word that should be a slot.
        slot: u64,
        /// How many slots there are.
        slots: u32,
    },
    /// Its generation is none, or not newer than that of the element before of the same slot.
    #[error("an element of slot {slot} has generation {found:#x}, after {last:#x}")]
    Generation {
        /// The slot.
        slot: u32,
        /// The word that should be a newer generation.
        found: u64,
        /// The last one, or 0.
        last: u64,
    },
    /// It holds something that is no value of the type.
    #[error("an element of slot {slot}: {invalid}")]
    Value {
        /// The slot.
        slot: u32,
        /// What is wrong with it.
        invalid: InvalidValue,
    },
}

/// Bytes of an element of `V`.
pub(super) const fn element_bytes<V: Value>() -> usize {
    const {
        assert!(
            HEADER_WORDS + V::WORDS <= MOST_WORDS,
            "an element has at most 16 words"
        )
    };
    8 * (HEADER_WORDS + V::WORDS)
}

/// The element's bytes at the start of `bytes`.
pub(super) fn encode<V: Value>(
    slot: u32,
    generation: Generation,
    value: &V,
    bytes: &mut [u8; MOST_BYTES],
) {
    let mut words = [0; MOST_WORDS];
    words[0] = u64::from(slot);
    words[1] = generation.word();
    value.encode(&mut words[HEADER_WORDS..HEADER_WORDS + V::WORDS]);
    for (to, word) in bytes.chunks_exact_mut(8).zip(words) {
        to.copy_from_slice(&word.to_le_bytes());
    }
}

/// Reads an element, which a peer wrote and which was copied out of shared memory. `last` holds the newest generation
/// of each slot, as its word, and is brought up to date.
pub(super) fn decode<V: Value>(
    bytes: &[u8; MOST_BYTES],
    last: &mut [u64],
) -> Result<(u32, V, Generation), ElementError> {
    let mut words = [0; MOST_WORDS];
    for (word, from) in words.iter_mut().zip(bytes.as_chunks::<8>().0) {
        *word = u64::from_le_bytes(*from);
    }
    let [slot, generation, ..] = words;
    let no_slot = ElementError::Slot {
        slot,
        slots: last.len() as u32,
    };
    let index = u32::try_from(slot).map_err(|_| no_slot)?;
    let last = last.get_mut(index as usize).ok_or(no_slot)?;
    let newer = Generation::from_word(generation).filter(|newer| newer.word() > *last);
    let newer = newer.ok_or(ElementError::Generation {
        slot: index,
        found: generation,
        last: *last,
    })?;
    let value = V::decode(&words[HEADER_WORDS..HEADER_WORDS + V::WORDS]).map_err(|invalid| {
        ElementError::Value {
            slot: index,
            invalid,
        }
    })?;
    *last = newer.word();
    Ok((index, value, newer))
}

/// The generation after the one whose word is `last`, which is 0 at first: a ring begins anew with each life of its
/// device, and with it the count.
pub(super) fn next_generation(last: u64) -> Option<Generation> {
    match Generation::from_word(last) {
        Some(last) => last.next(),
        None => Generation::new(Epoch::FIRST, 1),
    }
}
