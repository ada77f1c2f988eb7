//! Address spaces: how the addresses that a peer writes into descriptors become bytes that may be touched.

mod error;
#[cfg(feature = "vm-memory")]
mod guest;
mod offset;

use crate::field::Bytes;
use crate::window::Window;

pub use error::AddressError;
#[cfg(feature = "vm-memory")]
pub use guest::{GuestBytes, GuestSpace};
pub use offset::OffsetSpace;

/// What the side that translates an address is about to do with the bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Read them (a device, with a device-readable buffer).
    Read,
    /// Write them (a device, with a device-writable buffer).
    Write,
    /// Both (the areas of a ring).
    ReadWrite,
}

impl Access {
    /// Whether bytes will be read.
    pub fn reads(self) -> bool {
        matches!(self, Access::Read | Access::ReadWrite)
    }

    /// Whether bytes will be written.
    pub fn writes(self) -> bool {
        matches!(self, Access::Write | Access::ReadWrite)
    }
}

/// Bytes that a peer may change at any moment: copied in and out, never borrowed.
///
/// Writing to bytes that were translated for [`Access::Read`] only is a mistake of the caller: read-only mappings
/// answer it with a fault of the process.
pub trait SharedBytes {
    /// Length in bytes.
    fn len(&self) -> usize;

    /// Whether there are no bytes.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Copies bytes from `skip` on into `to`; returns how many: what both have.
    fn copy_to(&self, skip: usize, to: &mut [u8]) -> usize;

    /// Copies `from` into the bytes from `skip` on; returns how many: what both have.
    fn copy_from(&self, skip: usize, from: &[u8]) -> usize;
}

impl<W: Window> SharedBytes for Bytes<'_, W> {
    fn len(&self) -> usize {
        Bytes::len(self)
    }

    fn copy_to(&self, skip: usize, to: &mut [u8]) -> usize {
        Bytes::copy_to(self, skip, to)
    }

    fn copy_from(&self, skip: usize, from: &[u8]) -> usize {
        Bytes::copy_from(self, skip, from)
    }
}

/// Turns a peer's addresses into bytes: offsets into a region, guest-physical addresses, or addresses behind an IOMMU.
///
/// Both the address and the length come from the peer: every implementation checks them, and panics at none.
pub trait AddressSpace {
    /// The bytes behind a translated range.
    type Slice<'a>: SharedBytes
    where
        Self: 'a;

    /// The first contiguous piece, 1 to `len` bytes long, of the `len` bytes at `address`. A range may lie in
    /// several pieces: the caller translates the rest in turn.
    ///
    /// # Errors
    ///
    /// [`AddressError`] if a byte of the piece, or of the whole range where that is known at once, is not there or
    /// may not be accessed so.
    fn translate<'a>(
        &'a self,
        address: u64,
        len: u32,
        access: Access,
    ) -> Result<Self::Slice<'a>, AddressError>;
}

impl<S: AddressSpace + ?Sized> AddressSpace for &S {
    type Slice<'a>
        = S::Slice<'a>
    where
        Self: 'a;

    fn translate<'a>(
        &'a self,
        address: u64,
        len: u32,
        access: Access,
    ) -> Result<Self::Slice<'a>, AddressError> {
        (**self).translate(address, len, access)
    }
}
