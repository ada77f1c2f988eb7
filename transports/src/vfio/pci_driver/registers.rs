//! Registers that pci-driver reaches.

use std::io;
use std::sync::Arc;

use pci_driver::backends::vfio::VfioPciDevice;
use pci_driver::device::PciDevice;
use pci_driver::regions::{MappedOwningPciRegion, OwningPciRegion, PciRegion};

use crate::pci::{AccessError, Registers};

use super::super::command::keep_memory_space;
use super::super::registers::check;

/// Registers of a function that pci-driver opened. They keep the function open.
#[derive(Debug)]
pub struct PciDriverRegisters {
    reached: Reached,
    len: u64,
}

/// How registers are reached.
#[derive(Debug)]
enum Reached {
    /// By system calls, which say what fails.
    Configuration(Arc<VfioPciDevice>),
    /// The same for a BAR.
    Descriptor(OwningPciRegion),
    /// By loads and stores, as fast as the function is.
    Mapped(MappedOwningPciRegion),
}

impl PciDriverRegisters {
    pub(super) fn configuration(device: Arc<VfioPciDevice>) -> Self {
        Self {
            len: PciRegion::len(&device.config()),
            reached: Reached::Configuration(device),
        }
    }

    pub(super) fn descriptor(region: OwningPciRegion) -> Self {
        Self {
            len: PciRegion::len(&region),
            reached: Reached::Descriptor(region),
        }
    }

    pub(super) fn mapped(region: MappedOwningPciRegion) -> Self {
        Self {
            len: PciRegion::len(&region),
            reached: Reached::Mapped(region),
        }
    }

    /// Whether accesses are loads and stores instead of system calls.
    pub fn are_mapped(&self) -> bool {
        matches!(self.reached, Reached::Mapped(_))
    }

    /// Makes an access, once it is checked: sums of offsets are not, in pci-driver.
    fn access<T>(
        &self,
        offset: u64,
        bytes: u64,
        access: impl FnOnce(&dyn PciRegion) -> io::Result<T>,
    ) -> Result<T, AccessError> {
        check(offset, bytes, self.len)?;
        let done = match &self.reached {
            Reached::Configuration(device) => access(&device.config()),
            Reached::Descriptor(region) => access(region),
            Reached::Mapped(region) => access(region),
        };
        done.map_err(|source| AccessError::Io {
            offset,
            bytes,
            source,
        })
    }

    /// What is written instead of `value`.
    fn kept<const N: usize>(&self, offset: u64, value: [u8; N]) -> [u8; N] {
        match self.reached {
            Reached::Configuration(_) => keep_memory_space(offset, value),
            _ => value,
        }
    }
}

impl Registers for PciDriverRegisters {
    fn len(&self) -> u64 {
        self.len
    }

    fn read_u8(&self, offset: u64) -> Result<u8, AccessError> {
        self.access(offset, 1, |region| region.read_u8(offset))
    }

    fn read_u16(&self, offset: u64) -> Result<u16, AccessError> {
        self.access(offset, 2, |region| region.read_le_u16(offset))
    }

    fn read_u32(&self, offset: u64) -> Result<u32, AccessError> {
        self.access(offset, 4, |region| region.read_le_u32(offset))
    }

    fn write_u8(&self, offset: u64, value: u8) -> Result<(), AccessError> {
        let [value] = self.kept(offset, [value]);
        self.access(offset, 1, |region| region.write_u8(offset, value))
    }

    fn write_u16(&self, offset: u64, value: u16) -> Result<(), AccessError> {
        let value = u16::from_le_bytes(self.kept(offset, value.to_le_bytes()));
        self.access(offset, 2, |region| region.write_le_u16(offset, value))
    }

    fn write_u32(&self, offset: u64, value: u32) -> Result<(), AccessError> {
        let value = u32::from_le_bytes(self.kept(offset, value.to_le_bytes()));
        self.access(offset, 4, |region| region.write_le_u32(offset, value))
    }
}
