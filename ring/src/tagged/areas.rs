//! The three areas, carved out of their windows once: sizes and bounds are frozen here.

use core::sync::atomic::Ordering::{self, Relaxed};

use shmbus_shm::{Entries, FenceScope, Field, Window, WindowError};

use super::Layout;
use super::label::Label;
use crate::descriptor::DESCRIPTOR_BYTES;
use crate::fault::SetupError;

/// A tagged ring's three areas. They may lie in different memories.
#[derive(Clone, Debug)]
pub struct Areas<W> {
    pub(super) size: u16,
    pub(super) descriptors: Descriptors<W>,
    /// The driver event suppression structure, which the driver writes.
    pub(super) driver: Field<u32, W>,
    /// The device event suppression structure, which the device writes.
    pub(super) device: Field<u32, W>,
}

impl<W: Window> Areas<W> {
    /// The areas of a ring of `layout`'s size: the descriptor area at the start of `descriptors`, the driver area at
    /// the start of `driver`, the device area at the start of `device`. Longer windows are cut.
    ///
    /// # Errors
    ///
    /// [`SetupError::Area`] if an area is longer than its window, or is not aligned for its accesses: 8 bytes for the
    /// descriptor area, 4 for the others.
    pub fn new(
        layout: Layout,
        descriptors: &W,
        driver: &W,
        device: &W,
    ) -> Result<Self, SetupError> {
        let area = |area| move |source| SetupError::Area { area, source };
        Ok(Self {
            size: layout.size(),
            descriptors: Descriptors::new(layout, descriptors).map_err(area("descriptor area"))?,
            driver: Field::new(driver, 0).map_err(area("driver area"))?,
            device: Field::new(device, 0).map_err(area("device area"))?,
        })
    }

    /// The areas in `layout`'s own placement: `memory` is written by both sides.
    ///
    /// # Errors
    ///
    /// [`SetupError::Area`], as for [`Areas::new`].
    pub fn in_memory(layout: Layout, memory: &W) -> Result<Self, SetupError> {
        let area = |area| move |source| SetupError::Area { area, source };
        let driver = memory
            .narrow(layout.driver_area_offset(), layout.driver_area_bytes())
            .map_err(area("driver area"))?;
        let device = memory
            .narrow(layout.device_area_offset(), layout.device_area_bytes())
            .map_err(area("device area"))?;
        Self::new(layout, memory, &driver, &device)
    }

    /// The queue's size, in entries.
    pub fn size(&self) -> u16 {
        self.size
    }
}

/// The ring: an entry is an address and a [`Label`], each one word on both sides. Positions run freely; an entry's
/// place is its position modulo the size.
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

    #[inline(always)]
    pub(super) fn load_label(&self, at: u16, order: Ordering) -> Label {
        Label::from_word(self.words.load(2 * usize::from(at) + 1, order))
    }

    #[inline(always)]
    pub(super) fn store_label(&self, at: u16, label: Label, order: Ordering) {
        self.words
            .store(2 * usize::from(at) + 1, label.to_word(), order);
    }

    #[inline(always)]
    pub(super) fn load_address(&self, at: u16) -> u64 {
        self.words.load(2 * usize::from(at), Relaxed)
    }

    #[inline(always)]
    pub(super) fn store_address(&self, at: u16, address: u64) {
        self.words.store(2 * usize::from(at), address, Relaxed);
    }

    /// An entry as it is saved: both of its words.
    #[inline(always)]
    pub(super) fn load_row(&self, at: u16) -> [u8; DESCRIPTOR_BYTES] {
        let label = self.load_label(at, Relaxed);
        let row = u128::from(self.load_address(at)) | u128::from(label.to_word()) << 64;
        row.to_le_bytes()
    }

    /// Among whom its fences order.
    pub(super) fn fence_scope(&self) -> FenceScope {
        self.words.fence_scope()
    }

    /// Orders this thread's accesses to the ring's memory.
    #[inline(always)]
    pub(super) fn fence(&self, order: Ordering) {
        self.words.fence(order);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use shmbus_shm::heap;

    #[test]
    fn a_size_beyond_its_window_is_refused() {
        let layout = Layout::new(4).unwrap();
        assert_eq!(
            Areas::in_memory(layout, &heap(layout.bytes()))
                .unwrap()
                .size(),
            4
        );
        assert!(Areas::in_memory(layout, &heap(layout.device_area_offset())).is_err());
        let [descriptors, driver, device] = [64, 4, 4].map(heap);
        assert!(Areas::new(layout, &descriptors, &driver, &device).is_ok());
        for (short, area) in [
            ([&heap(63), &driver, &device], "descriptor area"),
            ([&descriptors, &heap(3), &device], "driver area"),
            ([&descriptors, &driver, &heap(3)], "device area"),
        ] {
            let error = Areas::new(layout, short[0], short[1], short[2]).unwrap_err();
            assert!(
                matches!(error, SetupError::Area { area: at, .. } if at == area),
                "{error}"
            );
        }
    }
}
