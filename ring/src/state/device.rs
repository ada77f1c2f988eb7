//! The device side's state.

use shmbus_shm::RingFormat;

use super::StateError;
use super::layout::{CHAIN_BYTES, HEADER_BYTES, Header, Parts, number, room};
use crate::descriptor::DESCRIPTOR_BYTES;
use crate::kind::RingKind;
use crate::positions::Positions;

const MAGIC: [u8; 4] = *b"SHDV";

/// The state of a queue's device side: how far it had come, and which chains it had taken and not returned.
///
/// [`DeviceQueue::save`](crate::DeviceQueue::save) makes one, and so does a third party from the memory of a queue whose
/// device died ([`split::recover`](crate::split::recover), [`packed::recover`](crate::packed::recover),
/// [`tagged::recover`](crate::tagged::recover)).
/// [`DeviceQueue::restore`](crate::DeviceQueue::restore) goes on from it.
#[derive(Clone, Copy, Debug)]
pub struct DeviceState<'b> {
    bytes: &'b [u8],
    header: Header,
    chains: &'b [u8],
    descriptors: &'b [u8],
}

impl<'b> DeviceState<'b> {
    /// How long the state of a queue of `size` entries is at most, in bytes.
    pub const fn max_bytes(size: u16) -> usize {
        HEADER_BYTES + (CHAIN_BYTES + DESCRIPTOR_BYTES) * size as usize
    }

    /// The state that `bytes`, which may come from anybody, hold.
    ///
    /// # Errors
    ///
    /// [`StateError`], naming the first field that is wrong.
    pub fn parse(bytes: &'b [u8]) -> Result<Self, StateError> {
        let parts = Parts::of(MAGIC, bytes, 0)?;
        let entries = check_chains(&parts)?;
        let copied = if copies_descriptors(parts.header.kind) {
            DESCRIPTOR_BYTES * entries
        } else {
            0
        };
        parts.check_rest(copied)?;
        Ok(Self {
            bytes,
            header: parts.header,
            chains: parts.chains,
            descriptors: parts.rest,
        })
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

    /// How far the device had come.
    pub fn positions(&self) -> Positions {
        Positions {
            available: self.header.available,
            used: self.header.used,
            in_flight: self.header.in_flight,
        }
    }

    /// The chains that were in flight, the oldest first as far as positions tell. With `VIRTIO_F_IN_ORDER` there are none:
    /// the queue goes on at the first chain that was not returned, and all that follow are taken as if for the first time.
    pub fn chains(&self) -> ChainsInFlight<'b> {
        ChainsInFlight {
            records: self.chains,
            descriptors: self.descriptors,
            copied: copies_descriptors(self.header.kind),
        }
    }

    /// Refuses a state that is not that of such a ring.
    pub(crate) fn check(&self, kind: RingKind, size: u16) -> Result<(), StateError> {
        self.header.check(kind, size)
    }
}

/// How many entries of the ring the chains take up.
fn check_chains(parts: &Parts<'_>) -> Result<usize, StateError> {
    let Header {
        kind, in_flight, ..
    } = parts.header;
    if kind.in_order && in_flight > 0 {
        return Err(StateError::Field {
            field: "in_flight",
            found: u64::from(in_flight),
            expected: "0 for a ring in order",
        });
    }
    let total = parts.check_chains("entries", 2)?;
    for (chain, record) in (0..).zip(parts.chains.as_chunks::<CHAIN_BYTES>().0) {
        let wrong = |field, found: u16, expected| StateError::Chain {
            chain,
            field,
            found: u64::from(found),
            expected,
        };
        let [entries, reserved] = [2, 3].map(|at| number(record, at));
        if kind.format == RingFormat::Split && entries != 1 {
            return Err(wrong("entries", entries, "1 on a split ring"));
        }
        if reserved != 0 {
            return Err(wrong("reserved", reserved, "0"));
        }
    }
    Ok(total)
}

/// Whether the state of a ring of this kind has copies of its chains' descriptors: a split ring's table is the driver's
/// alone, and what is returned in order overwrites nothing that is still needed.
pub(crate) const fn copies_descriptors(kind: RingKind) -> bool {
    !matches!(kind.format, RingFormat::Split) && !kind.in_order
}

/// A chain that was in flight.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SavedChain<'b> {
    /// By what the driver knows it.
    pub id: u16,
    /// Where it was taken from, as [`Positions`] counts.
    pub position: u16,
    /// How many entries of the ring it takes up.
    pub entries: u16,
    /// Its descriptors, 16 bytes each, where the ring may not have them any more.
    pub(crate) descriptors: &'b [u8],
}

