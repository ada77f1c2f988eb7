//! The bytes of a state: a header of 16 bytes, then what is in flight. All numbers are little-endian.

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

impl Header {
    pub(super) fn write(self, magic: [u8; 4], to: &mut [u8; HEADER_BYTES]) {
        to[..4].copy_from_slice(&magic);
        to[4..6].copy_from_slice(&STATE_VERSION.to_le_bytes());
        to[6] = self.kind.number();
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
        let Some(kind) = RingKind::from_number(header[6]) else {
            return Err(wrong(
                "format",
                u64::from(header[6]),
                "0 (split), 1 (packed) or 2 (tagged); plus 128 for the first two in order",
            ));
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
            kind,
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

/// A record of a chain in flight, in either side's state: its id first.
pub(super) const CHAIN_BYTES: usize = 8;

/// The parts of a state: what is in front of the chains' records, these, and what follows.
pub(super) struct Parts<'b> {
    pub(super) header: Header,
    /// What a side has between the header and the records.
    pub(super) start: &'b [u8],
    pub(super) chains: &'b [u8],
    pub(super) rest: &'b [u8],
}

impl<'b> Parts<'b> {
    /// Takes `bytes` apart; `start` is how many bytes lie between header and records.
    pub(super) fn of(magic: [u8; 4], bytes: &'b [u8], start: usize) -> Result<Self, StateError> {
        let header = Header::read(magic, bytes)?;
        let records = CHAIN_BYTES * usize::from(header.in_flight);
        let needed = HEADER_BYTES + start + records;
        let found = bytes.len();
        if found < needed {
            return Err(StateError::Length { found, needed });
        }
        let (start, rest) = bytes[HEADER_BYTES..].split_at(start);
        let (chains, rest) = rest.split_at(records);
        Ok(Self {
            header,
            start,
            chains,
            rest,
        })
    }

    /// Refuses a state in which not `needed` bytes follow the records.
    pub(super) fn check_rest(&self, needed: usize) -> Result<(), StateError> {
        let found = self.rest.len();
        if found != needed {
            let before = HEADER_BYTES + self.start.len() + self.chains.len();
            return Err(StateError::Length {
                found: before + found,
                needed: before + needed,
            });
        }
        Ok(())
    }

    /// Checks the chains' ids, and how many entries each takes up, which is the number at `column` of its record; returns
    /// how many all take up.
    pub(super) fn check_chains(
        &self,
        field: &'static str,
        column: usize,
    ) -> Result<usize, StateError> {
        let size = self.header.size;
        let mut seen = IdSet::new();
        let mut total = 0;
        for (chain, record) in (0..).zip(self.chains.as_chunks::<CHAIN_BYTES>().0) {
            let wrong = |field, found: u16, expected| StateError::Chain {
                chain,
                field,
                found: u64::from(found),
                expected,
            };
            let [id, entries] = [0, column].map(|at| number(record, at));
            if id >= size {
                return Err(wrong("id", id, "less than the queue's size"));
            }
            if !seen.insert(id) {
                return Err(wrong("id", id, "another than those before it"));
            }
            total += usize::from(entries);
            if entries == 0 || total > usize::from(size) {
                return Err(wrong(field, entries, "1, or up to what the ring has left"));
            }
        }
        Ok(total)
    }
}

/// Which ids came up: a bit each, on the stack.
pub(super) struct IdSet([u64; (1 << 15) / 64]);

impl IdSet {
    pub(super) fn new() -> Self {
        Self([0; (1 << 15) / 64])
    }

    /// Whether `id`, below 32768, is new.
    pub(super) fn insert(&mut self, id: u16) -> bool {
        let (word, bit) = (usize::from(id >> 6), 1 << (id & 63));
        match self.0.get_mut(word) {
            Some(word) if *word & bit == 0 => {
                *word |= bit;
                true
            }
            _ => false,
        }
    }
}
