//! Buffers as bytes in place.

use core::slice;

use shmbus_shm::{Access, AddressError, AddressSpace, SharedBytes};

use crate::descriptor::Buffer;

/// The bytes of buffers, in order, as contiguous pieces of the address space they lie in: an iterator that copies and
/// allocates nothing. It ends after the first error.
#[derive(Debug)]
pub struct Slices<'s, 'a, A> {
    space: &'a A,
    access: Access,
    buffers: slice::Iter<'s, Buffer>,
    /// What is left of the buffer that is being translated: one may lie in several pieces.
    rest: Buffer,
}

impl<'s, 'a, A: AddressSpace> Slices<'s, 'a, A> {
    pub(super) fn new(space: &'a A, buffers: &'s [Buffer], access: Access) -> Self {
        Self {
            space,
            access,
            buffers: buffers.iter(),
            rest: Buffer::default(),
        }
    }
}

impl<'a, A: AddressSpace> Iterator for Slices<'_, 'a, A> {
    type Item = Result<A::Slice<'a>, AddressError>;

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        while self.rest.len == 0 {
            self.rest = *self.buffers.next()?;
        }
        let Buffer { address, len } = self.rest;
        let piece = next_piece(self.space, address, len, self.access);
        match &piece {
            Ok(piece) => {
                let bytes = piece.len() as u32;
                self.rest = Buffer::new(address.wrapping_add(u64::from(bytes)), len - bytes);
            }
            Err(_) => {
                self.buffers = [].iter();
                self.rest = Buffer::default();
            }
        }
        Some(piece)
    }
}

/// The first piece of a range, held to what address spaces promise: 1 to `len` bytes. So whoever goes on from piece to
/// piece comes to an end.
#[inline(always)]
pub(crate) fn next_piece<A: AddressSpace>(
    space: &A,
    address: u64,
    len: u32,
    access: Access,
) -> Result<A::Slice<'_>, AddressError> {
    let piece = space.translate(address, len, access)?;
    if piece.is_empty() || piece.len() > len as usize {
        return Err(AddressError::Unmapped { address, len });
    }
    Ok(piece)
}
