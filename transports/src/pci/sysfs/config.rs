//! A configuration space as it was when it was read.

use std::io;

use crate::pci::error::AccessError;
use crate::pci::function::Registers;

/// A copy of a configuration space. Writing to it is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigSnapshot {
    bytes: Vec<u8>,
}

impl ConfigSnapshot {
    pub(super) fn new(bytes: Vec<u8>) -> Self {
        Self { bytes }
    }

    fn read<const N: usize>(&self, offset: u64) -> Result<[u8; N], AccessError> {
        let bytes = N as u64;
        if !offset.is_multiple_of(bytes) {
            return Err(AccessError::Misaligned { offset, bytes });
        }
        let found = usize::try_from(offset)
            .ok()
            .and_then(|start| self.bytes.get(start..start.checked_add(N)?));
        found
            .and_then(|found| found.try_into().ok())
            .ok_or(AccessError::OutOfBounds {
                offset,
                bytes,
                len: self.len(),
            })
    }
}

fn refused(offset: u64, bytes: u64) -> AccessError {
    AccessError::Io {
        offset,
        bytes,
        source: io::ErrorKind::ReadOnlyFilesystem.into(),
    }
}

impl Registers for ConfigSnapshot {
    fn len(&self) -> u64 {
        self.bytes.len() as u64
    }

    fn read_u8(&self, offset: u64) -> Result<u8, AccessError> {
        self.read(offset).map(u8::from_le_bytes)
    }

    fn read_u16(&self, offset: u64) -> Result<u16, AccessError> {
        self.read(offset).map(u16::from_le_bytes)
    }

    fn read_u32(&self, offset: u64) -> Result<u32, AccessError> {
        self.read(offset).map(u32::from_le_bytes)
    }

    fn write_u8(&self, offset: u64, _: u8) -> Result<(), AccessError> {
        Err(refused(offset, 1))
    }

    fn write_u16(&self, offset: u64, _: u16) -> Result<(), AccessError> {
        Err(refused(offset, 2))
    }

    fn write_u32(&self, offset: u64, _: u32) -> Result<(), AccessError> {
        Err(refused(offset, 4))
    }
}
