//! Regions of memory that a device shares (virtio 1.4, sections 2.10 and 4.1.4.7).

use std::io;

use shmbus_shm::{Mapped, Window};

use crate::pci::bars::Place;
use crate::pci::error::FunctionError;
use crate::pci::function::Function;

use super::device::VirtioPci;
use super::error::DeviceError;

impl<F: Function> VirtioPci<F> {
    /// Maps a region. What lies beside it in its first and last page is mapped too, and is not in the window.
    ///
    /// # Errors
    ///
    /// [`DeviceError::NoSharedMemory`], [`DeviceError::Function`].
    pub fn map_shared_memory(&self, id: u8) -> Result<Mapped, DeviceError> {
        let region = self.shared_memory().iter().find(|region| region.id == id);
        let Place { bar, offset, len } = region.ok_or(DeviceError::NoSharedMemory { id })?.place;
        let refused = |kind: io::ErrorKind| FunctionError::Map {
            bar,
            offset,
            len,
            source: kind.into(),
        };
        let page = rustix::param::page_size() as u64;
        let before = offset % page;
        let pages = (before + len)
            .checked_next_multiple_of(page)
            .ok_or_else(|| refused(io::ErrorKind::InvalidInput))?;
        let mapped = self.function().map(bar, offset - before, pages, true)?;
        let bytes = usize::try_from(len).map_err(|_| refused(io::ErrorKind::OutOfMemory))?;
        let window = mapped
            .narrow(before as usize, bytes)
            .map_err(|error| FunctionError::Map {
                bar,
                offset,
                len,
                source: io::Error::other(error),
            })?;
        Ok(window)
    }
}
