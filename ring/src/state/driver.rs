//! The driver side's state.

use shmbus_shm::RingFormat;

use super::StateError;
use super::layout::{CHAIN_BYTES, HEADER_BYTES, Header, IdSet, Parts, number, room};
use crate::kind::RingKind;
use crate::positions::Positions;

const MAGIC: [u8; 4] = *b"SHDR";
/// The header, then where the next chain's first descriptor is.
const START_BYTES: usize = HEADER_BYTES + 8;
const INDEX_BYTES: usize = 2;

/// The state of a queue's driver side: how far it had come, and what it had lent.
///
/// [`DriverQueue::save`](crate::DriverQueue::save) makes one; [`DriverQueue::restore`](crate::DriverQueue::restore) goes on
/// from it, with the cookies that the caller kept.
#[derive(Clone, Copy, Debug)]
pub struct DriverState<'b> {
    bytes: &'b [u8],
    header: Header,
    head: u16,
    chains: &'b [u8],
    indices: &'b [u8],
}

impl<'b> DriverState<'b> {
    /// How long the state of a queue of `size` entries is at most, in bytes.
    pub const fn max_bytes(size: u16) -> usize {
        START_BYTES + (CHAIN_BYTES + INDEX_BYTES) * size as usize
    }

    /// The state that `bytes`, which may come from anybody, hold.
    ///
    /// # Errors
    ///
    /// [`StateError`], naming the first field that is wrong.
    pub fn parse(bytes: &'b [u8]) -> Result<Self, StateError> {
        let parts = Parts::of(MAGIC, bytes, START_BYTES - HEADER_BYTES)?;
        let header = parts.header;
        let [head, reserved @ ..] = [0, 1, 2, 3].map(|at| number(parts.start, at));
        let wrong = |field, found: u16, expected| StateError::Field {
            field,
            found: u64::from(found),
            expected,
        };
        if head >= header.size {
            return Err(wrong("head", head, "less than the queue's size"));
        }
        if let Some(found) = reserved.into_iter().find(|word| *word != 0) {
            return Err(wrong("reserved", found, "0"));
        }
        let descriptors = parts.check_chains("descriptors", 1)?;
        let listed = lists_descriptors(header.kind);
        parts.check_rest(if listed { INDEX_BYTES * descriptors } else { 0 })?;
        let state = Self {
            bytes,
            header,
            head,
            chains: parts.chains,
            indices: parts.rest,
        };
        state.check_indices()?;
        Ok(state)
    }

    /// The bytes.
    pub fn as_bytes(&self) -> &'b [u8] {
        self.bytes
    }

    /// Which type of ring it belongs to.
    pub fn kind(&self) -> RingKind {
        self.header.kind
    }

    /// The queue's size, in entries.
    pub fn size(&self) -> u16 {
        self.header.size
    }

    /// How far the driver had come.
    pub fn positions(&self) -> Positions {
        Positions {
            available: self.header.available,
            used: self.header.used,
            in_flight: self.header.in_flight,
        }
    }

    /// The chains that were lent, the oldest first.
    pub fn chains(&self) -> LentChains<'b> {
        LentChains {
            records: self.chains,
            indices: self.indices,
            listed: lists_descriptors(self.header.kind),
        }
    }

    /// The first descriptor of the next chain, where chains lie in the table's order.
    pub(crate) fn head(&self) -> u16 {
        self.head
    }

    /// Refuses a state that is not that of such a ring.
    pub(crate) fn check(&self, kind: RingKind, size: u16) -> Result<(), StateError> {
        self.header.check(kind, size)
    }

    /// Each descriptor belongs to one chain, whose first one names it.
    fn check_indices(&self) -> Result<(), StateError> {
        let mut seen = IdSet::new();
        for (chain, lent) in (0..).zip(self.chains()) {
            for (place, index) in lent.indices().enumerate() {
                let fits = index < self.header.size && (place > 0 || index == lent.id);
                if !fits || !seen.insert(index) {
                    return Err(StateError::Chain {
                        chain,
                        field: "index",
                        found: u64::from(index),
                        expected: "a descriptor of no other chain; the id first",
                    });
                }
            }
        }
        Ok(())
    }
}

/// Whether a chain's descriptors may lie anywhere in the table.
fn lists_descriptors(kind: RingKind) -> bool {
    kind.format == RingFormat::Split && !kind.in_order
}

