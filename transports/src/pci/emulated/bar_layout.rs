//! Where the emulated device's registers really are, whatever it claims.

use core::ops::Range;

/// All structures of registers lie in this BAR.
pub(super) const REGISTERS: u8 = 4;
pub(super) const REGISTERS_BYTES: u64 = 0x4000;
pub(super) const COMMON: Range<u64> = 0..0x40;
pub(super) const ISR: Range<u64> = 0x1000..0x1001;
pub(super) const DEVICE: Range<u64> = 0x2000..0x3000;
pub(super) const NOTIFY: Range<u64> = 0x3000..0x4000;

/// The MSI-X table and its pending bits.
pub(super) const MSIX: u8 = 1;
pub(super) const MSIX_BYTES: u64 = 0x1000;
pub(super) const PENDING_OFFSET: u32 = 0x800;

/// Shared memory.
pub(super) const SHARED: u8 = 2;
pub(super) const SHARED_BYTES: u64 = 0x1_0000;
