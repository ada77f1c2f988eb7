//! One of the structures that a device shows in its BARs.

use crate::pci::bars::Place;
use crate::pci::error::AccessError;
use crate::pci::function::Registers;

/// Registers at offsets from a structure's start; none outside it is accessed.
#[derive(Debug)]
pub(super) struct Structure<R> {
    registers: R,
    place: Place,
}

impl<R: Registers> Structure<R> {
    /// The structure at `place`, which lies inside the BAR that `registers` are.
    pub(super) fn new(registers: R, place: Place) -> Self {
        Self { registers, place }
    }

    pub(super) fn len(&self) -> u64 {
        self.place.len
    }

    /// Where `bytes` bytes at `offset` are in the BAR.
    fn at(&self, offset: u64, bytes: u64) -> Result<u64, AccessError> {
        let Place {
            offset: start, len, ..
        } = self.place;
        match offset.checked_add(bytes) {
            Some(end) if end <= len => Ok(start + offset),
            _ => Err(AccessError::OutOfBounds { offset, bytes, len }),
        }
    }

    pub(super) fn read_u8(&self, offset: u64) -> Result<u8, AccessError> {
        self.registers.read_u8(self.at(offset, 1)?)
    }

    pub(super) fn read_u16(&self, offset: u64) -> Result<u16, AccessError> {
        self.registers.read_u16(self.at(offset, 2)?)
    }

    pub(super) fn read_u32(&self, offset: u64) -> Result<u32, AccessError> {
        self.registers.read_u32(self.at(offset, 4)?)
    }

    pub(super) fn write_u8(&self, offset: u64, value: u8) -> Result<(), AccessError> {
        self.registers.write_u8(self.at(offset, 1)?, value)
    }

    pub(super) fn write_u16(&self, offset: u64, value: u16) -> Result<(), AccessError> {
        self.registers.write_u16(self.at(offset, 2)?, value)
    }

    pub(super) fn write_u32(&self, offset: u64, value: u32) -> Result<(), AccessError> {
        self.registers.write_u32(self.at(offset, 4)?, value)
    }
}
