//! What a container's IOMMU can do, as VFIO tells it (`struct vfio_iommu_type1_info` in Linux's `vfio.h`).

use core::ops::RangeInclusive;

use vfio_bindings::bindings::vfio::{
    VFIO_IOMMU_INFO_CAPS, VFIO_IOMMU_INFO_PGSIZES, VFIO_IOMMU_TYPE1_INFO_CAP_IOVA_RANGE,
    VFIO_IOMMU_TYPE1_INFO_DMA_AVAIL,
};

/// A page that every IOMMU of this kind has.
const SMALLEST_PAGE: u64 = 4096;

/// A container's IOMMU.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Iommu {
    /// Its smallest page, in bytes.
    pub(super) page: u64,
    /// Which I/O virtual addresses it takes: all but those that something else occupies, such as message interrupts.
    pub(super) addresses: Vec<RangeInclusive<u64>>,
    /// How many more mappings it takes; `None` if it does not say.
    pub(super) mappings_left: Option<u32>,
}

impl Iommu {
    /// Reads VFIO's words; what is missing or malformed in them is left out.
    pub(super) fn parse(words: &[u32]) -> Self {
        let at = |index: usize| words.get(index).copied().unwrap_or(0);
        let wide = |index: usize| u64::from(at(index)) | u64::from(at(index + 1)) << 32;
        let flags = at(1);
        let sizes = if flags & VFIO_IOMMU_INFO_PGSIZES != 0 {
            wide(2)
        } else {
            0
        };
        let mut iommu = Self {
            page: 1_u64
                .checked_shl(sizes.trailing_zeros())
                .unwrap_or(0)
                .max(SMALLEST_PAGE),
            addresses: Vec::new(),
            mappings_left: None,
        };
        let mut next = if flags & VFIO_IOMMU_INFO_CAPS != 0 {
            at(4)
        } else {
            0
        };
        // Capabilities follow one another upwards, so there are never more of them than words.
        while next != 0 && next.is_multiple_of(4) && (next as usize / 4) + 1 < words.len() {
            let capability = next as usize / 4;
            match at(capability) & 0xffff {
                VFIO_IOMMU_TYPE1_INFO_CAP_IOVA_RANGE => {
                    let count = (at(capability + 2) as usize).min(words.len() / 4);
                    iommu.addresses = (0..count)
                        .map(|index| capability + 4 + 4 * index)
                        .filter(|range| range + 4 <= words.len())
                        .map(|range| wide(range)..=wide(range + 2))
                        .collect();
                }
                VFIO_IOMMU_TYPE1_INFO_DMA_AVAIL => {
                    iommu.mappings_left = Some(at(capability + 2));
                }
                _ => {}
            }
            let after = at(capability + 1);
            next = if after > next { after } else { 0 };
        }
        iommu
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a container in QEMU with an Intel IOMMU of 39 bits says.
    fn told() -> Vec<u32> {
        let mut words = vec![104, 3, 0x1000, 0, 24, 0];
        // At byte 24: addresses, version 1, next at 72.
        words.extend([1 | 1 << 16, 72, 2, 0]);
        words.extend([0, 0, 0xfedf_ffff, 0]);
        words.extend([0xfef0_0000, 0, 0xffff_ffff, 0x7f]);
        // At byte 72: migration, next at 96.
        words.extend([2 | 1 << 16, 96, 0, 0, 0x1000, 0]);
        // At byte 96: mappings that are left.
        words.extend([3 | 1 << 16, 0, 65_535]);
        words
    }

    #[test]
    fn pages_addresses_and_mappings_are_found() {
        let iommu = Iommu::parse(&told());
        assert_eq!(iommu.page, 4096);
        assert_eq!(
            iommu.addresses,
            [0..=0xfedf_ffff, 0xfef0_0000..=0x7f_ffff_ffff]
        );
        assert_eq!(iommu.mappings_left, Some(65_535));
    }

    #[test]
    fn what_is_cut_short_or_loops_is_left_out() {
        for len in 0..told().len() {
            Iommu::parse(&told()[..len]);
        }
        let mut looping = told();
        looping[7] = 24;
        assert_eq!(Iommu::parse(&looping).mappings_left, None);
        let mut many = told();
        many[8] = u32::MAX;
        assert!(Iommu::parse(&many).addresses.len() < many.len());
        let mut without = told();
        without[1] = 0;
        let nothing = Iommu {
            page: 4096,
            addresses: Vec::new(),
            mappings_left: None,
        };
        assert_eq!(Iommu::parse(&without), nothing);
    }
}
