//! Telling a device that buffers are available (virtio 1.4, section 4.1.5.2).

use core::fmt;
use std::io;

use shmbus_signal::os::Wake;

use crate::pci::error::AccessError;
use crate::pci::function::Registers;

/// Notifies the device of one queue's buffers: a register write. It does not borrow the device, and may live in another
/// thread; once the device is reset, nobody listens to it.
#[derive(Debug)]
pub struct QueueNotifier<R> {
    registers: R,
    /// Where in the BAR; checked when it was made.
    offset: u64,
    /// The queue's number, or what the device wants to be told in its place.
    value: u16,
    carries_position: bool,
}

impl<R: Registers> QueueNotifier<R> {
    pub(super) fn new(registers: R, offset: u64, value: u16, carries_position: bool) -> Self {
        Self {
            registers,
            offset,
            value,
            carries_position,
        }
    }

    /// Whether notifications say how far the driver has come: `NOTIFICATION_DATA` is negotiated.
    pub fn carries_position(&self) -> bool {
        self.carries_position
    }

    /// Notifies the device. `available` is where the driver makes the next entry available: in a split ring the
    /// available index, in a packed one the offset in bits 0 to 14 and the wrap counter in bit 15. The device is told
    /// it only if [`carries_position`](Self::carries_position).
    ///
    /// # Errors
    ///
    /// [`AccessError`].
    pub fn notify(&self, available: u16) -> Result<(), AccessError> {
        if self.carries_position {
            let word = u32::from(available) << 16 | u32::from(self.value);
            self.registers.write_u32(self.offset, word)
        } else {
            self.registers.write_u16(self.offset, self.value)
        }
    }
}

impl<R: Registers + fmt::Debug> Wake for QueueNotifier<R> {
    /// Notifies the device, where notifications carry no position; otherwise that is
    /// [`unsupported`](io::ErrorKind::Unsupported), since nobody says here what it would be.
    fn wake(&self) -> io::Result<()> {
        if self.carries_position {
            return Err(io::ErrorKind::Unsupported.into());
        }
        self.notify(0).map_err(io::Error::other)
    }
}
