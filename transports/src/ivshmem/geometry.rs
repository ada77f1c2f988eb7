//! How a domain's memory is divided: a header, then areas of one guest each, alike.

use shmbus_shm::Section;

use super::layout::{
    AREA_PAGE_BYTES, AreaPlace, HEADER_BYTES, HOST_PEER, Header, MAX_AREAS, VECTORS,
};

/// The most that a domain's memory has if nobody says how large it is to be, in bytes.
pub const DEFAULT_QUOTA: u64 = 256 << 20;

const PAGE: u64 = 4096;

/// A domain's memory cannot be divided as it would have to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum GeometryError {
    /// There cannot be so many guests.
    #[error("an ivshmem socket serves 1 to {MAX_AREAS} guests, not {found}")]
    Guests {
        /// How many were asked for.
        found: usize,
    },
    /// A size that no BAR can have.
    #[error("a memory for ivshmem has a power of two of bytes, 8192 at least; {found} is none")]
    Size {
        /// The size that was asked for, in bytes.
        found: u64,
    },
    /// It would be too large.
    #[error(
        "{areas} guests with {area_bytes} bytes each, and a header, take {needed} bytes of memory, \
         and there may be {quota}: give it a larger size, or let fewer guests in"
    )]
    Quota {
        /// How many guests share a memory.
        areas: usize,
        /// What each has, in bytes.
        area_bytes: u64,
        /// How large the memory would have to be, in bytes: a power of two.
        needed: u64,
        /// How large it may be, in bytes.
        quota: u64,
    },
}

/// How a domain's memory is divided.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Geometry {
    sections: [u64; Section::ALL.len()],
    areas: usize,
    area_bytes: u64,
    memory_bytes: u64,
}

impl Geometry {
    /// For sessions whose sections have so many bytes each, by their numbers, of `areas` guests. `memory_bytes` is how
    /// large the memory is to be; none: as large as it needs to be, [`DEFAULT_QUOTA`] at most.
    ///
    /// # Errors
    ///
    /// [`GeometryError`].
    pub fn new(
        sections: [u64; Section::ALL.len()],
        areas: usize,
        memory_bytes: Option<u64>,
    ) -> Result<Self, GeometryError> {
        if !(1..=MAX_AREAS).contains(&areas) {
            return Err(GeometryError::Guests { found: areas });
        }
        if let Some(found) = memory_bytes
            && (!found.is_power_of_two() || found < 2 * PAGE)
        {
            return Err(GeometryError::Size { found });
        }
        let quota = memory_bytes.unwrap_or(DEFAULT_QUOTA);
        // What overflows is more than any quota.
        let whole_pages = |bytes: u64| bytes.max(1).checked_next_multiple_of(PAGE);
        let area_bytes = sections
            .iter()
            .try_fold(AREA_PAGE_BYTES as u64, |sum, bytes| {
                sum.checked_add(whole_pages(*bytes)?)
            });
        let area_bytes = area_bytes.unwrap_or(u64::MAX);
        let needed = area_bytes
            .checked_mul(areas as u64)
            .and_then(|bytes| bytes.checked_add(HEADER_BYTES as u64))
            .and_then(u64::checked_next_power_of_two)
            .unwrap_or(u64::MAX);
        if needed > quota {
            return Err(GeometryError::Quota {
                areas,
                area_bytes,
                needed,
                quota,
            });
        }
        Ok(Self {
            sections,
            areas,
            area_bytes,
            memory_bytes: memory_bytes.unwrap_or(needed),
        })
    }

    /// How large the memory is, in bytes.
    pub fn memory_bytes(&self) -> u64 {
        self.memory_bytes
    }

    /// How many areas it has.
    pub fn areas(&self) -> usize {
        self.areas
    }

    /// What the memory's first page says while no guest is there.
    pub(super) fn header(&self, is_shared: bool) -> Header {
        let areas = (0..self.areas).map(|area| AreaPlace {
            peer: None,
            offset: self.area_at(area),
            bytes: self.area_bytes,
        });
        Header {
            is_shared,
            bytes: self.memory_bytes,
            host: HOST_PEER,
            vectors: VECTORS,
            areas: areas.collect(),
        }
    }

    pub(super) fn area_at(&self, area: usize) -> u64 {
        HEADER_BYTES as u64 + area as u64 * self.area_bytes
    }

    /// Where an area's sections start in the memory, and their lengths, in bytes.
    pub(super) fn sections(&self, area: usize) -> [(u64, u64); Section::ALL.len()] {
        let mut next = self.area_at(area) + AREA_PAGE_BYTES as u64;
        self.sections.map(|bytes| {
            let offset = next;
            next += bytes.max(1).next_multiple_of(PAGE);
            (offset, bytes)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_memory_is_a_power_of_two_within_its_quota() {
        let sections = [4096, 100, 3 * 4096, 4096];
        let one = Geometry::new(sections, 1, None).unwrap();
        // Header, words, and 1 + 1 + 3 + 1 pages.
        assert_eq!((one.area_bytes, one.memory_bytes()), (7 * 4096, 8 * 4096));
        let two = Geometry::new(sections, 2, None).unwrap();
        assert_eq!(two.memory_bytes(), 16 * 4096);
        let large = Geometry::new(sections, 2, Some(1 << 20)).unwrap();
        assert_eq!(large.memory_bytes(), 1 << 20);
        let placed = large.sections(1);
        let start = (1 + 7 + 1) * 4096;
        assert_eq!(
            placed,
            [
                (start, 4096),
                (start + 4096, 100),
                (start + 2 * 4096, 3 * 4096),
                (start + 5 * 4096, 4096)
            ]
        );

        let error = Geometry::new(sections, 2, Some(8 * 4096)).unwrap_err();
        assert_eq!(
            error.to_string(),
            "2 guests with 28672 bytes each, and a header, take 65536 bytes of memory, and there may be 32768: give it \
             a larger size, or let fewer guests in"
        );
        assert_eq!(
            Geometry::new([1 << 27; 4], 1, None),
            Err(GeometryError::Quota {
                areas: 1,
                area_bytes: (4 << 27) + 4096,
                needed: 1 << 30,
                quota: DEFAULT_QUOTA,
            })
        );
        for guests in [0, 65] {
            let error = GeometryError::Guests { found: guests };
            assert_eq!(Geometry::new(sections, guests, None), Err(error));
        }
        for size in [0, 4096, 3 << 20] {
            let error = GeometryError::Size { found: size };
            assert_eq!(Geometry::new(sections, 1, Some(size)), Err(error));
        }
        for huge in [u64::MAX, u64::MAX / 2, 1 << 62] {
            let error = Geometry::new([huge; 4], 64, None);
            assert!(matches!(error, Err(GeometryError::Quota { .. })));
        }
    }
}
