//! Windows that own what they look at.
#![allow(unsafe_code)]

use core::ptr::NonNull;
use core::sync::atomic::AtomicU64;
use std::any::Any;
use std::sync::Arc;

use crate::raw::Raw;
use crate::scope::Smp;
use crate::window::MemoryType;

/// What keeps the memory of a [`Mapped`] window there: a mapping, an allocation, a lease on a region. The last window
/// that is dropped drops it.
pub type Keep = Arc<dyn Any + Send + Sync>;

/// A window that shares in owning its mapping.
pub type Mapped = Raw<Smp, Keep>;

impl Mapped {
    /// The same window, which also keeps `lease`: the last window cloned or narrowed from it drops it.
    #[must_use]
    pub fn leased<L: Any + Send + Sync>(self, lease: L) -> Self {
        // SAFETY: the old keep is part of the new one.
        unsafe { self.rekept(|keep| Arc::new((keep, lease)) as Keep) }
    }
}

/// A zeroed window of `len` bytes on the heap, aligned to 8 bytes: for tests, and for two sides in one process.
pub fn heap(len: usize) -> Mapped {
    let words: Arc<Vec<AtomicU64>> =
        Arc::new((0..len.div_ceil(8)).map(|_| AtomicU64::new(0)).collect());
    let base = NonNull::from(words.as_slice()).cast();
    // SAFETY: `keep` owns the words, which nobody else refers to; atomics may be written through a shared reference.
    unsafe { Mapped::new(base, len, MemoryType::Ordinary, words) }
}
