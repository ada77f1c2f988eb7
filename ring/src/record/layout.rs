//! Where a record's words lie.

use core::num::NonZeroUsize;
use core::sync::atomic::Ordering::{Acquire, Relaxed, Release};

use shmbus_shm::{Array, Field, Window, WindowError};

use crate::descriptor::DESCRIPTOR_BYTES;
use crate::device::DeviceFormat;
use crate::fault::SetupError;
use crate::kind::RingKind;
use crate::state::{StateError, copies_descriptors};

/// The version of the layout; others are refused.
pub const RECORD_VERSION: u16 = 1;

const MAGIC: u32 = u32::from_le_bytes(*b"SHIF");
const LINE: usize = 64;
const KIND_OFFSET: usize = 8;
const PUBLICATION_OFFSET: usize = LINE;
const CHAINS_OFFSET: usize = 2 * LINE;
const CHAIN_WORDS: usize = 2;

/// A record's size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecordLayout {
    kind: RingKind,
    size: u16,
}

impl RecordLayout {
    /// The record of a ring like `ring`.
    pub fn of<F: DeviceFormat>(ring: &F) -> Self {
        Self {
            kind: ring.kind(),
            size: ring.size(),
        }
    }

    /// How much memory it needs, in bytes: whole lines.
    pub const fn bytes(self) -> usize {
        (self.links_offset() + self.links() * 2).next_multiple_of(LINE)
    }

    /// Nothing is written down of the chains of a ring in order.
    const fn chains(self) -> usize {
        if self.kind.in_order {
            0
        } else {
            self.size as usize
        }
    }

    const fn links(self) -> usize {
        if copies_descriptors(self.kind) {
            self.size as usize
        } else {
            0
        }
    }

    const fn descriptors_offset(self) -> usize {
        (CHAINS_OFFSET + self.chains() * CHAIN_WORDS * 8).next_multiple_of(LINE)
    }

    const fn links_offset(self) -> usize {
        self.descriptors_offset() + self.links() * DESCRIPTOR_BYTES
    }
}

/// A record, carved out of its memory.
#[derive(Clone, Debug)]
pub struct Record<W> {
    layout: RecordLayout,
    geometry: Field<u64, W>,
    kind: Field<u64, W>,
    publication: Field<u64, W>,
    /// Two words a chain, by its id.
    chains: Option<Array<u64, W>>,
    /// Copies of descriptors, two words each.
    descriptors: Option<Array<u64, W>>,
    /// Which copy follows each of them in its chain.
    links: Option<Array<u16, W>>,
}

impl<W: Window> Record<W> {
    /// The record that a device left in `window`, for whoever recovers it.
    ///
    /// # Errors
    ///
    /// [`StateError`], naming what is no record; [`SetupError::Area`] if it is longer than the window.
    pub fn open(window: &W) -> Result<Self, StateError> {
        let area = |source| SetupError::Area {
            area: "in-flight record",
            source,
        };
        let word = |offset| {
            Ok::<_, StateError>(
                Field::<u64, _>::new(window, offset)
                    .map_err(area)?
                    .load(Acquire),
            )
        };
        let (geometry, kind) = (word(0)?, word(KIND_OFFSET)?);
        let wrong = |field, found, expected| {
            Err(StateError::Field {
                field,
                found,
                expected,
            })
        };
        if geometry as u32 != MAGIC {
            return wrong("magic", u64::from(geometry as u32), "a record's");
        }
        let version = (geometry >> 32) as u16;
        if version != RECORD_VERSION {
            return wrong("version", u64::from(version), "1");
        }
        let size = (geometry >> 48) as u16;
        if size == 0 || size > 1 << 15 {
            return wrong("size", u64::from(size), "1 to 32768");
        }
        let known = u8::try_from(kind).ok().and_then(RingKind::from_number);
        let Some(kind) = known else {
            return wrong("kind", kind, "0 to 2; plus 128 for the first two in order");
        };
        let layout = RecordLayout { kind, size };
        Ok(Self::carve(layout, window).map_err(area)?)
    }

    /// Refuses the record of another ring.
    pub(crate) fn check(&self, kind: RingKind, size: u16) -> Result<(), StateError> {
        let wrong = |field, found: u64, expected| {
            Err(StateError::Field {
                field,
                found,
                expected,
            })
        };
        if self.layout.kind != kind {
            let found = self.kind.load(Relaxed);
            return wrong("kind", found, "the ring's own");
        }
        if self.layout.size != size {
            return wrong("size", u64::from(self.layout.size), "the ring's own");
        }
        Ok(())
    }

    /// A record's memory, whatever is in it.
    pub(super) fn new(layout: RecordLayout, window: &W) -> Result<Self, SetupError> {
        Self::carve(layout, window).map_err(|source| SetupError::Area {
            area: "in-flight record",
            source,
        })
    }

    fn carve(layout: RecordLayout, window: &W) -> Result<Self, WindowError> {
        let words = |offset, count| {
            NonZeroUsize::new(count)
                .map(|count| Array::new(window, offset, count))
                .transpose()
        };
        Ok(Self {
            layout,
            geometry: Field::new(window, 0)?,
            kind: Field::new(window, KIND_OFFSET)?,
            publication: Field::new(window, PUBLICATION_OFFSET)?,
            chains: words(CHAINS_OFFSET, CHAIN_WORDS * layout.chains())?,
            descriptors: words(layout.descriptors_offset(), 2 * layout.links())?,
            links: NonZeroUsize::new(layout.links())
                .map(|count| Array::new(window, layout.links_offset(), count))
                .transpose()?,
        })
    }

