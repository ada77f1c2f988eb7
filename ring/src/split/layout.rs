//! Where a split ring's areas lie, and how long they are.

use crate::descriptor::DESCRIPTOR_BYTES;
use crate::fault::SetupError;

/// The largest queue size, in entries: indices of 16 bits must tell full from empty.
pub const MAX_SIZE: u16 = 32768;

/// `flags` and `idx`, in front of the entries of either ring; the event index behind them is of two bytes.
pub(super) const RING_HEADER_BYTES: usize = 4;
const EVENT_BYTES: usize = 2;
const AVAILABLE_ENTRY_BYTES: usize = 2;
const USED_ELEMENT_BYTES: usize = 8;

/// The ring's entries start on a line: then no entry shares a line with the indices, and a used element is one
/// aligned `u64`.
const ENTRIES_ALIGNMENT: usize = 64;

/// A split ring's size, and where its areas lie in shmbus's own placement: the descriptor area and the driver area in
/// memory that the driver writes, the device area in memory that the device writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layout {
    size: u16,
}

impl Layout {
    /// The layout of a ring of `size` entries.
    ///
    /// # Errors
    ///
    /// [`SetupError::Size`].
    pub const fn new(size: u16) -> Result<Self, SetupError> {
        if size.is_power_of_two() && size <= MAX_SIZE {
            Ok(Self { size })
        } else {
            Err(SetupError::Size { size })
        }
    }

    /// The queue's size, in entries.
    pub const fn size(self) -> u16 {
        self.size
    }

    /// Length of the descriptor area, in bytes.
    pub const fn descriptors_bytes(self) -> usize {
        DESCRIPTOR_BYTES * self.size as usize
    }

    /// Length of the driver area (the available ring with `used_event`), in bytes.
    pub const fn available_bytes(self) -> usize {
        self.used_event_offset() + EVENT_BYTES
    }

    /// Length of the device area (the used ring with `avail_event`), in bytes.
    pub const fn used_bytes(self) -> usize {
        self.avail_event_offset() + EVENT_BYTES
    }

    /// Where `used_event` lies in the driver area, in bytes.
    pub const fn used_event_offset(self) -> usize {
        RING_HEADER_BYTES + AVAILABLE_ENTRY_BYTES * self.size as usize
    }

    /// Where `avail_event` lies in the device area, in bytes.
    pub const fn avail_event_offset(self) -> usize {
        RING_HEADER_BYTES + USED_ELEMENT_BYTES * self.size as usize
    }

    /// Where the descriptor area lies in the driver's memory, in bytes.
    pub const fn descriptors_offset(self) -> usize {
        0
    }

    /// Where the driver area lies in the driver's memory, in bytes.
    pub const fn available_offset(self) -> usize {
        (self.descriptors_bytes() + RING_HEADER_BYTES).next_multiple_of(ENTRIES_ALIGNMENT)
            - RING_HEADER_BYTES
    }

    /// Where the device area lies in the device's memory, in bytes.
    pub const fn used_offset(self) -> usize {
        ENTRIES_ALIGNMENT - RING_HEADER_BYTES
    }

    /// How much of the driver's memory the ring needs, in bytes: whole lines.
    pub const fn driver_bytes(self) -> usize {
        (self.available_offset() + self.available_bytes()).next_multiple_of(ENTRIES_ALIGNMENT)
    }

    /// How much of the device's memory the ring needs, in bytes: whole lines.
    pub const fn device_bytes(self) -> usize {
        (self.used_offset() + self.used_bytes()).next_multiple_of(ENTRIES_ALIGNMENT)
    }

    /// The placement of legacy devices, all areas in one piece (virtio 1.4, section 2.7.2), the used ring at the next
    /// multiple of `align` bytes.
    ///
    /// # Errors
    ///
    /// [`SetupError::Align`] if `align` is no power of two or less than 4.
    pub const fn legacy(self, align: u32) -> Result<LegacyLayout, SetupError> {
        if !align.is_power_of_two() || align < 4 {
            return Err(SetupError::Align { align });
        }
        Ok(LegacyLayout {
            layout: self,
            align: align as usize,
        })
    }
}

/// Where a legacy split ring's areas lie in its one piece of memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LegacyLayout {
    layout: Layout,
    align: usize,
}

impl LegacyLayout {
    /// The size and the areas' lengths.
    pub const fn layout(self) -> Layout {
        self.layout
    }

    /// Where the descriptor area lies, in bytes.
    pub const fn descriptors_offset(self) -> usize {
        0
    }

    /// Where the driver area lies, in bytes.
    pub const fn available_offset(self) -> usize {
        self.layout.descriptors_bytes()
    }

    /// Where the device area lies, in bytes.
    pub const fn used_offset(self) -> usize {
        (self.available_offset() + self.layout.available_bytes()).next_multiple_of(self.align)
    }

    /// The length in bytes up to the end of the used ring, `avail_event` included: what `vring_size` in Linux's
    /// header answers.
    pub const fn bytes(self) -> usize {
        self.used_offset() + self.layout.used_bytes()
    }

    /// The bytes that the driver allocates: a multiple of the alignment, as the specification's formula has it.
    pub const fn allocated_bytes(self) -> usize {
        self.bytes().next_multiple_of(self.align)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_powers_of_two_up_to_32768() {
        for size in [0, 3, 255, 257, 32769, u16::MAX] {
            assert_eq!(Layout::new(size), Err(SetupError::Size { size }));
        }
        for size in (0..16).map(|shift| 1 << shift) {
            assert!(Layout::new(size).is_ok());
        }
    }

    #[test]
    fn areas_are_as_long_as_the_specification_says() {
        let layout = Layout::new(256).unwrap();
        assert_eq!(layout.descriptors_bytes(), 16 * 256);
        assert_eq!(layout.available_bytes(), 6 + 2 * 256);
        assert_eq!(layout.used_bytes(), 6 + 8 * 256);
        assert_eq!(layout.used_event_offset(), 4 + 2 * 256);
        assert_eq!(layout.avail_event_offset(), 4 + 8 * 256);
    }

    #[test]
    fn areas_do_not_overlap_and_entries_start_on_lines() {
        for size in (0..16).map(|shift| 1 << shift) {
            let layout = Layout::new(size).unwrap();
            assert!(layout.available_offset() >= layout.descriptors_bytes());
            assert!((layout.available_offset() + RING_HEADER_BYTES).is_multiple_of(64));
            assert!((layout.used_offset() + RING_HEADER_BYTES).is_multiple_of(64));
            assert!(layout.driver_bytes() >= layout.available_offset() + layout.available_bytes());
            assert!(layout.device_bytes() >= layout.used_offset() + layout.used_bytes());
        }
    }

    /// The figures that Linux's `vring_size` answers, worked out from its formula by hand.
    #[test]
    fn the_legacy_layout_is_vring_size() {
        let legacy = Layout::new(256).unwrap().legacy(4096).unwrap();
        assert_eq!(legacy.available_offset(), 4096);
        assert_eq!(legacy.used_offset(), 8192);
        assert_eq!(legacy.bytes(), 8192 + 2 * 3 + 8 * 256);
        assert_eq!(legacy.allocated_bytes(), 3 * 4096);

        let small = Layout::new(4).unwrap().legacy(64).unwrap();
        assert_eq!(small.used_offset(), 128);
        assert_eq!(small.bytes(), 128 + 6 + 32);

        let layout = Layout::new(4).unwrap();
        assert_eq!(layout.legacy(2), Err(SetupError::Align { align: 2 }));
        assert_eq!(layout.legacy(48), Err(SetupError::Align { align: 48 }));
    }
}