impl SavedChain<'_> {
    /// Its descriptor at `index`; zeros behind its end.
    pub(crate) fn descriptor(&self, index: u16) -> [u8; DESCRIPTOR_BYTES] {
        let (rows, _) = self.descriptors.as_chunks();
        rows.get(usize::from(index)).copied().unwrap_or_default()
    }
}

/// The chains of a state: an iterator.
#[derive(Clone, Debug)]
pub struct ChainsInFlight<'b> {
    records: &'b [u8],
    descriptors: &'b [u8],
    copied: bool,
}

impl<'b> Iterator for ChainsInFlight<'b> {
    type Item = SavedChain<'b>;

    fn next(&mut self) -> Option<SavedChain<'b>> {
        let (record, rest) = self.records.split_first_chunk::<CHAIN_BYTES>()?;
        self.records = rest;
        let [id, position, entries] = [0, 1, 2].map(|at| number(record, at));
        let bytes = if self.copied {
            DESCRIPTOR_BYTES * usize::from(entries)
        } else {
            0
        };
        let (descriptors, rest) = self.descriptors.split_at_checked(bytes)?;
        self.descriptors = rest;
        Some(SavedChain {
            id,
            position,
            entries,
            descriptors,
        })
    }
}

/// What a state says but for its chains.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SavedDevice {
    pub(crate) kind: RingKind,
    pub(crate) size: u16,
    pub(crate) available: u16,
    pub(crate) used: u16,
}

/// Writes a state: all chains first, then their descriptors in the chains' order.
pub struct DeviceStateWriter<'b> {
    to: &'b mut [u8],
    used: usize,
    in_flight: u16,
}

impl<'b> DeviceStateWriter<'b> {
    pub(crate) fn new(to: &'b mut [u8]) -> Self {
        Self {
            to,
            used: HEADER_BYTES,
            in_flight: 0,
        }
    }

    pub(crate) fn push_chain(
        &mut self,
        id: u16,
        position: u16,
        entries: u16,
    ) -> Result<(), StateError> {
        let record = self.append::<CHAIN_BYTES>()?;
        for (field, value) in record
            .as_chunks_mut::<2>()
            .0
            .iter_mut()
            .zip([id, position, entries, 0])
        {
            *field = value.to_le_bytes();
        }
        self.in_flight += 1;
        Ok(())
    }

    /// Orders the chains: the one with the highest age first.
    pub(crate) fn sort_chains(&mut self, age: impl Fn(SavedChain<'static>) -> u32) {
        let written = self.to.get_mut(HEADER_BYTES..self.used);
        let (records, _) = written.unwrap_or_default().as_chunks_mut::<CHAIN_BYTES>();
        records.sort_unstable_by_key(|record| {
            let [id, position, entries] = [0, 1, 2].map(|at| number(record, at));
            core::cmp::Reverse(age(SavedChain {
                id,
                position,
                entries,
                descriptors: &[],
            }))
        });
    }

    /// The chain at `index`, once all were pushed.
    pub(crate) fn chain(&self, index: u16) -> SavedChain<'static> {
        let at = HEADER_BYTES + CHAIN_BYTES * usize::from(index);
        let record = self.to.get(at..at + CHAIN_BYTES).unwrap_or_default();
        let [id, position, entries] = [0, 1, 2].map(|at| number(record, at));
        SavedChain {
            id,
            position,
            entries,
            descriptors: &[],
        }
    }

    /// How many chains were pushed.
    pub(crate) fn in_flight(&self) -> u16 {
        self.in_flight
    }

    pub(crate) fn push_descriptor(
        &mut self,
        descriptor: [u8; DESCRIPTOR_BYTES],
    ) -> Result<(), StateError> {
        *self.append()? = descriptor;
        Ok(())
    }

    /// The state, checked as if it came from anybody.
    pub(crate) fn finish(self, saved: SavedDevice) -> Result<DeviceState<'b>, StateError> {
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
        DeviceState::parse(bytes)
    }

    fn append<const N: usize>(&mut self) -> Result<&mut [u8; N], StateError> {
        let found = self.to.len();
        let needed = self.used + N;
        let at = core::mem::replace(&mut self.used, needed);
        self.to
            .get_mut(at..)
            .and_then(|rest| rest.first_chunk_mut())
            .ok_or(StateError::Length { found, needed })
    }
}
