//! A function's regions: configuration space and BARs.

use core::ops::Range;
use std::io;

use shmbus_shm::{Mapped, MemoryType, map_device};
use vfio_bindings::bindings::vfio::VFIO_REGION_INFO_FLAG_MMAP;
use vfio_ioctls::{VfioDevice, VfioRegionInfoCap};

use super::request;

/// Where a region is, and what of it can be mapped.
#[derive(Clone, Debug)]
pub(super) struct Region {
    /// How long it is, in bytes; zero for none.
    pub(super) len: u64,
    /// Where it starts in the device's descriptor, in bytes.
    pub(super) start: u64,
    /// Which parts can be mapped.
    pub(super) areas: Vec<Range<u64>>,
}

impl Region {
    /// Region number `index` of a device.
    ///
    /// vfio-ioctls leaves out regions of which it cannot learn anything, so that all after them have other numbers. It is asked
    /// only what it alone knows, and believed only where it means the same region.
    pub(super) fn of(device: &VfioDevice, index: u32) -> io::Result<Self> {
        let (flags, len, start) = request::region_info(request::descriptor(device), index)?;
        let is_known =
            device.get_region_size(index) == len && device.get_region_offset(index) == start;
        let areas = if flags & VFIO_REGION_INFO_FLAG_MMAP == 0 || !is_known {
            Vec::new()
        } else {
            areas(&device.get_region_caps(index), len)
        };
        Ok(Self { len, start, areas })
    }

    /// Whether a part can be mapped.
    pub(super) fn is_mappable(&self, part: &Range<u64>) -> bool {
        !part.is_empty()
            && self
                .areas
                .iter()
                .any(|area| area.start <= part.start && part.end <= area.end)
    }

    /// Maps a mappable part.
    pub(super) fn map(
        &self,
        device: &VfioDevice,
        part: &Range<u64>,
        memory_type: MemoryType,
    ) -> io::Result<Mapped> {
        let fd = request::descriptor(device);
        let len = usize::try_from(part.end - part.start).map_err(io::Error::other)?;
        map_device(fd, self.start + part.start, len, true, memory_type)
    }
}

/// What can be mapped of a region of `len` bytes that can be mapped at all.
fn areas(capabilities: &[VfioRegionInfoCap], len: u64) -> Vec<Range<u64>> {
    let sparse = capabilities.iter().find_map(|capability| match capability {
        VfioRegionInfoCap::SparseMmap(sparse) => Some(&sparse.areas),
        _ => None,
    });
    let Some(areas) = sparse else {
        return std::iter::once(0..len).collect();
    };
    areas
        .iter()
        .filter_map(|area| Some(area.offset..area.offset.checked_add(area.size)?))
        .filter(|area| !area.is_empty() && area.end <= len)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use vfio_ioctls::{VfioRegionInfoCapSparseMmap, VfioRegionSparseMmapArea};

    fn sparse(areas: &[(u64, u64)]) -> VfioRegionInfoCap {
        let areas = areas
            .iter()
            .map(|&(offset, size)| VfioRegionSparseMmapArea { offset, size })
            .collect();
        VfioRegionInfoCap::SparseMmap(VfioRegionInfoCapSparseMmap { areas })
    }

    #[test]
    fn a_region_is_mappable_as_a_whole_or_in_its_areas() {
        let region = |areas| Region {
            len: 0x4000,
            start: 0,
            areas,
        };
        let whole = region(areas(&[VfioRegionInfoCap::MsixMappable], 0x4000));
        assert!(whole.is_mappable(&(0..0x4000)) && whole.is_mappable(&(0x1000..0x2000)));
        assert!(!whole.is_mappable(&(0..0x4001)) && !whole.is_mappable(&(8..8)));

        let told = [
            (0, 0x1000),
            (0x2000, 0x2000),
            (0x3000, 0x2000),
            (u64::MAX, 2),
        ];
        let parts = region(areas(
            &[VfioRegionInfoCap::MsixMappable, sparse(&told)],
            0x4000,
        ));
        assert_eq!(parts.areas, [0..0x1000, 0x2000..0x4000]);
        assert!(parts.is_mappable(&(0x2000..0x3000)));
        assert!(!parts.is_mappable(&(0..0x4000)) && !parts.is_mappable(&(0x1000..0x2000)));
        assert!(!region(areas(&[sparse(&[])], 0x4000)).is_mappable(&(0..0x1000)));
    }
}
