//! The one way that algorithms touch shared memory.
#![allow(unsafe_code)]

use core::fmt;
use core::sync::atomic::Ordering;

use crate::raw::sealed::AtomicWord;

/// A value that one aligned, single-copy atomic access loads or stores: `u16`, `u32` or `u64`.
///
/// Values are in the machine's byte order; shmbus supports little-endian machines only, which is virtio's order too.
pub trait Word: AtomicWord + Copy + Eq + fmt::Debug + Into<u64> + Send + Sync + 'static {
    /// Size, and required alignment, in bytes.
    const BYTES: usize;

    /// The low bits of `value`.
    fn truncate(value: u64) -> Self;
}

macro_rules! word {
    ($($word:ty),*) => {$(
        impl Word for $word {
            const BYTES: usize = size_of::<$word>();

            #[inline(always)]
            fn truncate(value: u64) -> Self {
                value as $word
            }
        }
    )*};
}
word!(u16, u32, u64);

/// What kind of memory lies behind a window. Write-combining mappings are refused: their stores are neither ordered
/// nor timely, and no algorithm here survives that.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MemoryType {
    /// Cached, coherent memory.
    Ordinary,
    /// Uncached device memory, such as a BAR: every access has its own width and is not merged.
    Device,
}

/// Among whom a window's accesses are ordered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FenceScope {
    /// The processors that run both sides (virtio's default ordering).
    Smp,
    /// Processors and devices that access memory by DMA (`VIRTIO_F_ORDER_PLATFORM`).
    Dma,
}

/// A range does not lie inside a window, or is not aligned as its access needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WindowError {
    /// The range ends behind the window.
    #[error("{bytes} bytes at offset {offset:#x} do not lie inside a window of {len} bytes")]
    OutOfBounds {
        /// Where the range starts, in bytes from the window's start.
        offset: usize,
        /// How long the range is, in bytes.
        bytes: usize,
        /// How long the window is, in bytes.
        len: usize,
    },
    /// The range starts at an address that the access width does not divide.
    #[error("offset {offset:#x} is not aligned to {alignment} bytes")]
    Misaligned {
        /// Where the range starts, in bytes from the window's start.
        offset: usize,
        /// The alignment that was expected, in bytes.
        alignment: usize,
    },
    /// An array whose index wraps must have a power of two entries.
    #[error("{count} entries are not a power of two")]
    NotPowerOfTwo {
        /// How many entries were asked for.
        count: usize,
    },
    /// The processor does not promise that 16 bytes are loaded or stored at once, or not in this memory.
    #[error("this machine does not promise to load and store 16 bytes at once here")]
    NoPairs,
}

/// A bounded piece of memory that a peer may read and write at any moment.
///
/// The algorithms of shmbus are generic over this trait: they run unchanged on mapped memory, on loom's model of the
/// C11 memory model, on memory that a hostile peer changes between any two loads, and on memory whose writer dies.
///
/// The accessors are unsafe because they do not check bounds. Algorithms never call them: they carve a
/// [`Field`](crate::Field), [`Entries`](crate::Entries), [`Records`](crate::Records) or [`Bytes`](crate::Bytes) once,
/// which proves the bounds, and use its safe accessors. A clone refers to the same memory, and keeps it mapped.
///
/// # Safety
///
/// `len`, `is_aligned` and `has_pairs` never change their answers during the life of a window and its clones, and every access
/// that meets the accessors' contracts is sound, whatever the peer does meanwhile.
pub unsafe trait Window: Clone {
    /// Length in bytes.
    fn len(&self) -> usize;

    /// Whether the window has no bytes.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether the address of byte `offset` is a multiple of `alignment` (a power of two, at most 4096).
    fn is_aligned(&self, offset: usize, alignment: usize) -> bool;

    /// What kind of memory this is.
    fn memory_type(&self) -> MemoryType {
        MemoryType::Ordinary
    }

