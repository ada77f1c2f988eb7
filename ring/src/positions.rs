//! How far a side of a queue has come.

use crate::kind::RingKind;

/// One side's progress, or what an observer sees of both.
///
/// A position in a split ring is an index that runs freely and wraps at 65536. In a packed ring it is what available
/// buffer notifications carry (virtio 1.4, section 2.9): an offset in descriptors in bits 0 to 14, and the wrap
/// counter, which starts as 1, in bit 15.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Positions {
    /// Driver: up to where it last published available chains. Device: where it takes the next one.
    /// Observer: the available index.
    pub available: u16,
    /// Driver: where it takes the next used chain. Device: up to where it last published used chains.
    /// Observer: the used index.
    pub used: u16,
    /// Driver: chains that were added and not taken back. Device: chains that were taken and not completed.
    /// Observer: chains that are available and not yet used.
    pub in_flight: u16,
}

/// By how many entries each side of a ring is behind the other.
///
/// Where a side's positions cannot be those of the ring's other side, there is none: they are of another moment, or
/// somebody lies.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Lag {
    /// Entries that the driver made available and the device has not taken.
    pub available: Option<u16>,
    /// Entries that the device used and the driver has not taken back.
    pub used: Option<u16>,
}

impl Positions {
    /// The lag in a ring of `size` entries, from what its driver and its device say of themselves. Entries are
    /// chains in a split ring, and descriptors in a packed one.
    pub fn lag(driver: &Self, device: &Self, kind: RingKind, size: u16) -> Lag {
        Lag {
            available: kind.entries_between(device.available, driver.available, size),
            used: kind.entries_between(driver.used, device.used, size),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use shmbus_shm::RingFormat;

    const SPLIT: RingKind = RingKind::plain(RingFormat::Split);
    const PACKED: RingKind = RingKind::in_order(RingFormat::Packed);

    fn at(available: u16, used: u16) -> Positions {
        Positions {
            available,
            used,
            in_flight: 0,
        }
    }

    #[test]
    fn free_running_positions_wrap_at_65536() {
        let lag = |driver, device| Positions::lag(&driver, &device, SPLIT, 256);
        assert_eq!(
            lag(at(7, 3), at(5, 4)),
            Lag {
                available: Some(2),
                used: Some(1)
            }
        );
        assert_eq!(lag(at(9, 0xfff0), at(0xfff8, 0xfff0)).available, Some(17));
        assert_eq!(lag(at(9, 0xfff0), at(0xfff8, 0xfff0)).used, Some(0));
        // A full ring is as far apart as two sides can be; the next one, or a device that is ahead, is nonsense.
        assert_eq!(
            lag(at(0, 0), at(0xff00, 0x100)),
            lag(at(256, 0), at(0, 256))
        );
        assert_eq!(lag(at(256, 0), at(0, 256)).available, Some(256));
        let none = Lag {
            available: None,
            used: None,
        };
        assert_eq!(lag(at(257, 0), at(0, 257)), none);
        assert_eq!(lag(at(0, 1), at(1, 0)), none);
    }

    /// Every two positions of small packed rings, counted out entry by entry.
    #[test]
    fn positions_with_a_wrap_counter_are_told_apart_within_a_lap() {
        for size in 1..=5 {
            // Offsets go up to the end, and the wrap counter, which starts as 1, changes there.
            let step = |position: u16| match position & 0x7fff {
                offset if offset + 1 == size => !position & 0x8000,
                _ => position + 1,
            };
            let mut from = 0x8000;
            for _ in 0..2 * size {
                let mut to = from;
                for entries in 0..2 * size {
                    let expected = (entries <= size).then_some(entries);
                    assert_eq!(PACKED.entries_between(from, to, size), expected);
                    to = step(to);
                }
                assert_eq!(to, from);
                from = step(from);
            }
        }
    }

    #[test]
    fn positions_that_a_packed_ring_does_not_have_are_no_lag() {
        for bits in [3, 0x8003, 0x7fff, 0xffff] {
            assert_eq!(PACKED.entries_between(bits, 0x8000, 3), None);
            assert_eq!(PACKED.entries_between(0x8000, bits, 3), None);
        }
        let most = 32_768;
        assert_eq!(PACKED.entries_between(0x8000, 0, most), Some(most));
        assert_eq!(PACKED.entries_between(0xffff, 0, most), Some(1));
        assert_eq!(PACKED.entries_between(0x8000, 0x7fff, most), None);
    }
}
