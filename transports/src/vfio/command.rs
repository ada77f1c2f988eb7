//! A function's command register (PCI Local Bus Specification 3.0, section 6.2.2).

use crate::pci::{AccessError, Registers};

/// Where it is in configuration space, in bytes.
const COMMAND: u64 = 4;

/// Lets the function answer accesses to its memory BARs.
pub(super) const MEMORY_SPACE: u16 = 1 << 1;
/// Lets the function access memory.
pub(super) const BUS_MASTER: u16 = 1 << 2;

/// Clears bits, and sets others.
pub(super) fn change<R: Registers>(config: &R, clear: u16, set: u16) -> Result<(), AccessError> {
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
