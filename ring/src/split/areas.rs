//! The three areas, carved out of their windows once: sizes and bounds are frozen here.

use core::sync::atomic::Ordering::{Acquire, Relaxed};

use shmbus_shm::{Entries, FenceScope, Field, Window, WindowError};

use super::layout::{Layout, LegacyLayout, RING_HEADER_BYTES};
use super::suppression::Suppression;
use crate::descriptor::{Descriptor, UsedElement};
use crate::fault::SetupError;
use crate::positions::Positions;

/// A split ring's three areas. They may lie in different memories.
#[derive(Clone, Debug)]
pub struct Areas<W> {
    pub(super) size: u16,
    pub(super) descriptors: Descriptors<W>,
    pub(super) available: Available<W>,
    pub(super) used: Used<W>,
}

impl<W: Window> Areas<W> {
    /// The areas of a ring of `layout`'s size: the descriptor area at the start of `descriptors`, the driver area at
    /// the start of `available`, the device area at the start of `used`. Longer windows are cut.
    ///
    /// # Errors
    ///
    /// [`SetupError::Area`] if an area is longer than its window, or is not aligned for its accesses: 8 bytes for the
    /// descriptor area, 2 for the driver area, 4 for the device area.
    pub fn new(
        layout: Layout,
        descriptors: &W,
        available: &W,
        used: &W,
    ) -> Result<Self, SetupError> {
        let area = |area| move |source| SetupError::Area { area, source };
        Ok(Self {
            size: layout.size(),
            descriptors: Descriptors::new(layout, descriptors).map_err(area("descriptor area"))?,
            available: Available::new(layout, available).map_err(area("driver area"))?,
            used: Used::new(layout, used).map_err(area("device area"))?,
        })
    }

    /// The areas in shmbus's own placement: `driver` is memory that the driver writes, `device` memory that the
    /// device writes.
    ///
    /// # Errors
    ///
    /// [`SetupError::Area`], as for [`Areas::new`].
    pub fn in_memories(layout: Layout, driver: &W, device: &W) -> Result<Self, SetupError> {
        let area = |area| move |source| SetupError::Area { area, source };
        let available = driver
            .narrow(layout.available_offset(), layout.available_bytes())
            .map_err(area("driver area"))?;
        let used = device
            .narrow(layout.used_offset(), layout.used_bytes())
            .map_err(area("device area"))?;
        Self::new(layout, driver, &available, &used)
    }

    /// The areas of a legacy ring in one piece of memory.
    ///
    /// # Errors
    ///
    /// [`SetupError::Area`], as for [`Areas::new`].
    pub fn legacy(layout: LegacyLayout, memory: &W) -> Result<Self, SetupError> {
        let area = |area| move |source| SetupError::Area { area, source };
        let lengths = layout.layout();
        let available = memory
            .narrow(layout.available_offset(), lengths.available_bytes())
            .map_err(area("driver area"))?;
        let used = memory
            .narrow(layout.used_offset(), lengths.used_bytes())
            .map_err(area("device area"))?;
        Self::new(lengths, memory, &available, &used)
    }

    /// The queue's size, in entries.
    pub fn size(&self) -> u16 {
        self.size
    }

    /// Among whom the areas' fences order: the weakest of their windows.
    pub(super) fn fence_scope(&self) -> FenceScope {
        let all = [
            self.available.idx.fence_scope(),
            self.used.idx.fence_scope(),
        ];
        if all == [FenceScope::Dma; 2] {
            FenceScope::Dma
        } else {
            FenceScope::Smp
        }
    }

    /// Where each side has come to in the other's ring, as the proposal of 2008 has it: the driver's position in the
    /// used ring, then the device's in the available ring. Each is only there where
    /// [`PrivateFeatures::PUBLISH_INDICES`](shmbus_virtio::PrivateFeatures) was negotiated, and not that side's event
    /// index; it is what that side said last at a batch's end.
    pub fn published_positions(&self) -> [u16; 2] {
        [&self.available.suppression, &self.used.suppression].map(Suppression::event)
    }

    /// What the two sides have published, for an observer who needs no more than to read the areas. Nobody is
    /// stopped, so this is a glance: either side may have gone on, and a hostile one may say anything.
    pub fn published(&self) -> Positions {
        // The used index first: an honest device never overtakes the driver, so the difference is not negative.
        let used = self.used.idx.load(Acquire);
        let available = self.available.idx.load(Relaxed);
        Positions {
            available,
            used,
            in_flight: available.wrapping_sub(used),
        }
    }
}

/// The descriptor area.
#[derive(Clone, Debug)]
pub(super) struct Descriptors<W> {
    words: Entries<u64, W>,
}

impl<W: Window> Descriptors<W> {
    fn new(layout: Layout, window: &W) -> Result<Self, WindowError> {
        Ok(Self {
            words: Entries::new(window, 0, 2 * usize::from(layout.size()))?,
        })
    }

    /// Reads each of the descriptor's words once.
    #[inline(always)]
    pub(super) fn load(&self, index: u16) -> Descriptor {
        let at = 2 * usize::from(index);
        Descriptor::from_words([
            self.words.load(at, Relaxed),
            self.words.load(at + 1, Relaxed),
        ])
    }

    #[inline(always)]
    pub(super) fn store(&self, index: u16, descriptor: Descriptor) {
        let at = 2 * usize::from(index);
        let [low, high] = descriptor.to_words();
        self.words.store(at, low, Relaxed);
        self.words.store(at + 1, high, Relaxed);
    }
}

