//! Where the areas lie.

use crate::descriptor::DESCRIPTOR_BYTES;
use crate::fault::SetupError;

/// The largest queue size, in entries.
pub const MAX_SIZE: u16 = 32768;

const SUPPRESSION_BYTES: usize = 4;

/// The areas lie on lines of their own: a side that looks at the other's wishes steals no descriptor.
const LINE: usize = 64;

/// A tagged ring's size, and where its areas lie: all in one memory that both sides write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layout {
    size: u16,
}

impl Layout {
    /// The layout of a ring of `size` entries, a power of two from 2 to 32768. One of them is the wall: chains take up
    /// at most `size - 1`.
    ///
    /// # Errors
    ///
    /// [`SetupError::Size`].
    pub const fn new(size: u16) -> Result<Self, SetupError> {
        if size >= 2 && size.is_power_of_two() {
            Ok(Self { size })
        } else {
            Err(SetupError::Size { size })
        }
    }

    /// The queue's size, in entries.
    pub const fn size(self) -> u16 {
        self.size
    }

    /// Length of the descriptor area (the ring), in bytes.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_powers_of_two_that_have_room_for_the_wall() {
        for size in [0, 1, 3, 6, 32767, 32769, u16::MAX] {
            assert_eq!(Layout::new(size), Err(SetupError::Size { size }));
        }
        for shift in 1..=15 {
            let layout = Layout::new(1 << shift).unwrap();
            assert_eq!(layout.size(), 1 << shift);
            assert_eq!(layout.descriptors_bytes(), 16 << shift);
            assert!(layout.driver_area_offset() >= layout.descriptors_bytes());
            assert!(layout.device_area_offset() >= layout.driver_area_offset() + 64);
            assert!(layout.bytes() >= layout.device_area_offset() + layout.device_area_bytes());
        }
        assert_eq!(Layout::new(MAX_SIZE).unwrap().size(), MAX_SIZE);
    }
}
