//! A region as the words of a directory entry.

use crate::region::{
    InvalidKind, MemoryId, PRIORITY_CLASSES, Permission, Placement, Purpose, Region, RegionId,
    RegionKind, Rights,
};
use crate::slot::ReadError;

/// Payload of an entry in 8-byte words: with the sequence word, a copy fills two 64-byte lines. The words behind those
/// that are in use are zero, and not looked at.
pub const ENTRY_WORDS: usize = 15;

/// A device or a channel that there is not.
const NONE: u32 = u32::MAX;

/// Regions start on a 64-byte line.
const LINE: u64 = 64;

/// An entry could not be read, or does not describe a region. Other entries are not affected.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EntryError {
    /// The entry could not be read as a whole. When it was changed too fast, it is reported again.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The kind, or its geometry, does not exist.
    #[error(transparent)]
    Kind(#[from] InvalidKind),
    /// The priority class does not exist.
    #[error("there is no priority class {class}; there are {PRIORITY_CLASSES}")]
    Class {
        /// What was found.
        class: u8,
    },
    /// A side's permission does not exist.
    #[error("there is no permission {number}")]
    Permission {
        /// What was found.
        number: u8,
    },
    /// A side would get more rights than the memory's section gives.
    #[error("{rights:?} are more rights than memory {memory:?} gives")]
    Rights {
        /// The memory.
        memory: MemoryId,
        /// What was found.
        rights: Rights,
    },
    /// The region is empty, does not start on a 64-byte line, or ends beyond what can be addressed.
    #[error("no region has {bytes} bytes at offset {offset:#x}")]
    Placement {
        /// Where it would start.
        offset: u64,
        /// How long it would be.
        bytes: u64,
    },
}

/// The words of an entry: of a region, or of a vacant place.
pub fn encode(region: Option<&Region>) -> [u64; ENTRY_WORDS] {
    let mut words = [0; ENTRY_WORDS];
    let Some(region) = region else {
        return words;
    };
    let Region {
        id,
        purpose,
        placement,
        epoch,
    } = region;
    let (kind, params) = purpose.kind.encode();
    words[0] = id.0;
    words[1] = u64::from(purpose.device.unwrap_or(NONE))
        | u64::from(purpose.role) << 32
        | u64::from(kind) << 48
        | u64::from(purpose.class) << 56;
    words[2] = u64::from(placement.memory.0) | u64::from(purpose.channel.unwrap_or(NONE)) << 32;
    words[3] = placement.offset;
    words[4] = placement.bytes;
    words[5] = params[0];
    words[6] = params[1];
    words[7] = *epoch;
    words[8] = purpose.rights.host as u64 | (purpose.rights.guest as u64) << 8;
    words
}

/// The region that an entry describes; `None` for a vacant place. The words may be a peer's.
///
/// That the region lies inside its memory is checked when that is mapped (`MemoryMap::window`). Regions of
/// different entries may overlap, if the writer is not honest.
///
/// # Errors
///
/// [`EntryError`].
pub fn decode(words: &[u64; ENTRY_WORDS]) -> Result<Option<Region>, EntryError> {
    if words[0] == 0 {
        return Ok(None);
    }
    let placement = Placement {
        memory: MemoryId(words[2] as u32),
        offset: words[3],
        bytes: words[4],
    };
    let Placement {
        memory,
        offset,
        bytes,
    } = placement;
    if bytes == 0 || !offset.is_multiple_of(LINE) || offset.checked_add(bytes).is_none() {
        return Err(EntryError::Placement { offset, bytes });
    }
    let class = (words[1] >> 56) as u8;
    if class >= PRIORITY_CLASSES {
        return Err(EntryError::Class { class });
    }
    let rights = Rights {
        host: permission(words[8] as u8)?,
        guest: permission((words[8] >> 8) as u8)?,
    };
    if !rights.within(memory.section().rights()) {
        return Err(EntryError::Rights { memory, rights });
    }
    let kind = RegionKind::decode((words[1] >> 48) as u8, [words[5], words[6]], bytes)?;
    Ok(Some(Region {
        id: RegionId(words[0]),
        purpose: Purpose {
            device: some(words[1] as u32),
            role: (words[1] >> 32) as u16,
            kind,
            class,
            rights,
            channel: some((words[2] >> 32) as u32),
        },
        placement,
        epoch: words[7],
    }))
}

fn permission(number: u8) -> Result<Permission, EntryError> {
    Permission::from_number(number).ok_or(EntryError::Permission { number })
}

fn some(number: u32) -> Option<u32> {
    (number != NONE).then_some(number)
}
