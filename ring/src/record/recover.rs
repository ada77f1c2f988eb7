//! What a record says, and the state that it makes.

use shmbus_shm::Window;

use super::layout::Record;
use crate::state::{DeviceState, DeviceStateWriter, SavedDevice, StateError, copies_descriptors};

/// The publication that the device announced last: of the batch with this number, by which its used position goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Publication {
    pub(crate) from: u16,
    pub(crate) to: u16,
    pub(crate) batch: u16,
}

impl Publication {
    #[inline(always)]
    pub(super) fn to_word(self) -> u64 {
        u64::from(self.from) | u64::from(self.to) << 16 | u64::from(self.batch) << 32
    }

    fn from_word(word: u64) -> Self {
        Self {
            from: word as u16,
            to: (word >> 16) as u16,
            batch: (word >> 32) as u16,
        }
    }
}

/// What is known of a chain: its number, and whether it is completed and in which batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ChainWord(u64);

const TAKEN: u64 = 1 << 48;
const COMPLETED: u64 = 2 << 48;

impl ChainWord {
    #[inline(always)]
    pub(super) fn taken(number: u32) -> Self {
        Self(u64::from(number) | TAKEN)
    }

    #[inline(always)]
    pub(super) fn completed(number: u32, batch: u16) -> Self {
        Self(u64::from(number) | u64::from(batch) << 32 | COMPLETED)
    }

    #[inline(always)]
    pub(super) fn to_word(self) -> u64 {
        self.0
    }

    fn number(self) -> u32 {
        self.0 as u32
    }

    /// Whether the driver has not been shown this chain, after a publication that was shown or not.
    fn is_in_flight(self, publication: Publication, shown: bool) -> bool {
        let batch = (self.0 >> 32) as u16;
        match self.0 >> 48 << 48 {
            0 => false,
            COMPLETED => !(shown && batch == publication.batch),
            _ => true,
        }
    }
}

/// Where a chain was taken from, how many entries it takes up, and where its copies start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) position: u16,
    pub(super) first: u16,
    pub(super) entries: u16,
}

impl Place {
    #[inline(always)]
    pub(super) fn to_word(self) -> u64 {
        u64::from(self.position) | u64::from(self.first) << 16 | u64::from(self.entries) << 32
    }

    fn from_word(word: u64) -> Self {
        Self {
            position: word as u16,
            first: (word >> 16) as u16,
            entries: (word >> 32) as u16,
        }
    }
}

impl<W: Window> Record<W> {
    /// The last publication that was announced.
    pub(crate) fn publication(&self) -> Publication {
        Publication::from_word(self.load_publication())
    }
}

/// Writes down the chains in flight, the oldest first, after a publication that was `shown` or not. `available` works out
/// from `used` and what the chains take up where the next chain would have been taken.
pub(crate) fn recover_chains<'b, W: Window>(
    record: &Record<W>,
    shown: bool,
    used: u16,
    available: impl FnOnce(u16, u32) -> u16,
    to: &'b mut [u8],
) -> Result<DeviceState<'b>, StateError> {
    let (kind, size) = (record.kind(), record.size());
    let publication = record.publication();
    let mut state = DeviceStateWriter::new(to);
    let mut taken = 0;
    for id in 0..size {
        let word = ChainWord(record.load_chain(id));
        if word.is_in_flight(publication, shown) {
            let place = Place::from_word(record.load_place(id));
            state.push_chain(id, place.position, place.entries)?;
            taken += u32::from(place.entries);
        }
    }
    // Numbers wrap: the oldest is the furthest behind any later one, and no more chains are in flight than ids.
    let number = |id| ChainWord(record.load_chain(id)).number();
    let any = number(state.chain(0).id);
    state.sort_chains(|chain| {
        any.wrapping_sub(number(chain.id))
            .wrapping_add(u32::MAX / 2)
    });
    if copies_descriptors(kind) {
        for index in 0..state.in_flight() {
            let chain = state.chain(index);
            let mut at = Place::from_word(record.load_place(chain.id)).first;
            // An honest record's chain has no more entries than the ring; the state's check refuses others, but not before
            // they are written: as many as there is room for.
            for _ in 0..chain.entries {
                let (row, following) = record.load_copy(at);
                state.push_descriptor(row)?;
                at = following;
            }
        }
    }
    state.finish(SavedDevice {
        kind,
        size,
        available: available(used, taken),
        used,
    })
}
