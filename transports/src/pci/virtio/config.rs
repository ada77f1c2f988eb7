//! The configuration of a device's type, field by field.

use super::structure::Structure;
use crate::pci::error::AccessError;
use crate::pci::function::Registers;

/// The device configuration during one read of it. Each field is accessed at its own width, as virtio demands (section
/// 4.1.3.1), so there is a method for each.
///
/// # Errors
///
/// Each access: [`AccessError`], among them that the field lies behind the structure's end.
#[derive(Debug)]
pub struct DeviceConfig<'a, R>(pub(super) &'a Structure<R>);

#[allow(clippy::missing_errors_doc)] // said once, above
impl<R: Registers> DeviceConfig<'_, R> {
    /// How long it is, in bytes: 1 to 4,096.
    pub fn len(&self) -> u64 {
        self.0.len()
    }

    /// Never: a device without configuration has no such structure.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// A field of one byte.
    pub fn read_u8(&self, offset: u64) -> Result<u8, AccessError> {
        self.0.read_u8(offset)
    }

    /// A field of two bytes.
    pub fn read_u16(&self, offset: u64) -> Result<u16, AccessError> {
        self.0.read_u16(offset)
    }

    /// A field of four bytes.
    pub fn read_u32(&self, offset: u64) -> Result<u32, AccessError> {
        self.0.read_u32(offset)
    }

    /// A field of eight bytes, in two halves.
    pub fn read_u64(&self, offset: u64) -> Result<u64, AccessError> {
        let low = self.0.read_u32(offset)?;
        let high = self.0.read_u32(offset.saturating_add(4))?;
        Ok(u64::from(high) << 32 | u64::from(low))
    }

    /// An array of bytes, such as a MAC address.
    pub fn read_bytes<const N: usize>(&self, offset: u64) -> Result<[u8; N], AccessError> {
        let mut bytes = [0; N];
        for (index, byte) in (0..).zip(&mut bytes) {
            *byte = self.0.read_u8(offset.saturating_add(index))?;
        }
        Ok(bytes)
    }

    /// Writes a field of one byte.
    pub fn write_u8(&self, offset: u64, value: u8) -> Result<(), AccessError> {
        self.0.write_u8(offset, value)
    }

    /// Writes a field of two bytes.
    pub fn write_u16(&self, offset: u64, value: u16) -> Result<(), AccessError> {
        self.0.write_u16(offset, value)
    }

    /// Writes a field of four bytes.
    pub fn write_u32(&self, offset: u64, value: u32) -> Result<(), AccessError> {
        self.0.write_u32(offset, value)
    }
}
