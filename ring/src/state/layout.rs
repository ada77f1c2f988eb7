//! The bytes of a state: a header of 16 bytes, then what is in flight. All numbers are little-endian.

use shmbus_shm::RingFormat;

use super::StateError;
use crate::kind::RingKind;

/// The version of the layout; others are refused.
pub const STATE_VERSION: u16 = 1;

pub(super) const HEADER_BYTES: usize = 16;

/// A state's first 16 bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) kind: RingKind,
    pub(super) size: u16,
    pub(super) available: u16,
    pub(super) used: u16,
    pub(super) in_flight: u16,
}

/// In the byte of the format: in order.
const IN_ORDER: u8 = 1 << 7;

impl Header {
    pub(super) fn write(self, magic: [u8; 4], to: &mut [u8; HEADER_BYTES]) {
        let order = if self.kind.in_order { IN_ORDER } else { 0 };
        to[..4].copy_from_slice(&magic);
        to[4..6].copy_from_slice(&STATE_VERSION.to_le_bytes());
        to[6] = self.kind.format as u8 | order;
        to[7] = 0;
        for (field, value) in to[8..].as_chunks_mut::<2>().0.iter_mut().zip([
            self.size,
            self.available,
            self.used,
            self.in_flight,
        ]) {
            *field = value.to_le_bytes();
        }
    }

    pub(super) fn read(magic: [u8; 4], bytes: &[u8]) -> Result<Self, StateError> {
        let Some(header) = bytes.first_chunk::<HEADER_BYTES>() else {
            return Err(StateError::Length {
                found: bytes.len(),
                needed: HEADER_BYTES,
            });
        };
        let [_, _, version, _, size, available, used, in_flight] = words(header);
        let [a, b, c, d, ..] = *header;
        let wrong = |field, found: u64, expected| StateError::Field {
            field,
            found,
            expected,
        };
        if [a, b, c, d] != magic {
            let found = u64::from(u32::from_le_bytes([a, b, c, d]));
            return Err(wrong("magic", found, "the other side's, or no state"));
        }
        if version != STATE_VERSION {
            return Err(wrong("version", u64::from(version), "1"));
        }
        let format = match header[6] & !IN_ORDER {
            0 => RingFormat::Split,
            1 => RingFormat::Packed,
            2 => RingFormat::Tagged,
            found => {
                return Err(wrong(
                    "format",
                    u64::from(found),
                    "0 (split), 1 (packed) or 2 (tagged)",
                ));
            }
        };
        let reserved = header[7];
        if reserved != 0 {
            return Err(wrong("reserved", u64::from(reserved), "0"));
        }
        if size == 0 || size > 1 << 15 {
            return Err(wrong("size", u64::from(size), "1 to 32768"));
        }
        if in_flight > size {
            return Err(wrong(
                "in_flight",
                u64::from(in_flight),
                "no more than the queue's size",
            ));
        }
        Ok(Self {
            kind: RingKind {
                format,
                in_order: header[6] & IN_ORDER != 0,
            },
            size,
            available,
            used,
            in_flight,
        })
    }

    /// Refuses a state of another type of ring, or of another size.
    pub(super) fn check(&self, kind: RingKind, size: u16) -> Result<(), StateError> {
        let wrong = |field, found: u64, expected| {
            Err(StateError::Field {
                field,
                found,
                expected,
            })
        };
        if self.kind.format != kind.format {
            return wrong("format", self.kind.format as u64, "the ring's own");
        }
        if self.kind.in_order != kind.in_order {
            return wrong("in_order", u64::from(self.kind.in_order), "the ring's own");
        }
        if self.size != size {
            return wrong("size", u64::from(self.size), "the ring's own");
        }
        Ok(())
    }
}

/// A record's eight 16-bit numbers.
fn words(bytes: &[u8; HEADER_BYTES]) -> [u16; HEADER_BYTES / 2] {
    let (chunks, _) = bytes.as_chunks::<2>();
    core::array::from_fn(|index| u16::from_le_bytes(chunks[index]))
}

/// Memory for `needed` bytes, from the start of `to`.
pub(super) fn room(to: &mut [u8], needed: usize) -> Result<&mut [u8], StateError> {
    let found = to.len();
    to.get_mut(..needed)
        .ok_or(StateError::Length { found, needed })
}

/// A 16-bit number of a record; 0 behind its end.
pub(super) fn number(record: &[u8], index: usize) -> u16 {
    let (words, _) = record.as_chunks::<2>();
    words.get(index).copied().map_or(0, u16::from_le_bytes)
}
