//! The header of a configuration space: what the function is (PCI local bus specification 3.0, section 6.1).

use core::fmt;

use super::address::Identity;
use super::config_error::ConfigError;
use super::function::Registers;

/// What kind of device a function is, by PCI's classes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Class {
    /// The class: 2 is a network controller.
    pub base: u8,
    /// Its subclass.
    pub sub: u8,
    /// The programming interface.
    pub interface: u8,
}

impl fmt::Display for Class {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:02x}{:02x}{:02x}", self.base, self.sub, self.interface)
    }
}

/// What a function is, by its own account.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// Its vendor and its model.
    pub identity: Identity,
    /// The vendor of the board or the virtual machine; 0 in a bridge.
    pub subsystem_vendor: u16,
    /// Its numbering of boards.
    pub subsystem: u16,
    /// What kind of device it is.
    pub class: Class,
    /// The device's revision.
    pub revision: u8,
}

const VENDOR: u64 = 0x00;
const DEVICE: u64 = 0x02;
const REVISION: u64 = 0x08;
const INTERFACE: u64 = 0x09;
const SUB_CLASS: u64 = 0x0a;
const BASE_CLASS: u64 = 0x0b;
const HEADER_TYPE: u64 = 0x0e;
const SUBSYSTEM_VENDOR: u64 = 0x2c;
const SUBSYSTEM: u64 = 0x2e;
/// Of [`HEADER_TYPE`]: the device has several functions.
const MULTIFUNCTION: u8 = 0x80;

/// The type of the header: 0 is an endpoint's, 1 a bridge's.
pub(super) fn header_type<R: Registers>(config: &R) -> Result<u8, ConfigError> {
    Ok(config.read_u8(HEADER_TYPE)? & !MULTIFUNCTION)
}

impl Header {
    /// Reads it from a configuration space.
    ///
    /// # Errors
    ///
    /// [`ConfigError::NoFunction`], [`ConfigError::Access`].
    pub fn read<R: Registers>(config: &R) -> Result<Self, ConfigError> {
        let vendor = config.read_u16(VENDOR)?;
        if vendor == u16::MAX {
            return Err(ConfigError::NoFunction);
        }
        let (subsystem_vendor, subsystem) = if header_type(config)? == 0 {
            (
                config.read_u16(SUBSYSTEM_VENDOR)?,
                config.read_u16(SUBSYSTEM)?,
            )
        } else {
            (0, 0)
        };
        Ok(Self {
            identity: Identity {
                vendor,
                device: config.read_u16(DEVICE)?,
            },
            subsystem_vendor,
            subsystem,
            class: Class {
                base: config.read_u8(BASE_CLASS)?,
                sub: config.read_u8(SUB_CLASS)?,
                interface: config.read_u8(INTERFACE)?,
            },
            revision: config.read_u8(REVISION)?,
        })
    }
}
