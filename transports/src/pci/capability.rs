//! The list of capabilities in a configuration space (PCI local bus specification 3.0, section 6.7).

use super::config_error::ConfigError;
use super::function::Registers;

/// A capability of a function.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capability {
    /// Its kind.
    pub id: u8,
    /// Where it is in configuration space, in bytes: 0x40 or above, a multiple of 4.
    pub at: u8,
}

const STATUS: u64 = 0x06;
/// Of [`STATUS`]: there is a list.
const HAS_LIST: u16 = 1 << 4;
const LIST: u8 = 0x34;
/// What is below belongs to the header.
const FIRST: u8 = 0x40;

impl Capability {
    /// Message signalled interrupts, with a table of them.
    pub const MSIX: u8 = 0x11;
    /// The vendor's own, among them virtio's.
    pub const VENDOR: u8 = 0x09;

    /// The capabilities, in the order of the list.
    ///
    /// The walk ends, whatever the function says: each place is visited once. The lowest two bits of a pointer are
    /// reserved, and not looked at.
    ///
    /// # Errors
    ///
    /// [`ConfigError::CapabilityPointer`], [`ConfigError::CapabilityLoop`], [`ConfigError::Access`].
    pub fn read_all<R: Registers>(config: &R) -> Result<Vec<Self>, ConfigError> {
        let mut capabilities = Vec::new();
        if config.read_u16(STATUS)? & HAS_LIST == 0 {
            return Ok(capabilities);
        }
        // One bit for each aligned offset of the 256 bytes.
        let mut visited = 0_u64;
        let mut pointer = LIST;
        loop {
            let at = config.read_u8(u64::from(pointer))? & !0b11;
            if at == 0 {
                return Ok(capabilities);
            }
            if at < FIRST {
                return Err(ConfigError::CapabilityPointer {
                    at: pointer,
                    found: at,
                });
            }
            let bit = 1 << (at / 4);
            if visited & bit != 0 {
                return Err(ConfigError::CapabilityLoop {
                    at: pointer,
                    found: at,
                });
            }
            visited |= bit;
            let id = config.read_u8(u64::from(at))?;
            capabilities.push(Self { id, at });
            pointer = at + 1;
        }
    }
}
