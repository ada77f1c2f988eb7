//! The three areas, carved out of their windows once: sizes and bounds are frozen here.

use core::num::NonZeroUsize;
use core::sync::atomic::Ordering::{self, Acquire, Relaxed};

use shmbus_shm::{FenceScope, Field, Rows, Window, WindowError};

use super::cursor::Cursor;
use crate::descriptor::{Buffer, DESCRIPTOR_BYTES, UsedElement, WRITE};
use crate::driver::DriverSlot;
use crate::fault::SetupError;

/// The largest queue size, in entries (virtio 1.4, section 2.8).
pub const MAX_SIZE: u16 = 32768;

/// `VIRTQ_DESC_F_AVAIL`, where it lies in a descriptor's second word.
pub(super) const AVAILABLE: u64 = 1 << (FLAGS_SHIFT + 7);
/// `VIRTQ_DESC_F_USED`, likewise.
pub(super) const USED: u64 = 1 << (FLAGS_SHIFT + 15);

const FLAGS_SHIFT: u32 = 48;
const SUPPRESSION_BYTES: usize = 4;

/// The areas lie on lines of their own: a side that looks at the other's wishes steals no descriptor.
const LINE: usize = 64;

/// A packed ring's size, and where its areas lie in shmbus's own placement: all in one memory that both sides write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layout {
    size: u16,
}

impl Layout {
    /// The layout of a ring of `size` entries, which need not be a power of two.
    ///
    /// # Errors
    ///
    /// [`SetupError::Size`].
    pub const fn new(size: u16) -> Result<Self, SetupError> {
        if size >= 1 && size <= MAX_SIZE {
            Ok(Self { size })
        } else {
            Err(SetupError::Size { size })
        }
    }

    /// The queue's size, in entries.
    pub const fn size(self) -> u16 {
        self.size
    }

    /// Length of the descriptor area (the descriptor ring), in bytes.
    pub const fn descriptors_bytes(self) -> usize {
        DESCRIPTOR_BYTES * self.size as usize
    }

    /// Length of the driver area (the driver event suppression structure), in bytes.
    pub const fn driver_area_bytes(self) -> usize {
        SUPPRESSION_BYTES
    }

    /// Length of the device area (the device event suppression structure), in bytes.
    pub const fn device_area_bytes(self) -> usize {
        SUPPRESSION_BYTES
    }

    /// Where the descriptor area lies, in bytes.
    pub const fn descriptors_offset(self) -> usize {
        0
    }

    /// Where the driver area lies, in bytes.
    pub const fn driver_area_offset(self) -> usize {
        self.descriptors_bytes().next_multiple_of(LINE)
    }

    /// Where the device area lies, in bytes.
    pub const fn device_area_offset(self) -> usize {
        self.driver_area_offset() + LINE
    }

    /// How much memory the ring needs, in bytes: whole lines.
    pub const fn bytes(self) -> usize {
        self.device_area_offset() + LINE
    }
}

/// A packed ring's three areas. They may lie in different memories.
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

    /// The areas in shmbus's own placement: `memory` is written by both sides.
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

/// The columns of [`Descriptors`].
const ADDRESS: usize = 0;
const STATE: usize = 1;

/// The descriptor ring (virtio 1.4, section 2.8.13): `addr`, then `len`, `id` and `flags` together as one word. Each
/// word has this one width on both sides.
#[derive(Clone, Debug)]
pub struct Descriptors<W> {
    words: Rows<u64, W, 2>,
}

impl<W: Window> Descriptors<W> {
    fn new(layout: Layout, window: &W) -> Result<Self, WindowError> {
        let count = NonZeroUsize::MIN.saturating_add(usize::from(layout.size()) - 1);
        Ok(Self {
            words: Rows::new(window, 0, count)?,
        })
    }

    #[inline(always)]
    pub(super) fn load_state(&self, at: Cursor, order: Ordering) -> State {
        State(self.words.load(usize::from(at.offset()), STATE, order))
    }

    #[inline(always)]
    pub(super) fn store_state(&self, at: Cursor, state: State, order: Ordering) {
        self.words
            .store(usize::from(at.offset()), STATE, state.0, order);
    }

    /// The state of the used descriptor at `at`, if it is used.
    #[inline(always)]
    pub(super) fn load_used(&self, at: Cursor) -> Option<State> {
        // Acquire: what the device wrote into buffers comes with the descriptor.
        let state = self.load_state(at, Acquire);
        state.is_used(at).then_some(state)
    }

