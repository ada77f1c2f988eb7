//! Sixteen bytes loaded or stored at once.
//!
//! Only vector moves do that on memory that may be mapped read-only: `cmpxchg16b` writes, also when it changes nothing. That an
//! aligned one is not taken apart was promised late, and for processors with AVX: by Intel (Software Developer's Manual,
//! volume 3, "Guaranteed Atomic Operations"), AMD (AMD64 Architecture Programmer's Manual, volume 2, 7.3.2 "Access Atomicity")
//! and Zhaoxin (GCC's bug 104688); by the latter two for cached memory only. It is promised of the instructions of SSE too.
//!
//! An emulator may report a processor's vendor and AVX, and carry moves out in halves. QEMU's does, and says its name where
//! hypervisors do. On aarch64, FEAT_LSE2 is such a promise, but nothing there tells an emulator from a processor: no pairs.

/// Whether the processor promises that the moves of this module are done at once, in cached memory.
#[inline]
pub(super) fn are_promised() -> bool {
    vector::are_promised()
}

/// # Safety
///
/// `from` is valid for 16 bytes, and aligned to 16; pairs are promised.
#[inline(always)]
pub(super) unsafe fn load(from: *const u8) -> [u64; 2] {
    // SAFETY: the caller's contract.
    unsafe { vector::load(from) }
}

/// # Safety
///
/// As for [`load`].
#[inline(always)]
pub(super) unsafe fn store(to: *mut u8, pair: [u64; 2]) {
    // SAFETY: the caller's contract.
    unsafe { vector::store(to, pair) }
}

#[cfg(all(
    target_arch = "x86_64",
    target_feature = "sse2",
    not(miri),
    not(shmbus_forced_words)
))]
mod vector;

/// Where nothing is promised. In Rust's memory model there is no such access, so also under Miri and with forced words.
#[cfg(not(all(
    target_arch = "x86_64",
    target_feature = "sse2",
    not(miri),
    not(shmbus_forced_words)
)))]
mod vector {
    use core::sync::atomic::Ordering::Relaxed;

    use crate::raw::sealed::AtomicWord;

    pub(super) fn are_promised() -> bool {
        false
    }

    /// Never called: in halves, and so sound.
    pub(super) unsafe fn load(from: *const u8) -> [u64; 2] {
        let from = from.cast_mut();
        // SAFETY: the caller gives a valid, aligned address of 16 bytes.
        unsafe {
            [
                AtomicWord::load(from, Relaxed),
                AtomicWord::load(from.add(8), Relaxed),
            ]
        }
    }

    /// Never called: in halves, and so sound.
    pub(super) unsafe fn store(to: *mut u8, pair: [u64; 2]) {
        // SAFETY: as in `load`.
        unsafe {
            AtomicWord::store(to, pair[0], Relaxed);
            AtomicWord::store(to.add(8), pair[1], Relaxed);
        }
    }
}
