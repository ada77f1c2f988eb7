//! A chain of buffers, as the device got it.

use shmbus_shm::{Access, AddressError, AddressSpace, SharedBytes};

use super::Slices;
use crate::descriptor::{Buffer, MAX_CHAIN_BYTES, UsedElement, WRITE};
use crate::fault::ChainError;

/// What identifies a chain that was taken, and is given back to complete it. There is one for each chain taken, and
/// it cannot be copied, so a chain cannot be completed twice.
#[must_use = "a chain that is not completed is lost to the driver"]
#[derive(Debug, PartialEq, Eq)]
pub struct ChainHead {
    pub(crate) head: u16,
    /// Where it was taken from.
    pub(crate) position: u16,
    /// Of which life of the queue, between resets.
    pub(crate) life: u32,
    pub(crate) writable_bytes: u64,
}

impl ChainHead {
    /// By what the driver knows the chain: its first descriptor (split), or its buffer id (packed).
    pub fn index(&self) -> u16 {
        self.head
    }

    /// Where it was taken from, as [`Positions`](crate::Positions) counts.
    pub fn position(&self) -> u16 {
        self.position
    }

    /// How many of its bytes the device may write.
    pub fn writable_bytes(&self) -> u64 {
        self.writable_bytes
    }
}

/// A chain of buffers that a driver lent: device-readable ones, then device-writable ones.
///
/// Its descriptors were read from shared memory once and checked; `'s` is the scratch memory that holds them. Their
/// *addresses* are checked where they are used: by the [`AddressSpace`] that turns them into bytes.
#[derive(Debug, PartialEq, Eq)]
pub struct Chain<'s> {
    pub(crate) head: ChainHead,
    pub(crate) readable_bytes: u64,
    pub(crate) readable: &'s [Buffer],
    pub(crate) writable: &'s [Buffer],
}

impl<'s> Chain<'s> {
    #[inline(always)]
    pub(super) fn new(found: FoundChain, life: u32, segments: &'s [Buffer]) -> Self {
        let shape = found.shape;
        let (readable, rest) = segments.split_at(shape.readable);
        Self {
            head: ChainHead {
                head: found.head,
                position: found.position,
                life,
                writable_bytes: shape.writable_bytes,
            },
            readable_bytes: shape.readable_bytes,
            readable,
            writable: &rest[..shape.writable],
        }
    }

    /// By what the driver knows the chain: its first descriptor (split), or its buffer id (packed).
    pub fn index(&self) -> u16 {
        self.head.head
    }

    /// The device-readable buffers.
    pub fn readable(&self) -> &'s [Buffer] {
        self.readable
    }

    /// The device-writable buffers.
    pub fn writable(&self) -> &'s [Buffer] {
        self.writable
    }

    /// How many bytes the device may read.
    pub fn readable_bytes(&self) -> u64 {
        self.readable_bytes
    }

    /// How many bytes the device may write.
    pub fn writable_bytes(&self) -> u64 {
        self.head.writable_bytes
    }

    /// The readable buffers' bytes, piece by piece and in place.
    pub fn readable_slices<'a, A: AddressSpace>(&self, space: &'a A) -> Slices<'s, 'a, A> {
        Slices::new(space, self.readable, Access::Read)
    }

    /// The writable buffers' bytes, piece by piece and in place.
    pub fn writable_slices<'a, A: AddressSpace>(&self, space: &'a A) -> Slices<'s, 'a, A> {
        Slices::new(space, self.writable, Access::Write)
    }

    /// Copies readable bytes from `skip` on into `to`; returns how many: what both have.
    ///
    /// # Errors
    ///
    /// [`AddressError`] if a buffer on the way does not lie where it can be read.
    pub fn read(
        &self,
        space: &impl AddressSpace,
        mut skip: usize,
        to: &mut [u8],
    ) -> Result<usize, AddressError> {
        let mut done = 0;
        for slice in self.readable_slices(space) {
            if done == to.len() {
                break;
            }
            let slice = slice?;
            done += slice.copy_to(skip, &mut to[done..]);
            skip = skip.saturating_sub(slice.len());
        }
        Ok(done)
    }

    /// Copies `from` into the writable bytes from `skip` on; returns how many: what both have.
    ///
    /// # Errors
    ///
    /// [`AddressError`] if a buffer on the way does not lie where it can be written.
    pub fn write(
        &self,
        space: &impl AddressSpace,
        mut skip: usize,
        from: &[u8],
    ) -> Result<usize, AddressError> {
        let mut done = 0;
        for slice in self.writable_slices(space) {
            if done == from.len() {
                break;
            }
            let slice = slice?;
            done += slice.copy_from(skip, &from[done..]);
            skip = skip.saturating_sub(slice.len());
        }
        Ok(done)
    }

    /// What to complete the chain with once its buffers have been used: for devices that work on several chains at
    /// a time.
    pub fn into_head(self) -> ChainHead {
        self.head
    }
}

