//! The window over plain memory. All of the crate's pointer accesses are in this module.
#![allow(unsafe_code)]

mod copy;
mod pair;

use core::fmt;
use core::marker::PhantomData;
use core::ptr::NonNull;
use core::sync::atomic::{AtomicU16, AtomicU32, AtomicU64, Ordering};

use crate::scope::{Scope, Smp};
use crate::window::{FenceScope, MemoryType, Window, WindowError, Word, prove};

pub(crate) mod sealed {
    /// The atomic accesses of a word; sealed, so that there are no others.
    pub trait AtomicWord: Sized {
        /// # Safety
        ///
        /// `at` is valid for atomic reads and aligned.
        unsafe fn load(at: *mut u8, order: super::Ordering) -> Self;
        /// # Safety
        ///
        /// `at` is valid for atomic writes and aligned.
        unsafe fn store(at: *mut u8, value: Self, order: super::Ordering);
    }
}

macro_rules! atomic_word {
    ($($word:ty: $atomic:ty),*) => {$(
        impl sealed::AtomicWord for $word {
            #[inline(always)]
            unsafe fn load(at: *mut u8, order: Ordering) -> Self {
                // SAFETY: the caller's contract.
                unsafe { <$atomic>::from_ptr(at.cast()) }.load(order)
            }

            #[inline(always)]
            unsafe fn store(at: *mut u8, value: Self, order: Ordering) {
                // SAFETY: the caller's contract.
                unsafe { <$atomic>::from_ptr(at.cast()) }.store(value, order)
            }
        }
    )*};
}
atomic_word!(u16: AtomicU16, u32: AtomicU32, u64: AtomicU64);

/// A window over memory in this address space: mapped, registered or on the heap.
///
/// `S` is the fence scope, a type so that it costs no branch. `K` keeps the memory there: the last clone that is
/// dropped drops it. Without an allocator `K` is `()`, and the memory outlives the window by the caller's promise.
pub struct Raw<S = Smp, K = ()> {
    base: NonNull<u8>,
    len: usize,
    memory_type: MemoryType,
    keep: K,
    scope: PhantomData<S>,
}

impl<S: Scope, K> Raw<S, K> {
    /// A window on the `len` bytes at `base`.
    ///
    /// # Safety
    ///
    /// The bytes stay mapped, readable, and writable if this window is written to, until `keep` and all its clones
    /// are dropped. Whoever else accesses them in this process does so through windows or as foreign code; nobody
    /// holds a reference into them.
    pub unsafe fn new(base: NonNull<u8>, len: usize, memory_type: MemoryType, keep: K) -> Self {
        Self {
            base,
            len,
            memory_type,
            keep,
            scope: PhantomData,
        }
    }

    /// The same window with more to keep: what `wrap` makes must keep the memory there as the old `keep` did.
    ///
    /// # Safety
    ///
    /// The memory stays as [`Raw::new`] demands until what `wrap` returned and all its clones are dropped.
    #[cfg(feature = "std")]
    pub(crate) unsafe fn rekept<L>(self, wrap: impl FnOnce(K) -> L) -> Raw<S, L> {
        Raw {
            base: self.base,
            len: self.len,
            memory_type: self.memory_type,
            keep: wrap(self.keep),
            scope: PhantomData,
        }
    }

    /// Where the window starts in this address space, for interfaces that take addresses (`VFIO_IOMMU_MAP_DMA`).
    pub fn as_ptr(&self) -> NonNull<u8> {
        self.base
    }
}

// SAFETY: the window is a pointer to memory that other processes access concurrently anyway; all accesses are atomic
// or made by code that allows for races. What keeps it alive must itself be sendable.
unsafe impl<S, K: Send> Send for Raw<S, K> {}
// SAFETY: as for `Send`.
unsafe impl<S, K: Sync> Sync for Raw<S, K> {}

impl<S, K: Clone> Clone for Raw<S, K> {
    fn clone(&self) -> Self {
        Self {
            base: self.base,
            len: self.len,
            memory_type: self.memory_type,
            keep: self.keep.clone(),
            scope: PhantomData,
        }
    }
}