    /// Which type of ring it is kept for.
    pub fn kind(&self) -> RingKind {
        self.layout.kind
    }

    /// The queue's size, in entries.
    pub fn size(&self) -> u16 {
        self.layout.size
    }

    /// Empties it. The first two words are stored last: a record that is half made is none.
    pub(super) fn format(&self, publication: u64) {
        self.geometry.store(0, Relaxed);
        self.geometry.fence(Release);
        for id in 0..self.layout.chains() as u16 {
            self.store_chain(id, 0, Relaxed);
        }
        self.publication.store(publication, Relaxed);
        let RecordLayout { kind, size } = self.layout;
        self.kind.store(u64::from(kind.number()), Relaxed);
        let geometry = u64::from(MAGIC) | u64::from(RECORD_VERSION) << 32 | u64::from(size) << 48;
        self.geometry.store(geometry, Release);
    }

    pub(super) fn load_publication(&self) -> u64 {
        self.publication.load(Acquire)
    }

    /// Release: what is known of the chains comes before.
    #[inline(always)]
    pub(super) fn store_publication(&self, publication: u64) {
        self.publication.store(publication, Release);
    }

    /// What is known of chain `id`, if anything can be.
    pub(super) fn load_chain(&self, id: u16) -> u64 {
        let chains = self.chains.as_ref();
        chains.map_or(0, |words| words.load(2 * usize::from(id) + 1, Acquire))
    }

    #[inline(always)]
    pub(super) fn store_chain(&self, id: u16, word: u64, order: core::sync::atomic::Ordering) {
        if let Some(words) = &self.chains {
            words.store(2 * usize::from(id) + 1, word, order);
        }
    }

    /// Where a chain was taken from and what it takes up; comes with [`Record::load_chain`].
    pub(super) fn load_place(&self, id: u16) -> u64 {
        let chains = self.chains.as_ref();
        chains.map_or(0, |words| words.load(2 * usize::from(id), Relaxed))
    }

    #[inline(always)]
    pub(super) fn store_place(&self, id: u16, word: u64) {
        if let Some(words) = &self.chains {
            words.store(2 * usize::from(id), word, Relaxed);
        }
    }

    /// A copied descriptor, and which one follows it.
    pub(super) fn load_copy(&self, index: u16) -> ([u8; DESCRIPTOR_BYTES], u16) {
        let (Some(words), Some(links)) = (&self.descriptors, &self.links) else {
            return ([0; DESCRIPTOR_BYTES], 0);
        };
        let at = 2 * usize::from(index);
        let [low, high] = [words.load(at, Relaxed), words.load(at + 1, Relaxed)];
        let row = (u128::from(low) | u128::from(high) << 64).to_le_bytes();
        (row, links.load(usize::from(index), Relaxed))
    }

    #[inline(always)]
    pub(super) fn store_copy(&self, index: u16, row: [u8; DESCRIPTOR_BYTES], following: u16) {
        if let (Some(words), Some(links)) = (&self.descriptors, &self.links) {
            let row = u128::from_le_bytes(row);
            let at = 2 * usize::from(index);
            words.store(at, row as u64, Relaxed);
            words.store(at + 1, (row >> 64) as u64, Relaxed);
            links.store(usize::from(index), following, Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use shmbus_shm::{RingFormat, heap};

    #[test]
    fn a_record_is_found_again_and_anything_else_is_refused() {
        let layout = RecordLayout {
            kind: RingKind::plain(RingFormat::Packed),
            size: 3,
        };
        let memory = heap(layout.bytes());
        let record = Record::new(layout, &memory).unwrap();
        assert!(Record::open(&memory).is_err());
        record.format(7);
        record.store_place(2, 5);
        record.store_chain(2, 6, Relaxed);
        record.store_copy(2, [9; 16], 1);
        let found = Record::open(&memory).unwrap();
        assert_eq!((found.size(), found.kind()), (3, layout.kind));
        assert_eq!(found.load_publication(), 7);
        assert_eq!((found.load_place(2), found.load_chain(2)), (5, 6));
        assert_eq!(found.load_copy(2), ([9; 16], 1));

        let short = memory.narrow(0, layout.bytes() - 64).unwrap();
        assert!(matches!(
            Record::open(&short),
            Err(StateError::Setup(SetupError::Area { .. }))
        ));
        let field = |offset, value, name| {
            let word = Field::<u64, _>::new(&memory, offset).unwrap();
            let before = word.load(Relaxed);
            word.store(value, Relaxed);
            match Record::open(&memory) {
                Err(StateError::Field { field, .. }) => assert_eq!(field, name),
                other => panic!("{other:?}"),
            }
            word.store(before, Relaxed);
        };
        let geometry = record.geometry.load(Relaxed);
        field(0, geometry ^ 1, "magic");
        field(0, geometry ^ 3 << 32, "version");
        field(0, geometry & !(0xffff << 48), "size");
        field(0, geometry | 0xffff << 48, "size");
        field(8, 3, "kind");
        field(8, 0x101, "kind");
    }
}
