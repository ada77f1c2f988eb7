//! Who is shown where.

use shmbus_table::{InvalidValue, Value};
use shmbus_transports::local::GuestName;

/// Words of a name.
const NAME_WORDS: usize = 4;
/// The longest name, in bytes.
const NAME_BYTES: usize = 8 * NAME_WORDS;

/// A slot of the gallery's table of sessions: what its area shows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Card {
    /// Nothing.
    Vacant,
    /// A session.
    Session {
        /// Its number.
        number: u64,
        /// Its guest's name.
        name: GuestName,
    },
}

impl Value for Card {
    const TYPE_ID: u32 = u32::from_le_bytes(*b"CARD");
    const WORDS: usize = 2 + NAME_WORDS;

    fn encode(&self, words: &mut [u64]) {
        let Self::Session { number, name } = self else {
            return;
        };
        let name = name.as_str().as_bytes();
        words[0] = name.len() as u64;
        words[1] = *number;
        for (word, bytes) in words[2..].iter_mut().zip(name.chunks(8)) {
            let mut padded = [0; 8];
            padded[..bytes.len()].copy_from_slice(bytes);
            *word = u64::from_le_bytes(padded);
        }
    }

    fn decode(words: &[u64]) -> Result<Self, InvalidValue> {
        if words[0] == 0 {
            return Ok(Self::Vacant);
        }
        let invalid = |word: usize, expected| InvalidValue {
            word,
            found: words[word],
            expected,
        };
        let mut bytes = [0; NAME_BYTES];
        for (bytes, word) in bytes.chunks_mut(8).zip(&words[2..]) {
            bytes.copy_from_slice(&word.to_le_bytes());
        }
        let length = usize::try_from(words[0]).ok();
        let name = length.and_then(|length| bytes.get(..length));
        let name = name.ok_or_else(|| invalid(0, "the length of a name, 32 at most"))?;
        let name = std::str::from_utf8(name).ok();
        let name = name.and_then(|name| GuestName::new(name).ok());
        Ok(Self::Session {
            number: words[1],
            name: name.ok_or_else(|| invalid(2, "the characters of a guest's name"))?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_card_keeps_its_name_and_lies_are_refused() {
        for name in ["a", "eight-by", "a-name-of-thirty-two-bytes.x.x.x"] {
            let card = Card::Session {
                number: 7,
                name: GuestName::new(name).unwrap(),
            };
            let mut words = [0; Card::WORDS];
            card.encode(&mut words);
            assert_eq!(Card::decode(&words), Ok(card));
        }
        let mut words = [0; Card::WORDS];
        assert_eq!(Card::decode(&words), Ok(Card::Vacant));
        for (length, first, word) in [(33, u64::MAX, 0), (u64::MAX, 0, 0), (3, 0x2f_2f_2f, 2)] {
            words[0] = length;
            words[2] = first;
            assert_eq!(Card::decode(&words).unwrap_err().word, word);
        }
    }
}
