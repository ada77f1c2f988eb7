//! Values with a type.

/// A word that no value of a type has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("word {word} of the value is {found:#x}, not {expected}")]
pub struct InvalidValue {
    /// Which word, counted from 0.
    pub word: usize,
    /// What it holds.
    pub found: u64,
    /// What it may hold.
    pub expected: &'static str,
}

/// A type of values that a table can hold, and how they are words.
///
/// A value that comes from a peer is decoded and checked, never transmuted: whatever its words are, decoding ends with
/// a value that holds what the type promises, or with [`InvalidValue`].
pub trait Value: Sized {
    /// What both sides call the type.
    const TYPE_ID: u32;

    /// How many 8-byte words a value has: 1 to 512.
    const WORDS: usize;

    /// Writes the value into `words`, which are [`Value::WORDS`] zeroes.
    fn encode(&self, words: &mut [u64]);

    /// Reads a value from `words`, which are [`Value::WORDS`] and come from a peer.
    ///
    /// # Errors
    ///
    /// [`InvalidValue`] for the first word that no value has.
    fn decode(words: &[u64]) -> Result<Self, InvalidValue>;
}

/// Calls `work` with zeroed words for one value. Which of the arrays it uses is known when it is compiled, so a small
/// value costs a small one.
#[inline(always)]
pub(crate) fn with_words<V: Value, R>(work: impl FnOnce(&mut [u64]) -> R) -> R {
    const {
        assert!(
            V::WORDS >= 1 && V::WORDS <= 512,
            "a value has 1 to 512 words"
        )
    };
    match V::WORDS {
        0..=8 => work(&mut [0; 8][..V::WORDS]),
        9..=64 => work(&mut [0; 64][..V::WORDS]),
        _ => work(&mut [0; 512][..V::WORDS]),
    }
}
