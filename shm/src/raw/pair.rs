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
mod vector {
    use core::arch::x86_64::{__cpuid, __m128i};
    use core::mem::transmute;
    use core::sync::atomic::{AtomicU8, Ordering::Relaxed};

    /// Intel, AMD and two names of Zhaoxin's: what leaf 0 says in ebx, edx and ecx.
    const VENDORS: [&[u8; 12]; 4] = [
        b"GenuineIntel",
        b"AuthenticAMD",
        b"CentaurHauls",
        b"  Shanghai  ",
    ];

    /// In leaf 1, ecx.
    const AVX: u32 = 1 << 28;
    const HYPERVISOR: u32 = 1 << 31;

    const HYPERVISOR_LEAF: u32 = 0x4000_0000;

    /// QEMU's emulator, in ebx, ecx and edx.
    const EMULATOR: &[u8; 12] = b"TCGTCGTCGTCG";

    fn name(words: [u32; 3]) -> [u8; 12] {
        let mut name = [0; 12];
        for (bytes, word) in name.chunks_exact_mut(4).zip(words) {
            bytes.copy_from_slice(&word.to_le_bytes());
        }
        name
    }

    /// What the processor says is asked for once: in a virtual machine each question costs microseconds.
    pub(super) fn are_promised() -> bool {
        const UNKNOWN: u8 = 2;
        static ANSWER: AtomicU8 = AtomicU8::new(UNKNOWN);
        match ANSWER.load(Relaxed) {
            UNKNOWN => {
                let answer = ask();
                ANSWER.store(answer.into(), Relaxed);
                answer
            }
            answer => answer == 1,
        }
    }

    fn ask() -> bool {
        let vendor = __cpuid(0);
        let features = __cpuid(1).ecx;
        let hypervisor = (features & HYPERVISOR != 0).then(|| {
            let leaf = __cpuid(HYPERVISOR_LEAF);
            name([leaf.ebx, leaf.ecx, leaf.edx])
        });
        judge(
            name([vendor.ebx, vendor.edx, vendor.ecx]),
            features,
            hypervisor,
        )
    }

    /// By the vendor's name, the features in leaf 1, ecx, and the hypervisor's name.
    pub(super) fn judge(vendor: [u8; 12], features: u32, hypervisor: Option<[u8; 12]>) -> bool {
        VENDORS.contains(&&vendor) && features & AVX != 0 && hypervisor.as_ref() != Some(EMULATOR)
    }

    #[inline(always)]
    pub(super) unsafe fn load(from: *const u8) -> [u64; 2] {
        let pair: __m128i;
        // SAFETY: the caller gives a valid, aligned address of 16 bytes. Without `nomem` it is a compiler barrier too.
        unsafe {
            core::arch::asm!(
                "movdqa {pair}, xmmword ptr [{from}]",
                pair = out(xmm_reg) pair,
                from = in(reg) from,
                options(nostack, preserves_flags),
            );
        }
        // SAFETY: both are sixteen bytes that may be anything.
        unsafe { transmute(pair) }
    }

    #[inline(always)]
    pub(super) unsafe fn store(to: *mut u8, pair: [u64; 2]) {
        // SAFETY: both are sixteen bytes that may be anything.
        let pair: __m128i = unsafe { transmute(pair) };
        // SAFETY: as in `load`.
        unsafe {
            core::arch::asm!(
                "movdqa xmmword ptr [{to}], {pair}",
                pair = in(xmm_reg) pair,
                to = in(reg) to,
                options(nostack, preserves_flags),
            );
        }
    }

    #[cfg(test)]
    mod tests {
        use super::*;

        #[test]
        fn only_who_promised_is_believed() {
            for vendor in VENDORS {
                assert!(judge(*vendor, AVX, None));
                assert!(judge(*vendor, AVX | HYPERVISOR, Some(*b"KVMKVMKVM\0\0\0")));
                assert!(!judge(*vendor, AVX | HYPERVISOR, Some(*EMULATOR)));
                assert!(!judge(*vendor, !AVX, None));
            }
            assert!(!judge(*b"HygonGenuine", AVX, None));
            assert_eq!(ask(), are_promised());
        }
    }
}

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
