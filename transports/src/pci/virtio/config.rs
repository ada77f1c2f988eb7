//! The configuration of a device's type, field by field.

use crate::pci::error::AccessError;
use crate::pci::function::{Function, Registers};

use super::capability::StructureKind;
use super::device::{Stage, VirtioPci};
use super::error::{DeviceError, LayoutError};
use super::structure::Structure;

/// How often the configuration is read anew because it changed meanwhile.
const CONFIG_TRIES: u32 = 64;

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

const NO_CONFIGURATION: DeviceError = DeviceError::Layout(LayoutError::Missing {
    kind: StructureKind::Device,
});

impl<F: Function> VirtioPci<F> {
    /// Reads its configuration as it was at one moment: `read` is called again if it changed meanwhile, a bounded
    /// number of times.
    ///
    /// # Errors
    ///
    /// [`DeviceError::Unsettled`], [`DeviceError::Layout`] if it has none, and what `read` says.
    pub fn read_config<T>(
        &mut self,
        read: impl Fn(&DeviceConfig<'_, F::Registers>) -> Result<T, AccessError>,
    ) -> Result<T, DeviceError> {
        self.expect(
            &[Stage::Reset, Stage::Configuring, Stage::Live],
            "read its configuration",
        )?;
        self.latching(|device| {
            let config = device.config.as_ref().ok_or(NO_CONFIGURATION)?;
            let mut before = device.common.generation()?;
            for _ in 0..CONFIG_TRIES {
                let value = read(&DeviceConfig(config))?;
                let after = device.common.generation()?;
                if after == before {
                    return Ok(value);
                }
                before = after;
            }
            let tries = CONFIG_TRIES;
            Err(DeviceError::Unsettled { tries })
        })
    }

    /// Writes fields of its configuration, of which few can be written.
    ///
    /// # Errors
    ///
    /// [`DeviceError::Layout`] if it has none, and what `write` says.
    pub fn write_config(
        &mut self,
        write: impl FnOnce(&DeviceConfig<'_, F::Registers>) -> Result<(), AccessError>,
    ) -> Result<(), DeviceError> {
        self.expect(
            &[Stage::Configuring, Stage::Live],
            "write its configuration",
        )?;
        self.latching(|device| {
            let config = device.config.as_ref().ok_or(NO_CONFIGURATION)?;
            Ok(write(&DeviceConfig(config))?)
        })
    }
}