/// A chain that was lent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LentChain<'b> {
    /// By what the device knows it.
    pub id: u16,
    /// How many descriptors it takes up.
    pub descriptors: u16,
    /// How many of its bytes the device may write.
    pub writable: u32,
    indices: &'b [u8],
}

impl<'b> LentChain<'b> {
    /// Its descriptors, where they may lie anywhere in the table.
    pub(crate) fn indices(&self) -> impl Iterator<Item = u16> + 'b {
        let (indices, _) = self.indices.as_chunks::<INDEX_BYTES>();
        indices.iter().map(|bytes| u16::from_le_bytes(*bytes))
    }
}

/// The chains of a state: an iterator.
#[derive(Clone, Debug)]
pub struct LentChains<'b> {
    records: &'b [u8],
    indices: &'b [u8],
    listed: bool,
}

impl<'b> Iterator for LentChains<'b> {
    type Item = LentChain<'b>;

    fn next(&mut self) -> Option<LentChain<'b>> {
        let (record, rest) = self.records.split_first_chunk::<CHAIN_BYTES>()?;
        self.records = rest;
        let [id, descriptors, low, high] = [0, 1, 2, 3].map(|at| number(record, at));
        let bytes = if self.listed {
            INDEX_BYTES * usize::from(descriptors)
        } else {
            0
        };
        let (indices, rest) = self.indices.split_at_checked(bytes)?;
        self.indices = rest;
        Some(LentChain {
            id,
            descriptors,
            writable: u32::from(low) | u32::from(high) << 16,
            indices,
        })
    }
}

/// What a state says but for its chains.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SavedDriver {
    pub(crate) kind: RingKind,
    pub(crate) size: u16,
    pub(crate) available: u16,
    pub(crate) used: u16,
    pub(crate) head: u16,
}

/// Writes a state: all chains first, then their descriptors in the chains' order.
pub struct DriverStateWriter<'b> {
    to: &'b mut [u8],
    used: usize,
    in_flight: u16,
}

impl<'b> DriverStateWriter<'b> {
    pub(crate) fn new(to: &'b mut [u8]) -> Self {
        Self {
            to,
            used: START_BYTES,
            in_flight: 0,
        }
    }

    pub(crate) fn push_chain(
        &mut self,
        id: u16,
        descriptors: u16,
        writable: u32,
    ) -> Result<(), StateError> {
        let record = [id, descriptors, writable as u16, (writable >> 16) as u16];
        for value in record {
            self.append(value)?;
        }
        self.in_flight += 1;
        Ok(())
    }

    pub(crate) fn push_index(&mut self, index: u16) -> Result<(), StateError> {
        self.append(index)
    }

    /// Orders the chains: the one with the lowest number first.
    pub(crate) fn sort_chains(&mut self, number_of: impl Fn(u16) -> u64) {
        let written = self.to.get_mut(START_BYTES..self.used);
        let (records, _) = written.unwrap_or_default().as_chunks_mut::<CHAIN_BYTES>();
        records.sort_unstable_by_key(|record| number_of(number(record, 0)));
    }

    /// The id of the chain at `index`, once all were pushed.
    pub(crate) fn id(&self, index: u16) -> u16 {
        let at = START_BYTES + CHAIN_BYTES * usize::from(index);
        number(self.to.get(at..at + CHAIN_BYTES).unwrap_or_default(), 0)
    }

    /// How many chains were pushed.
    pub(crate) fn in_flight(&self) -> u16 {
        self.in_flight
    }

    /// The state, checked as if it came from anybody.
    pub(crate) fn finish(self, saved: SavedDriver) -> Result<DriverState<'b>, StateError> {
        let header = Header {
            kind: saved.kind,
            size: saved.size,
            available: saved.available,
            used: saved.used,
            in_flight: self.in_flight,
        };
        let bytes = room(self.to, self.used)?;
        if let Some(first) = bytes.first_chunk_mut::<HEADER_BYTES>() {
            header.write(MAGIC, first);
        }
        let start = [saved.head.to_le_bytes(), [0; 2], [0; 2], [0; 2]];
        bytes[HEADER_BYTES..START_BYTES].copy_from_slice(start.as_flattened());
        DriverState::parse(bytes)
    }

    fn append(&mut self, value: u16) -> Result<(), StateError> {
        let found = self.to.len();
        let needed = self.used + 2;
        let to = self
            .to
            .get_mut(self.used..needed)
            .ok_or(StateError::Length { found, needed })?;
        to.copy_from_slice(&value.to_le_bytes());
        self.used = needed;
        Ok(())
    }
}
