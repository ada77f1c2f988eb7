//! Descriptors as two words, and the buffers that they describe.

/// Bytes of a descriptor, in tables of every kind.
pub const DESCRIPTOR_BYTES: usize = 16;

/// The most bytes that one chain may describe: 2^32 (virtio 1.4, section 2.7.5.2).
pub(crate) const MAX_CHAIN_BYTES: u64 = 1 << 32;

/// The chain goes on at `next` (`VIRTQ_DESC_F_NEXT`).
pub(crate) const NEXT: u16 = 1;
/// The buffer is for the device to write, not to read (`VIRTQ_DESC_F_WRITE`).
pub(crate) const WRITE: u16 = 2;
/// The buffer is a table of descriptors (`VIRTQ_DESC_F_INDIRECT`).
pub(crate) const INDIRECT: u16 = 4;

/// A piece of memory that the driver lends to the device.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Buffer {
    /// Where it starts, in the address space that the device translates with.
    pub address: u64,
    /// How long it is, in bytes.
    pub len: u32,
}

impl Buffer {
    /// The `len` bytes at `address`.
    pub const fn new(address: u64, len: u32) -> Self {
        Self { address, len }
    }
}

/// A descriptor, out of shared memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Descriptor {
    pub(crate) buffer: Buffer,
    pub(crate) flags: u16,
    pub(crate) next: u16,
}

impl Descriptor {
    /// `addr`; then `len`, `flags` and `next` together: so each half is one aligned access.
    #[inline(always)]
    pub(crate) fn to_words(self) -> [u64; 2] {
        [
            self.buffer.address,
            u64::from(self.buffer.len) | u64::from(self.flags) << 32 | u64::from(self.next) << 48,
        ]
    }

    #[inline(always)]
    pub(crate) fn from_words(words: [u64; 2]) -> Self {
        Self {
            buffer: Buffer::new(words[0], words[1] as u32),
            flags: (words[1] >> 32) as u16,
            next: (words[1] >> 48) as u16,
        }
    }

    /// The descriptor as bytes: what indirect tables, which may lie at any address, are accessed as.
    pub(crate) fn to_bytes(self) -> [u8; DESCRIPTOR_BYTES] {
        let [low, high] = self.to_words();
        (u128::from(low) | u128::from(high) << 64).to_le_bytes()
    }

    pub(crate) fn from_bytes(bytes: [u8; DESCRIPTOR_BYTES]) -> Self {
        let words = u128::from_le_bytes(bytes);
        Self::from_words([words as u64, (words >> 64) as u64])
    }

    /// What `next` says for a descriptor with `flags` that `following` may follow.
    #[inline(always)]
    pub(crate) fn next_field(flags: u16, following: u16) -> u16 {
        if flags & NEXT != 0 { following } else { 0 }
    }

    /// Whether one of `flags` is set.
    #[inline(always)]
    pub(crate) fn has(self, flags: u16) -> bool {
        self.flags & flags != 0
    }
}

/// A row of an indirect table whose rows follow one another (virtio 1.4, section 2.8.7). Of its flags only WRITE means
/// something; what a split descriptor has as `flags` is reserved here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Row {
    pub(crate) buffer: Buffer,
    pub(crate) flags: u16,
}

impl Row {
    pub(crate) fn to_bytes(self) -> [u8; DESCRIPTOR_BYTES] {
        let Buffer { address, len } = self.buffer;
        let high = u64::from(len) | u64::from(self.flags & WRITE) << 48;
        (u128::from(address) | u128::from(high) << 64).to_le_bytes()
    }

    pub(crate) fn from_bytes(bytes: [u8; DESCRIPTOR_BYTES]) -> Self {
        let words = u128::from_le_bytes(bytes);
        Self {
            buffer: Buffer::new(words as u64, (words >> 64) as u32),
            flags: (words >> 112) as u16,
        }
    }
}

/// A chain that the device returns (`virtq_used_elem`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct UsedElement {
    pub(crate) id: u32,
    pub(crate) len: u32,
}

impl UsedElement {
    #[inline(always)]
    pub(crate) fn to_word(self) -> u64 {
        u64::from(self.id) | u64::from(self.len) << 32
    }

    #[inline(always)]
    pub(crate) fn from_word(word: u64) -> Self {
        Self {
            id: word as u32,
            len: (word >> 32) as u32,
        }
    }
}

/// The only buffer of a chain, with its flags: most chains have one, and need no loop.
#[inline(always)]
pub(crate) fn only_buffer(readable: &[Buffer], writable: &[Buffer]) -> Option<(Buffer, u16)> {
    match (readable, writable) {
        ([buffer], []) => Some((*buffer, 0)),
        ([], [buffer]) => Some((*buffer, WRITE)),
        _ => None,
    }
}

/// A chain's descriptors as the driver writes them, but for `next`: readable buffers, then writable ones. Each comes
/// with whether another follows.
#[inline(always)]
pub(crate) fn describe<'b>(
    readable: &'b [Buffer],
    writable: &'b [Buffer],
) -> impl Iterator<Item = (Buffer, u16)> + 'b {
    let last = (readable.len() + writable.len()).saturating_sub(1);
    let readable = readable.iter().map(|buffer| (*buffer, 0));
    let writable = writable.iter().map(|buffer| (*buffer, WRITE));
    readable
        .chain(writable)
        .enumerate()
        .map(move |(index, (buffer, flags))| {
            (buffer, if index < last { flags | NEXT } else { flags })
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_words_are_virtq_desc() {
        let descriptor = Descriptor {
            buffer: Buffer::new(0x0102_0304_0506_0708, 0x1112_1314),
            flags: NEXT | WRITE,
            next: 0x2122,
        };
        let bytes = descriptor.to_bytes();
        assert_eq!(bytes[..8], 0x0102_0304_0506_0708_u64.to_le_bytes());
        assert_eq!(bytes[8..12], 0x1112_1314_u32.to_le_bytes());
        assert_eq!(bytes[12..14], 3_u16.to_le_bytes());
        assert_eq!(bytes[14..], 0x2122_u16.to_le_bytes());
        assert_eq!(Descriptor::from_bytes(bytes), descriptor);
    }

    #[test]
    fn a_rows_words_are_pvirtq_desc() {
        let buffer = Buffer::new(0x0102_0304_0506_0708, 0x1112_1314);
        let row = Row {
            buffer,
            flags: NEXT | WRITE,
        };
        let bytes = row.to_bytes();
        assert_eq!(bytes[..8], 0x0102_0304_0506_0708_u64.to_le_bytes());
        assert_eq!(bytes[8..12], 0x1112_1314_u32.to_le_bytes());
        assert_eq!(bytes[12..], [0, 0, 2, 0]);
        let read = Row::from_bytes(bytes);
        assert_eq!((read.buffer, read.flags), (buffer, WRITE));
    }

    #[test]
    fn a_chain_is_described_readable_first() {
        let (a, b, c) = (Buffer::new(1, 1), Buffer::new(2, 2), Buffer::new(3, 3));
        assert!(describe(&[a], &[b, c]).eq([(a, NEXT), (b, WRITE | NEXT), (c, WRITE)]));
        assert!(describe(&[], &[c]).eq([(c, WRITE)]));
    }
}