impl From<Chain<'_>> for ChainHead {
    fn from(chain: Chain<'_>) -> Self {
        chain.head
    }
}

/// A chain while it is walked: descriptor by descriptor into the caller's scratch memory.
#[derive(Debug)]
pub(crate) struct ChainBuilder<'b> {
    segments: &'b mut [Buffer],
    shape: ChainShape,
}

/// A chain that was found and walked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FoundChain {
    /// By what the driver knows it; below the queue's size.
    pub(crate) head: u16,
    pub(crate) position: u16,
    /// How many entries of the ring it takes up.
    pub(crate) entries: u16,
    pub(crate) shape: ChainShape,
}

/// A chain that the device is done with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Completed {
    /// By what the driver knows it; below the queue's size.
    pub(crate) head: u16,
    /// Where it was taken from.
    pub(crate) position: u16,
    /// How many entries of the ring it takes up.
    pub(crate) entries: u16,
    /// How many bytes were written to it.
    pub(crate) written: u32,
    /// Whether these are all of its writable bytes.
    pub(crate) completely: bool,
}

impl Completed {
    /// What the driver is told of it.
    #[inline(always)]
    pub(crate) fn element(self) -> UsedElement {
        UsedElement {
            id: u32::from(self.head),
            len: self.written,
        }
    }
}

/// What a walk found, apart from the buffers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct ChainShape {
    pub(crate) readable: usize,
    pub(crate) writable: usize,
    pub(crate) readable_bytes: u64,
    pub(crate) writable_bytes: u64,
}

impl ChainShape {
    /// A chain of one descriptor with these flags.
    #[inline(always)]
    pub(crate) fn of_one(buffer: Buffer, flags: u16) -> Self {
        let len = u64::from(buffer.len);
        if flags & WRITE != 0 {
            Self {
                writable: 1,
                writable_bytes: len,
                ..Self::default()
            }
        } else {
            Self {
                readable: 1,
                readable_bytes: len,
                ..Self::default()
            }
        }
    }
}

impl<'b> ChainBuilder<'b> {
    /// A chain of at most as many descriptors as the queue's `size` and `segments` both allow.
    #[inline(always)]
    pub(crate) fn new(segments: &'b mut [Buffer], size: u16) -> Self {
        let limit = segments.len().min(usize::from(size));
        Self {
            segments: &mut segments[..limit],
            shape: ChainShape::default(),
        }
    }

    /// Adds the descriptor that lies at `index` of its table.
    #[inline(always)]
    pub(crate) fn push(
        &mut self,
        index: u16,
        buffer: Buffer,
        flags: u16,
    ) -> Result<(), ChainError> {
        let limit = self.segments.len();
        let shape = &mut self.shape;
        let Some(segment) = self.segments.get_mut(shape.readable + shape.writable) else {
            return Err(ChainError::TooManyDescriptors { limit });
        };
        *segment = buffer;
        let len = u64::from(buffer.len);
        if flags & WRITE != 0 {
            shape.writable += 1;
            shape.writable_bytes += len;
        } else if shape.writable == 0 {
            shape.readable += 1;
            shape.readable_bytes += len;
        } else {
            return Err(ChainError::ReadableAfterWritable { descriptor: index });
        }
        Ok(())
    }

    #[inline(always)]
    pub(crate) fn finish(self) -> Result<ChainShape, ChainError> {
        // At most 32768 lengths of 32 bits each: the sums did not overflow.
        if self.shape.readable_bytes + self.shape.writable_bytes > MAX_CHAIN_BYTES {
            return Err(ChainError::TooManyBytes);
        }
        Ok(self.shape)
    }
}
