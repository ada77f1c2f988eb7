//! Fence scopes: between processors, or between processors and devices.
#![allow(unsafe_code)]

use core::sync::atomic::Ordering;

use crate::window::FenceScope;

mod sealed {
    pub trait Sealed {}
}

/// How far a window's ordering reaches. A type, so that choosing it costs nothing at run time.
pub trait Scope: sealed::Sealed + Copy + Send + Sync + 'static {
    /// The scope as a value.
    const SCOPE: FenceScope;
    /// A fence of this scope.
    fn fence(order: Ordering);
    /// Makes a load with `order`; `load` gets the order that the instruction itself needs.
    fn load_with<T>(order: Ordering, load: impl FnOnce(Ordering) -> T) -> T;
    /// Makes a store with `order`; `store` gets the order that the instruction itself needs.
    fn store_with(order: Ordering, store: impl FnOnce(Ordering));
}

/// Acquires by a fence behind a relaxed load. The memory may be mapped read-only, and there only relaxed loads of a
/// register's width are sure to be plain loads (the documentation of `core::sync::atomic`, "atomic accesses to
/// read-only memory"). A fence orders no less than the load would.
#[inline(always)]
fn acquire_by_fence<T>(order: Ordering, load: impl FnOnce(Ordering) -> T) -> T {
    if order != Ordering::Acquire {
        return load(order);
    }
    let value = load(Ordering::Relaxed);
    core::sync::atomic::fence(Ordering::Acquire);
    value
}

/// `fence(SeqCst)`. On x86-64 the compiler makes MFENCE of it, which also waits for what no memory of ours needs:
/// non-temporal and uncached accesses. A locked instruction orders ordinary memory as well (Intel's manual, volume 3,
/// 9.2.3.9; AMD's, volume 2, 7.4.2), in a third of the time; Linux's `smp_mb` is one too.
#[inline(always)]
fn full_fence() {
    #[cfg(all(target_arch = "x86_64", not(miri), not(shmbus_forced_words)))]
    // SAFETY: adds nothing to a word below the stack's end, which nobody else looks at. As assembly without `nomem` it is a
    // compiler barrier too.
    unsafe {
        core::arch::asm!("lock or dword ptr [rsp - 64], 0", options(nostack));
    }
    #[cfg(not(all(target_arch = "x86_64", not(miri), not(shmbus_forced_words))))]
    core::sync::atomic::fence(Ordering::SeqCst);
}

/// Both sides run on processors: the language's own ordering does.
#[derive(Clone, Copy, Debug)]
pub struct Smp;

impl sealed::Sealed for Smp {}

impl Scope for Smp {
    const SCOPE: FenceScope = FenceScope::Smp;

    #[inline(always)]
    fn fence(order: Ordering) {
        match order {
            Ordering::SeqCst => full_fence(),
            _ => core::sync::atomic::fence(order),
        }
    }

    #[inline(always)]
    fn load_with<T>(order: Ordering, load: impl FnOnce(Ordering) -> T) -> T {
        acquire_by_fence(order, load)
    }

    #[inline(always)]
    fn store_with(order: Ordering, store: impl FnOnce(Ordering)) {
        store(order);
    }
}

/// The other side is a device that accesses memory by DMA.
///
/// On aarch64 the language's fences reach the inner shareable domain only, and a device may sit in the outer one, so
/// every ordered access gets an explicit outer-shareable barrier. On x86-64 coherent memory is ordered the same for
/// devices as for processors. Other machines are not supported: the type does not exist there. What the rings make of it
/// on aarch64 is looked at in assembly (`cargo xtask test --only barriers`).
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
#[derive(Clone, Copy, Debug)]
pub struct Dma;

#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
impl sealed::Sealed for Dma {}

#[cfg(target_arch = "x86_64")]
impl Scope for Dma {
    const SCOPE: FenceScope = FenceScope::Dma;

    #[inline(always)]
    fn fence(order: Ordering) {
        core::sync::atomic::fence(order);
    }

    #[inline(always)]
    fn load_with<T>(order: Ordering, load: impl FnOnce(Ordering) -> T) -> T {
        Smp::load_with(order, load)
    }

    #[inline(always)]
    fn store_with(order: Ordering, store: impl FnOnce(Ordering)) {
        Smp::store_with(order, store);
    }
}

#[cfg(target_arch = "aarch64")]
impl Scope for Dma {
    const SCOPE: FenceScope = FenceScope::Dma;

    #[inline(always)]
    fn fence(order: Ordering) {
        // Only loads need be ordered to acquire; releasing orders earlier loads as well as stores.
        match order {
            Ordering::Acquire => barrier::oshld(),
            _ => barrier::osh(),
        }
    }

    #[inline(always)]
    fn load_with<T>(order: Ordering, load: impl FnOnce(Ordering) -> T) -> T {
        let value = load(Ordering::Relaxed);
        match order {
            Ordering::Relaxed => {}
            _ => barrier::oshld(),
        }
        value
    }

    #[inline(always)]
    fn store_with(order: Ordering, store: impl FnOnce(Ordering)) {
        match order {
            Ordering::Relaxed => {}
            _ => barrier::osh(),
        }
        store(Ordering::Relaxed);
    }
}

#[cfg(target_arch = "aarch64")]
mod barrier {
    #[inline(always)]
    pub(super) fn oshld() {
        // SAFETY: a barrier has no operands.
        unsafe { core::arch::asm!("dmb oshld", options(nostack, preserves_flags)) }
    }

    #[inline(always)]
    pub(super) fn osh() {
        // SAFETY: a barrier has no operands.
        unsafe { core::arch::asm!("dmb osh", options(nostack, preserves_flags)) }
    }
}