/// The driver area.
#[derive(Clone, Debug)]
pub(super) struct Available<W> {
    pub(super) idx: Field<u16, W>,
    pub(super) ring: Entries<u16, W>,
    /// `flags` and `used_event`.
    pub(super) suppression: Suppression<W>,
}

impl<W: Window> Available<W> {
    fn new(layout: Layout, window: &W) -> Result<Self, WindowError> {
        Ok(Self {
            idx: Field::new(window, 2)?,
            ring: Entries::new(window, RING_HEADER_BYTES, usize::from(layout.size()))?,
            suppression: Suppression::new(window, layout.used_event_offset())?,
        })
    }
}

/// The device area.
#[derive(Clone, Debug)]
pub(super) struct Used<W> {
    pub(super) idx: Field<u16, W>,
    pub(super) ring: UsedElements<W>,
    /// `flags` and `avail_event`.
    pub(super) suppression: Suppression<W>,
}

impl<W: Window> Used<W> {
    fn new(layout: Layout, window: &W) -> Result<Self, WindowError> {
        Ok(Self {
            idx: Field::new(window, 2)?,
            ring: UsedElements::new(layout, window)?,
            suppression: Suppression::new(window, layout.avail_event_offset())?,
        })
    }
}

/// The used elements, `id | len << 32` each.
///
/// The specification aligns the device area to 4 bytes only. Where its address is 4 modulo 8 the elements are aligned
/// words; elsewhere they are accessed as two halves. The address decides, so both sides come to the same width: page
/// offsets are the same in both mappings.
#[derive(Clone, Debug)]
pub enum UsedElements<W> {
    Words(Entries<u64, W>),
    Halves(Entries<u32, W>),
}

impl<W: Window> UsedElements<W> {
    fn new(layout: Layout, window: &W) -> Result<Self, WindowError> {
        let size = usize::from(layout.size());
        Ok(if window.is_aligned(RING_HEADER_BYTES, 8) {
            Self::Words(Entries::new(window, RING_HEADER_BYTES, size)?)
        } else {
            Self::Halves(Entries::new(window, RING_HEADER_BYTES, 2 * size)?)
        })
    }

    #[inline(always)]
    pub(super) fn load(&self, position: u16) -> UsedElement {
        let at = usize::from(position);
        UsedElement::from_word(match self {
            Self::Words(words) => words.load(at, Relaxed),
            Self::Halves(halves) => {
                u64::from(halves.load(2 * at, Relaxed))
                    | u64::from(halves.load(2 * at + 1, Relaxed)) << 32
            }
        })
    }

    #[inline(always)]
    pub(super) fn store(&self, position: u16, element: UsedElement) {
        let at = usize::from(position);
        match self {
            Self::Words(words) => words.store(at, element.to_word(), Relaxed),
            Self::Halves(halves) => {
                halves.store(2 * at, element.id, Relaxed);
                halves.store(2 * at + 1, element.len, Relaxed);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use shmbus_shm::heap;

    /// Number 9 of the field notes' defects: pointer and length travel together. A size that does not fit its window is refused at
    /// set-up, and no later access depends on a size that anybody can change.
    #[test]
    fn defect_9_a_size_beyond_its_window_is_refused() {
        let layout = Layout::new(16).unwrap();
        let [descriptors, available, used] = [256, 38, 134].map(heap);
        assert!(Areas::new(layout, &descriptors, &available, &used).is_ok());
        for (short, area) in [
            ([&heap(255), &available, &used], "descriptor area"),
            ([&descriptors, &heap(37), &used], "driver area"),
            ([&descriptors, &available, &heap(133)], "device area"),
        ] {
            let error = Areas::new(layout, short[0], short[1], short[2]).unwrap_err();
            assert!(
                matches!(error, SetupError::Area { area: at, .. } if at == area),
                "{error}"
            );
        }
    }

    #[test]
    fn an_observer_sees_what_is_published() {
        let layout = Layout::new(4).unwrap().legacy(64).unwrap();
        let memory = heap(layout.bytes());
        assert!(Areas::legacy(layout, &memory.narrow(0, layout.bytes() - 1).unwrap()).is_err());
        let areas = Areas::legacy(layout, &memory).unwrap();
        // A legacy ring of 4: available ring behind 64 bytes of descriptors, used ring on the next line.
        let word = |offset| Field::<u16, _>::new(&memory, offset).unwrap();
        word(64 + 2).store(1, Relaxed);
        word(128 + 2).store(0xfffe, Relaxed);
        assert_eq!(
            areas.published(),
            Positions {
                available: 1,
                used: 0xfffe,
                in_flight: 3
            }
        );
    }

    #[test]
    fn used_elements_are_words_where_the_address_allows_it() {
        let layout = Layout::new(4).unwrap();
        // A memory each: no place is accessed at two widths.
        let [memory, other] = [64, 64].map(heap);
        let at_4 = other.narrow(4, 60).unwrap();
        let words = UsedElements::new(layout, &at_4).unwrap();
        assert!(matches!(words, UsedElements::Words(_)));
        let halves = UsedElements::new(layout, &memory).unwrap();
        assert!(matches!(halves, UsedElements::Halves(_)));

        for elements in [words, halves] {
            let element = UsedElement {
                id: 3,
                len: 0x1122_3344,
            };
            elements.store(5, element);
            assert_eq!(elements.load(1), element);
        }
    }
}
