//! A function's command register (PCI Local Bus Specification 3.0, section 6.2.2).

use crate::pci::{AccessError, Registers};

/// Where it is in configuration space, in bytes.
const COMMAND: u64 = 4;

/// Lets the function answer accesses to its memory BARs.
const MEMORY_SPACE: u16 = 1 << 1;
/// Lets the function access memory.
const BUS_MASTER: u16 = 1 << 2;

/// Has the function answer accesses to its memory BARs.
pub(super) fn enable_memory_space<R: Registers>(config: &R) -> Result<(), AccessError> {
    change(config, 0, MEMORY_SPACE)
}

/// Lets the function access memory, or stops it.
pub(super) fn set_bus_master<R: Registers>(config: &R, enabled: bool) -> Result<(), AccessError> {
    let bit = |is_set: bool| if is_set { BUS_MASTER } else { 0 };
    change(config, bit(!enabled), bit(enabled))
}

/// Clears bits, and sets others.
fn change<R: Registers>(config: &R, clear: u16, set: u16) -> Result<(), AccessError> {
    let command = config.read_u16(COMMAND)?;
    config.write_u16(COMMAND, command & !clear | set)
}

/// The bytes to write at `offset` of configuration space instead of `bytes`: with the bit set without which an access to a
/// mapped BAR ends the process.
pub(super) fn keep_memory_space<const N: usize>(offset: u64, mut bytes: [u8; N]) -> [u8; N] {
    if let Some(at) = COMMAND.checked_sub(offset)
        && let Some(command) = bytes.get_mut(at as usize)
    {
        *command |= MEMORY_SPACE as u8;
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_space_stays_enabled_whatever_is_written() {
        assert_eq!(keep_memory_space(4, [4]), [6]);
        assert_eq!(keep_memory_space(4, [0, 0]), [2, 0]);
        assert_eq!(keep_memory_space(4, [0, 4, 0xff, 0xff]), [2, 4, 0xff, 0xff]);
        assert_eq!(keep_memory_space(0, [0; 4]), [0; 4]);
        assert_eq!(keep_memory_space(5, [0]), [0]);
        assert_eq!(keep_memory_space(6, [0, 0]), [0, 0]);
    }
}