    /// The first state of the chain at `at`, if it is available.
    #[inline(always)]
    pub(super) fn load_available(&self, at: Cursor) -> Option<State> {
        // Acquire: the address, the rest of the chain and the buffers' bytes come with the first state.
        let first = self.load_state(at, Acquire);
        first.is_available(at).then_some(first)
    }

    #[inline(always)]
    pub(super) fn load_address(&self, at: Cursor) -> u64 {
        self.words.load(usize::from(at.offset()), ADDRESS, Relaxed)
    }

    /// Both words, as bytes.
    pub(super) fn load_row(&self, at: Cursor) -> [u8; DESCRIPTOR_BYTES] {
        let state = self.load_state(at, Relaxed);
        (u128::from(self.load_address(at)) | u128::from(state.0) << 64).to_le_bytes()
    }

    #[inline(always)]
    pub(super) fn store_address(&self, at: Cursor, address: u64) {
        self.words
            .store(usize::from(at.offset()), ADDRESS, address, Relaxed);
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

/// A descriptor's second word: `len`, `id`, `flags`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct State(u64);

impl State {
    /// `mark` is what the flags AVAIL and USED say, from a [`Cursor`].
    #[inline(always)]
    pub(super) fn new(len: u32, id: u16, flags: u16, mark: u64) -> Self {
        Self(u64::from(len) | u64::from(id) << 32 | u64::from(flags) << FLAGS_SHIFT | mark)
    }

    #[inline(always)]
    pub(super) fn is_available(self, at: Cursor) -> bool {
        at.is_available_in(self.0)
    }

    #[inline(always)]
    pub(super) fn is_used(self, at: Cursor) -> bool {
        at.is_used_in(self.0)
    }

    #[inline(always)]
    pub(super) fn len(self) -> u32 {
        self.0 as u32
    }

    #[inline(always)]
    pub(super) fn id(self) -> u16 {
        (self.0 >> 32) as u16
    }

    #[inline(always)]
    pub(super) fn flags(self) -> u16 {
        (self.0 >> FLAGS_SHIFT) as u16
    }

    /// Whether one of `flags` is set.
    #[inline(always)]
    pub(super) fn has(self, flags: u16) -> bool {
        self.flags() & flags != 0
    }

    /// What a used descriptor says of its chain, which is one of those that `slots` know.
    #[inline(always)]
    pub(super) fn used_element<T>(self, slots: &[DriverSlot<T>]) -> UsedElement {
        let (id, len) = (self.id(), self.len());
        // Without WRITE the length is reserved (virtio 1.4, section 2.8.4). But QEMU's devices never set the flag: a length
        // that the chain can have is theirs, and one that it cannot is no fault.
        let writable = || slots.get(usize::from(id)).map_or(0, |slot| slot.writable);
        let counts = self.has(WRITE) || len <= writable();
        UsedElement {
            id: u32::from(id),
            len: if counts { len } else { 0 },
        }
    }

    /// A descriptor as it was saved.
    pub(super) fn from_row(row: [u8; DESCRIPTOR_BYTES]) -> (Buffer, Self) {
        let words = u128::from_le_bytes(row);
        let state = Self((words >> 64) as u64);
        (Buffer::new(words as u64, state.len()), state)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use shmbus_shm::heap;

    #[test]
    fn sizes_are_any_number_up_to_32768() {
        for size in [0, 32769, u16::MAX] {
            assert_eq!(Layout::new(size), Err(SetupError::Size { size }));
        }
        for size in [1, 2, 3, 255, 256, 257, 32767, 32768] {
            let layout = Layout::new(size).unwrap();
            assert_eq!(layout.descriptors_bytes(), 16 * usize::from(size));
            assert!(layout.driver_area_offset() >= layout.descriptors_bytes());
            let memory = heap(layout.bytes());
            assert_eq!(Areas::in_memory(layout, &memory).unwrap().size(), size);
        }
    }

    #[test]
    fn a_size_beyond_its_window_is_refused() {
        let layout = Layout::new(3).unwrap();
        let [descriptors, driver, device] = [48, 4, 4].map(heap);
        assert!(Areas::new(layout, &descriptors, &driver, &device).is_ok());
        for (short, area) in [
            ([&heap(47), &driver, &device], "descriptor area"),
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

    #[test]
    fn the_second_word_is_that_of_pvirtq_desc() {
        let state = State::new(7, 0x2122, 3, AVAILABLE | USED);
        assert_eq!(state.0.to_le_bytes(), [7, 0, 0, 0, 0x22, 0x21, 0x83, 0x80]);
        assert_eq!((state.len(), state.id()), (7, 0x2122));
    }
}
