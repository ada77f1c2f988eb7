//! Addresses that are offsets into one window.

use super::{Access, AddressError, AddressSpace};
use crate::field::Bytes;
use crate::window::Window;

/// An address space whose addresses are offsets from the start of a window, as in virtio's shared-memory regions.
///
/// ```
/// use shmbus_shm::{Access, AddressError, AddressSpace, OffsetSpace, SharedBytes, heap};
///
/// # fn main() -> Result<(), AddressError> {
/// let space = OffsetSpace::new(heap(4096));
/// let buffer = space.translate(512, 4, Access::Write)?;
/// assert_eq!(buffer.copy_from(0, b"ping"), 4);
///
/// assert!(space.translate(4094, 4, Access::Read).is_err());
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct OffsetSpace<W> {
    window: W,
    writable: bool,
}

impl<W: Window> OffsetSpace<W> {
    /// The offsets into `window`, for reading and writing.
    pub fn new(window: W) -> Self {
        Self {
            window,
            writable: true,
        }
    }

    /// The offsets into `window`, which is mapped for reading only.
    pub fn read_only(window: W) -> Self {
        Self {
            window,
            writable: false,
        }
    }

    /// The window that the addresses are offsets into.
    pub fn window(&self) -> &W {
        &self.window
    }
}

impl<W: Window> AddressSpace for OffsetSpace<W> {
    type Slice<'a>
        = Bytes<'a, W>
    where
        Self: 'a;

    fn translate<'a>(
        &'a self,
        address: u64,
        len: u32,
        access: Access,
    ) -> Result<Bytes<'a, W>, AddressError> {
        if len == 0 {
            return Err(AddressError::Empty { address });
        }
        let unmapped = AddressError::Unmapped { address, len };
        let offset = usize::try_from(address).map_err(|_| unmapped)?;
        let bytes = usize::try_from(len).map_err(|_| unmapped)?;
        let slice = Bytes::new(&self.window, offset, bytes).map_err(|_| unmapped)?;
        if access.writes() && !self.writable {
            return Err(AddressError::Denied {
                address,
                len,
                access,
            });
        }
        Ok(slice)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::heap;

    #[test]
    fn a_range_lies_inside_or_is_refused() {
        let space = OffsetSpace::new(heap(64));
        assert_eq!(space.translate(0, 64, Access::ReadWrite).unwrap().len(), 64);
        assert_eq!(space.translate(63, 1, Access::Read).unwrap().len(), 1);
        for (address, len) in [
            (64, 1),
            (63, 2),
            (0, 65),
            (u64::MAX, 1),
            (u64::MAX, u32::MAX),
        ] {
            assert_eq!(
                space.translate(address, len, Access::Read).unwrap_err(),
                AddressError::Unmapped { address, len }
            );
        }
        assert_eq!(
            space.translate(8, 0, Access::Read).unwrap_err(),
            AddressError::Empty { address: 8 }
        );
    }

    #[test]
    fn writing_to_what_is_mapped_read_only_is_refused() {
        let space = OffsetSpace::read_only(heap(64));
        assert!(space.translate(0, 8, Access::Read).is_ok());
        for access in [Access::Write, Access::ReadWrite] {
            assert_eq!(
                space.translate(0, 8, access).unwrap_err(),
                AddressError::Denied {
                    address: 0,
                    len: 8,
                    access
                }
            );
        }
    }
}
