//! The sections of a session, as a guest finds them in its memory.

use shmbus_shm::{Mapped, MemoryId, Section, Window};

use super::super::layout::{AREA_PAGE_BYTES, AreaPlace, Terms};
use super::error::AttachError;

/// A section's memory. The mapping lets this side write all of them, whoever it is that should.
#[derive(Clone, Debug)]
pub struct SectionWindow {
    /// The name by which the directory refers to it.
    pub id: MemoryId,
    /// The epoch of the memory that it stands for.
    pub epoch: u64,
    /// Its bytes.
    pub window: Mapped,
}

/// Windows on the sections, each within the guest's own area, behind the words, and apart from the others: a host must not be able to
/// have the guest write into another guest's area, or read its own writing for the host's.
pub(super) fn sections(
    memory: &Mapped,
    area: AreaPlace,
    terms: &Terms,
) -> Result<Vec<SectionWindow>, AttachError> {
    let first = area.offset + AREA_PAGE_BYTES as u64;
    let end = area.offset + area.bytes;
    let mut taken: Vec<(u64, u64)> = Vec::with_capacity(Section::ALL.len());
    let mut windows = Vec::with_capacity(Section::ALL.len());
    for section in Section::ALL {
        // Within the memory: the terms were checked for that, so that no end overflows.
        let place = terms.section(section);
        let (offset, bytes) = (place.offset, place.bytes);
        let wrong = |problem| AttachError::Section {
            section,
            offset,
            bytes,
            problem,
        };
        if offset < first || offset + bytes > end {
            return Err(wrong("lie outside of the guest's area"));
        }
        let overlaps = |(from, to): &(u64, u64)| offset < *to && *from < offset + bytes;
        if taken.iter().any(overlaps) {
            return Err(wrong("overlap another section"));
        }
        taken.push((offset, offset + bytes));
        let window = memory
            .narrow(offset as usize, bytes as usize)
            .map_err(|_| wrong("lie outside of the memory"))?;
        windows.push(SectionWindow {
            id: MemoryId::new(section, 0),
            epoch: place.epoch,
            window,
        });
    }
    Ok(windows)
}
