//! Registers behind a device's descriptor, or mapped.

use core::sync::atomic::Ordering::Relaxed;
use std::fmt;
use std::io;
use std::sync::Arc;

use rustix::io::{pread, pwrite};
use shmbus_shm::{Bytes, Entries, Mapped, WindowError};

use crate::pci::{AccessError, Registers};

use super::command::keep_memory_space;
use super::function::Device;
use super::region::Region;
use super::request;

/// Registers of a function that vfio-ioctls opened. They keep the function open.
pub struct VfioRegisters {
    /// Before the device: its group cannot be given back as long as something is mapped.
    reached: Reached,
    region: Region,
    device: Arc<Device>,
}

/// How registers are reached.
enum Reached {
    /// By system calls, which say what fails.
    Configuration,
    /// The same for a BAR.
    Descriptor,
    /// By loads and stores, as fast as the function is.
    Mapped(Words),
}

/// A mapped BAR, carved for each width.
struct Words {
    window: Mapped,
    halves: Entries<u16, Mapped>,
    words: Entries<u32, Mapped>,
}

impl VfioRegisters {
    pub(super) fn configuration(device: Arc<Device>, region: Region) -> Self {
        let reached = Reached::Configuration;
        Self {
            device,
            region,
            reached,
        }
    }

    pub(super) fn descriptor(device: Arc<Device>, region: Region) -> Self {
        let reached = Reached::Descriptor;
        Self {
            device,
            region,
            reached,
        }
    }

    /// Over a mapping of the whole region, whose size is a power of two as a BAR's is.
    pub(super) fn mapped(
        device: Arc<Device>,
        region: Region,
        window: Mapped,
    ) -> Result<Self, WindowError> {
        let len = shmbus_shm::Window::len(&window);
        let words = Words {
            halves: Entries::new(&window, 0, len / 2)?,
            words: Entries::new(&window, 0, len / 4)?,
            window,
        };
        Ok(Self {
            device,
            region,
            reached: Reached::Mapped(words),
        })
    }

    /// Whether accesses are loads and stores instead of system calls.
    pub fn are_mapped(&self) -> bool {
        matches!(self.reached, Reached::Mapped(_))
    }

    fn read<const N: usize>(&self, offset: u64) -> Result<[u8; N], AccessError> {
        let mut value = [0; N];
        let fd = request::descriptor(&self.device.vfio);
        let done = pread(fd, &mut value, self.region.start + offset);
        complete(done, offset, N).map(|()| value)
    }

    fn write<const N: usize>(&self, offset: u64, mut value: [u8; N]) -> Result<(), AccessError> {
        if matches!(self.reached, Reached::Configuration) {
            value = keep_memory_space(offset, value);
        }
        let fd = request::descriptor(&self.device.vfio);
        let done = pwrite(fd, &value, self.region.start + offset);
        complete(done, offset, N)
    }
}

/// Checks an access that may have come from the function, before it is made.
pub(super) fn check(offset: u64, bytes: u64, len: u64) -> Result<(), AccessError> {
    if offset.checked_add(bytes).is_none_or(|end| end > len) {
        return Err(AccessError::OutOfBounds { offset, bytes, len });
    }
    if !offset.is_multiple_of(bytes) {
        return Err(AccessError::Misaligned { offset, bytes });
    }
    Ok(())
}

/// An access is made as a whole, or not.
fn complete(done: rustix::io::Result<usize>, offset: u64, bytes: usize) -> Result<(), AccessError> {
    let source = match done {
        Ok(count) if count == bytes => return Ok(()),
        Ok(_) => io::ErrorKind::UnexpectedEof.into(),
        Err(error) => error.into(),
    };
    Err(AccessError::Io {
        offset,
        bytes: bytes as u64,
        source,
    })
}

impl Registers for VfioRegisters {
    fn len(&self) -> u64 {
        self.region.len
    }

    fn read_u8(&self, offset: u64) -> Result<u8, AccessError> {
        check(offset, 1, self.region.len)?;
        let Reached::Mapped(mapped) = &self.reached else {
            return self.read(offset).map(u8::from_le_bytes);
        };
        let mut value = [0];
        mapped.byte(offset).map(|byte| byte.copy_to(0, &mut value));
        Ok(value[0])
    }

    fn read_u16(&self, offset: u64) -> Result<u16, AccessError> {
        check(offset, 2, self.region.len)?;
        match &self.reached {
            Reached::Mapped(mapped) => Ok(mapped.halves.load(offset as usize / 2, Relaxed)),
            _ => self.read(offset).map(u16::from_le_bytes),
        }
    }

    fn read_u32(&self, offset: u64) -> Result<u32, AccessError> {
        check(offset, 4, self.region.len)?;
        match &self.reached {
            Reached::Mapped(mapped) => Ok(mapped.words.load(offset as usize / 4, Relaxed)),
            _ => self.read(offset).map(u32::from_le_bytes),
        }
    }

    fn write_u8(&self, offset: u64, value: u8) -> Result<(), AccessError> {
        check(offset, 1, self.region.len)?;
        let Reached::Mapped(mapped) = &self.reached else {
            return self.write(offset, value.to_le_bytes());
        };
        mapped.byte(offset).map(|byte| byte.copy_from(0, &[value]));
        Ok(())
    }

    fn write_u16(&self, offset: u64, value: u16) -> Result<(), AccessError> {
        check(offset, 2, self.region.len)?;
        match &self.reached {
            Reached::Mapped(mapped) => {
                mapped.halves.store(offset as usize / 2, value, Relaxed);
                Ok(())
            }
            _ => self.write(offset, value.to_le_bytes()),
        }
    }

    fn write_u32(&self, offset: u64, value: u32) -> Result<(), AccessError> {
        check(offset, 4, self.region.len)?;
        match &self.reached {
            Reached::Mapped(mapped) => {
                mapped.words.store(offset as usize / 4, value, Relaxed);
                Ok(())
            }
            _ => self.write(offset, value.to_le_bytes()),
        }
    }
}

impl Words {
    /// One byte; it is there, since the offset was checked against the region, all of which is mapped.
    fn byte(&self, offset: u64) -> Option<Bytes<'_, Mapped>> {
        Bytes::new(&self.window, offset as usize, 1).ok()
    }
}

impl fmt::Debug for VfioRegisters {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("VfioRegisters")
            .field("function", &self.device.address)
            .field("region", &self.region)
            .field("are_mapped", &self.are_mapped())
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accesses_are_checked_before_they_are_made() {
        assert!(check(0xfc, 4, 0x100).is_ok());
        for (offset, bytes) in [
            (0x100, 1),
            (0xff, 2),
            (0xfe, 4),
            (u64::MAX, 1),
            (u64::MAX - 3, 4),
        ] {
            let refused = check(offset, bytes, 0x100).unwrap_err();
            assert!(
                matches!(refused, AccessError::OutOfBounds { len: 0x100, .. }),
                "{refused}"
            );
        }
        for (offset, bytes) in [(1, 2), (2, 4), (0xfb, 2)] {
            assert!(matches!(
                check(offset, bytes, 0x100),
                Err(AccessError::Misaligned { .. })
            ));
        }
        assert!(check(0, 1, 0).is_err());
    }

    #[test]
    fn an_access_that_is_cut_short_has_failed() {
        assert!(complete(Ok(4), 0x10, 4).is_ok());
        for done in [Ok(0), Ok(3), Err(rustix::io::Errno::IO)] {
            assert!(matches!(
                complete(done, 0x10, 4),
                Err(AccessError::Io {
                    offset: 0x10,
                    bytes: 4,
                    ..
                })
            ));
        }
    }
}