impl<S, K> fmt::Debug for Raw<S, K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Raw")
            .field("base", &self.base)
            .field("len", &self.len)
            .field("memory_type", &self.memory_type)
            .finish_non_exhaustive()
    }
}

// SAFETY: `base` and `len` never change; accesses inside them are sound by the promise made to `new`.
unsafe impl<S: Scope, K: Clone> Window for Raw<S, K> {
    #[inline(always)]
    fn len(&self) -> usize {
        self.len
    }

    fn is_aligned(&self, offset: usize, alignment: usize) -> bool {
        self.base
            .as_ptr()
            .addr()
            .wrapping_add(offset)
            .is_multiple_of(alignment)
    }

    fn memory_type(&self) -> MemoryType {
        self.memory_type
    }

    fn fence_scope(&self) -> FenceScope {
        S::SCOPE
    }

    /// The promise is one for cached memory.
    fn has_pairs(&self) -> bool {
        self.memory_type == MemoryType::Ordinary && pair::are_promised()
    }

    fn narrow(&self, offset: usize, bytes: usize) -> Result<Self, WindowError> {
        prove(self, offset, bytes, 1)?;
        Ok(Self {
            // SAFETY: `offset` lies inside the same mapping.
            base: unsafe { self.base.add(offset) },
            len: bytes,
            memory_type: self.memory_type,
            keep: self.keep.clone(),
            scope: PhantomData,
        })
    }

    #[inline(always)]
    fn fence(&self, order: Ordering) {
        S::fence(order);
    }

    #[inline(always)]
    unsafe fn load<T: Word>(&self, offset: usize, order: Ordering) -> T {
        debug_assert!(offset + T::BYTES <= self.len);
        // SAFETY: the caller keeps the word inside the window, which `new` promised to be valid.
        S::load_with(order, |order| unsafe {
            T::load(self.base.as_ptr().add(offset), order)
        })
    }

    #[inline(always)]
    unsafe fn store<T: Word>(&self, offset: usize, value: T, order: Ordering) {
        debug_assert!(offset + T::BYTES <= self.len);
        // SAFETY: as in `load`.
        S::store_with(order, |order| unsafe {
            T::store(self.base.as_ptr().add(offset), value, order)
        })
    }

    #[inline(always)]
    unsafe fn load_pair(&self, offset: usize) -> [u64; 2] {
        debug_assert!(offset + 16 <= self.len);
        // SAFETY: the caller keeps the pair inside the window, and aligned.
        unsafe { pair::load(self.base.as_ptr().add(offset)) }
    }

    #[inline(always)]
    unsafe fn store_pair(&self, offset: usize, pair: [u64; 2]) {
        debug_assert!(offset + 16 <= self.len);
        // SAFETY: the caller keeps the pair inside the window, and aligned.
        unsafe { pair::store(self.base.as_ptr().add(offset), pair) }
    }

    #[inline(always)]
    unsafe fn load_words(&self, offset: usize, to: &mut [u64]) {
        // SAFETY: the caller keeps the words inside the window.
        unsafe { copy::words_out(self.base.as_ptr().add(offset), to, self.memory_type) }
    }

    #[inline(always)]
    unsafe fn store_words(&self, offset: usize, from: &[u64]) {
        // SAFETY: the caller keeps the words inside the window.
        unsafe { copy::words_in(self.base.as_ptr().add(offset), from, self.memory_type) }
    }

    #[inline]
    unsafe fn load_bytes(&self, offset: usize, to: &mut [u8]) {
        // SAFETY: the caller keeps the bytes inside the window.
        unsafe { copy::bytes_out(self.base.as_ptr().add(offset), to) }
    }

    #[inline]
    unsafe fn store_bytes(&self, offset: usize, from: &[u8]) {
        // SAFETY: the caller keeps the bytes inside the window.
        unsafe { copy::bytes_in(self.base.as_ptr().add(offset), from) }
    }
}
