//! Text from a peer: bounded, and safe to print on a terminal and in a log.

use core::fmt;

/// The longest [`GuestName`], in bytes.
pub const MAX_NAME_BYTES: usize = 32;
/// The longest [`Explanation`], in bytes.
pub const MAX_EXPLANATION_BYTES: usize = 256;

/// The name by which a guest shows in logs and in `inspect`: 1 to 32 bytes of `A-Z a-z 0-9 . _ -`.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct GuestName(String);

/// Why a string is not a [`GuestName`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// Empty, or too long.
    #[error("a guest's name has 1 to {MAX_NAME_BYTES} bytes, this one has {found}")]
    Length {
        /// Its length in bytes.
        found: usize,
    },
    /// A character that may not stand in a name.
    #[error(
        "a guest's name consists of letters, digits, '.', '_' and '-'; byte {at} is {found:#04x}"
    )]
    Character {
        /// Its position.
        at: usize,
        /// The byte found there.
        found: u8,
    },
}

impl GuestName {
    /// Checks a name.
    ///
    /// # Errors
    ///
    /// [`NameError`]: empty, longer than 32 bytes, or with a character that may not stand in a name.
    pub fn new(name: &str) -> Result<Self, NameError> {
        if name.is_empty() || name.len() > MAX_NAME_BYTES {
            return Err(NameError::Length { found: name.len() });
        }
        let stray = |byte: &u8| !(byte.is_ascii_alphanumeric() || b"._-".contains(byte));
        match name.bytes().enumerate().find(|(_, byte)| stray(byte)) {
            Some((at, found)) => Err(NameError::Character { at, found }),
            None => Ok(Self(name.to_owned())),
        }
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for GuestName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for GuestName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.0)
    }
}

/// A sentence for the person at the other end: at most 256 bytes, no control characters (a peer must not be able to
/// move the cursor of the terminal that shows it).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Explanation(String);

impl Explanation {
    /// Makes any text fit: control characters become spaces, what is too long is cut at a character's end.
    pub fn new(text: &str) -> Self {
        let mut fitted = String::new();
        for character in text.chars() {
            if fitted.len() + character.len_utf8() > MAX_EXPLANATION_BYTES {
                break;
            }
            fitted.push(if character.is_control() {
                ' '
            } else {
                character
            });
        }
        Self(fitted)
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn names_are_checked() {
        assert!(GuestName::new("net-0.a_B").is_ok());
        assert_eq!(GuestName::new(""), Err(NameError::Length { found: 0 }));
        assert_eq!(
            GuestName::new(&"x".repeat(33)),
            Err(NameError::Length { found: 33 })
        );
        assert_eq!(
            GuestName::new("a\x1b[2J"),
            Err(NameError::Character { at: 1, found: 0x1b })
        );
    }

    proptest! {
        #[test]
        fn an_explanation_is_always_short_and_printable(text: String) {
            let fitted = Explanation::new(&text.repeat(20));
            prop_assert!(fitted.as_str().len() <= MAX_EXPLANATION_BYTES);
            prop_assert!(!fitted.as_str().chars().any(char::is_control));
            // What fits once is not changed again: encoding and decoding keep it.
            prop_assert_eq!(Explanation::new(fitted.as_str()), fitted);
        }
    }
}