    /// Among whom accesses and fences are ordered.
    fn fence_scope(&self) -> FenceScope {
        FenceScope::Smp
    }

    /// Whether [`Window::load_pair`] and [`Window::store_pair`] access 16 bytes at once, so that nobody finds halves of two
    /// stores.
    fn has_pairs(&self) -> bool {
        false
    }

    /// The `bytes` bytes from `offset` on as a window of their own.
    ///
    /// # Errors
    ///
    /// [`WindowError::OutOfBounds`].
    fn narrow(&self, offset: usize, bytes: usize) -> Result<Self, WindowError>;

    /// Orders this thread's accesses, within [`Window::fence_scope`].
    fn fence(&self, order: Ordering);

    /// Loads one word.
    ///
    /// # Safety
    ///
    /// `offset + T::BYTES <= len()`, and `is_aligned(offset, T::BYTES)`.
    unsafe fn load<T: Word>(&self, offset: usize, order: Ordering) -> T;

    /// Stores one word.
    ///
    /// # Safety
    ///
    /// As for [`Window::load`].
    unsafe fn store<T: Word>(&self, offset: usize, value: T, order: Ordering);

    /// Loads two words at once, unordered.
    ///
    /// # Safety
    ///
    /// `has_pairs()`, `offset + 16 <= len()`, and `is_aligned(offset, 16)`.
    unsafe fn load_pair(&self, offset: usize) -> [u64; 2] {
        let mut pair = [0; 2];
        // SAFETY: the caller's contract covers both words.
        unsafe { self.load_words(offset, &mut pair) };
        pair
    }

    /// Stores two words at once, unordered.
    ///
    /// # Safety
    ///
    /// As for [`Window::load_pair`].
    unsafe fn store_pair(&self, offset: usize, pair: [u64; 2]) {
        // SAFETY: the caller's contract covers both words.
        unsafe { self.store_words(offset, &pair) }
    }

    /// Loads consecutive `u64` words, unordered: what a slot's payload is read with.
    ///
    /// # Safety
    ///
    /// `offset + 8 * to.len() <= len()`, and `is_aligned(offset, 8)`.
    unsafe fn load_words(&self, offset: usize, to: &mut [u64]) {
        for (index, word) in to.iter_mut().enumerate() {
            // SAFETY: the caller's contract covers every word of the range.
            *word = unsafe { self.load(offset + 8 * index, Ordering::Relaxed) };
        }
    }

    /// Stores consecutive `u64` words, unordered.
    ///
    /// # Safety
    ///
    /// As for [`Window::load_words`].
    unsafe fn store_words(&self, offset: usize, from: &[u64]) {
        for (index, word) in from.iter().enumerate() {
            // SAFETY: the caller's contract covers every word of the range.
            unsafe { self.store(offset + 8 * index, *word, Ordering::Relaxed) };
        }
    }

    /// Copies bytes out, unordered and at any alignment: for buffers, which are only ever accessed as bytes.
    ///
    /// # Safety
    ///
    /// `offset + to.len() <= len()`.
    unsafe fn load_bytes(&self, offset: usize, to: &mut [u8]);

    /// Copies bytes in, unordered and at any alignment.
    ///
    /// # Safety
    ///
    /// `offset + from.len() <= len()`.
    unsafe fn store_bytes(&self, offset: usize, from: &[u8]);
}

/// Checks that a range lies inside a window and is aligned.
pub(crate) fn prove<W: Window>(
    window: &W,
    offset: usize,
    bytes: usize,
    alignment: usize,
) -> Result<(), WindowError> {
    let len = window.len();
    if offset.checked_add(bytes).is_none_or(|end| end > len) {
        return Err(WindowError::OutOfBounds { offset, bytes, len });
    }
    if !window.is_aligned(offset, alignment) {
        return Err(WindowError::Misaligned { offset, alignment });
    }
    Ok(())
}
