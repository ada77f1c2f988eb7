//! Values that are plain data, by the crate `zerocopy`.

use zerocopy::{Immutable, IntoBytes, TryFromBytes};

use crate::value::{InvalidValue, Value};

/// A type whose memory is its value: a struct without padding, of numbers, arrays, and enums of numbers, for which
/// `zerocopy` derives what is asked for here. Its size is a multiple of 8 bytes, 8 to 4096.
///
/// ```
/// use shmbus_table::{InvalidValue, Plain, PlainValue, Value};
/// use zerocopy::{Immutable, IntoBytes, TryFromBytes};
///
/// #[derive(Clone, Copy, Debug, PartialEq, TryFromBytes, IntoBytes, Immutable)]
/// #[repr(u32)]
/// enum Link { Down = 0, Up = 1 }
///
/// #[derive(Clone, Copy, Debug, PartialEq, TryFromBytes, IntoBytes, Immutable)]
/// #[repr(C)]
/// struct Port { frames: u64, link: Link, speed: u32 }
///
/// impl PlainValue for Port {
///     const TYPE_ID: u32 = 0x706f_7274;
/// }
///
/// let port = Port { frames: 7, link: Link::Up, speed: 1000 };
/// let mut words = [0; Plain::<Port>::WORDS];
/// Plain(port).encode(&mut words);
/// assert_eq!(words, [7, 1000 << 32 | 1]);
/// assert_eq!(Plain::decode(&words), Ok(Plain(port)));
/// // A peer that says what no link is gets no link out of us.
/// assert!(Plain::<Port>::decode(&[7, 2]).is_err());
/// ```
pub trait PlainValue: TryFromBytes + IntoBytes + Immutable {
    /// What both sides call the type.
    const TYPE_ID: u32;
}

/// A [`Value`] that is plain data, for [`TypedWriter`](crate::TypedWriter) and the other typed sides of a table.
///
/// What comes from a peer is checked to be a value of `T` before it is one, and never transmuted unseen: a bool, a char
/// and an enum are looked at, numbers are as they are. Such a check is of the whole, so the [`InvalidValue`] that it
/// ends with names the first word and the type.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Plain<T>(
    /// The value itself.
    pub T,
);

impl<T: PlainValue> Value for Plain<T> {
    const TYPE_ID: u32 = T::TYPE_ID;

    const WORDS: usize = {
        assert!(
            size_of::<T>().is_multiple_of(8),
            "a value is whole words of 8 bytes"
        );
        size_of::<T>() / 8
    };

    #[inline]
    fn encode(&self, words: &mut [u64]) {
        // Words are little-endian, as all machines are that shmbus serves.
        for (word, bytes) in words.iter_mut().zip(self.0.as_bytes().chunks_exact(8)) {
            if let Ok(bytes) = bytes.try_into() {
                *word = u64::from_le_bytes(bytes);
            }
        }
    }

    #[inline]
    fn decode(words: &[u64]) -> Result<Self, InvalidValue> {
        match T::try_read_from_bytes(words.as_bytes()) {
            Ok(value) => Ok(Self(value)),
            Err(_) => Err(InvalidValue {
                word: 0,
                found: words.first().copied().unwrap_or(0),
                expected: core::any::type_name::<T>(),
            }),
        }
    }
}
