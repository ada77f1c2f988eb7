//! Vector moves, and who promises what of them.

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
