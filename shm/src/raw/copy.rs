//! Bulk copies to and from memory that a peer may be changing.
//!
//! In Rust's memory model such a copy must be made of atomic accesses of one width. The forced-word build
//! (`--cfg shmbus_forced_words`, always under Miri) does exactly that, and so does every processor but x86-64. There, the
//! ordinary build copies with assembly, which the compiler does not look into:
//!
//! - *bytes* by moves of up to 8 bytes, which the model may take for relaxed accesses to each byte in any order (buffers are
//!   accessed as bytes only); one atomic byte at a time takes seven times as long at 64 bytes;
//! - *words* by moves of 16 bytes on the shared side, from and to vector registers. Private words, which the caller may have
//!   written just before, are loaded by 8 bytes each: a wider load would have to wait for such stores;
//! - large pieces with `rep movsb`, which takes 10 to 20 ns to start and is two to three times as fast from then on.
//!
//! A payload of words that a wide move tears is torn for its reader anyhow: that is what the slot's sequence is for.

use core::sync::atomic::Ordering;

use super::sealed;
use crate::window::MemoryType;

const ASSEMBLER: bool = cfg!(all(
    target_arch = "x86_64",
    not(miri),
    not(shmbus_forced_words)
));

/// Whether the assembly may use vector registers; kernels are built without.
const VECTORS: bool = ASSEMBLER && cfg!(target_feature = "sse2");

/// From how many bytes on `rep movsb` is faster than moves of 8 bytes. On an EPYC with fast short `rep movsb` they break
/// even at 400 bytes, at four times as many where both sides have the same offset in their pages.
const REPEATED_BYTES: usize = 512;

/// The same in words.
const REPEATED_WORDS: usize = REPEATED_BYTES / 8;

/// How many words are copied at a time. The compiler unrolls no loop of atomic accesses whose length it does not know.
const LINE_WORDS: usize = 8;

#[inline(always)]
pub(super) unsafe fn words_out(from: *mut u8, to: &mut [u64], memory_type: MemoryType) {
    if ASSEMBLER && to.len() >= REPEATED_WORDS && memory_type == MemoryType::Ordinary {
        // SAFETY: the caller's range; `to` is ours alone.
        return unsafe { assembler::repeat(from, to.as_mut_ptr().cast(), to.len() * 8) };
    }
    let load = |at: usize| -> u64 {
        // SAFETY: the caller's range, aligned to 8 bytes.
        unsafe { sealed::AtomicWord::load(from.add(8 * at), Ordering::Relaxed) }
    };
    let (lines, rest) = to.as_chunks_mut::<LINE_WORDS>();
    let rest_at = lines.len() * LINE_WORDS;
    for (line, words) in lines.iter_mut().enumerate() {
        if VECTORS {
            // SAFETY: the caller's range, aligned to 8 bytes; `words` is ours alone.
            unsafe {
                assembler::line_out(from.add(8 * line * LINE_WORDS), words.as_mut_ptr().cast())
            };
            continue;
        }
        for (index, word) in words.iter_mut().enumerate() {
            *word = load(line * LINE_WORDS + index);
        }
    }
    for (index, word) in rest.iter_mut().enumerate() {
        *word = load(rest_at + index);
    }
}

#[inline(always)]
pub(super) unsafe fn words_in(to: *mut u8, from: &[u64], memory_type: MemoryType) {
    if ASSEMBLER && from.len() >= REPEATED_WORDS && memory_type == MemoryType::Ordinary {
        // SAFETY: the caller's range; `from` is ours alone.
        return unsafe { assembler::repeat(from.as_ptr().cast(), to, from.len() * 8) };
    }
    let store = |at: usize, word: u64| {
        // SAFETY: the caller's range, aligned to 8 bytes.
        unsafe { sealed::AtomicWord::store(to.add(8 * at), word, Ordering::Relaxed) }
    };
    let (lines, rest) = from.as_chunks::<LINE_WORDS>();
    let rest_at = lines.len() * LINE_WORDS;
    for (line, words) in lines.iter().enumerate() {
        if VECTORS {
            // SAFETY: the caller's range, aligned to 8 bytes; `words` is ours alone.
            unsafe { assembler::line_in(words.as_ptr().cast(), to.add(8 * line * LINE_WORDS)) };
            continue;
        }
        for (index, word) in words.iter().enumerate() {
            store(line * LINE_WORDS + index, *word);
        }
    }
    for (index, word) in rest.iter().enumerate() {
        store(rest_at + index, *word);
    }
}

#[inline]
pub(super) unsafe fn bytes_out(from: *mut u8, to: &mut [u8]) {
    if ASSEMBLER {
        // SAFETY: the caller's range; `to` is ours alone.
        return unsafe { move_bytes(from, to.as_mut_ptr(), to.len()) };
    }
    for (index, byte) in to.iter_mut().enumerate() {
        // SAFETY: the caller's range; buffers are accessed as bytes only.
        *byte = unsafe { core::sync::atomic::AtomicU8::from_ptr(from.add(index)) }
            .load(Ordering::Relaxed);
    }
}

#[inline]
pub(super) unsafe fn bytes_in(to: *mut u8, from: &[u8]) {
    if ASSEMBLER {
        // SAFETY: the caller's range; `from` is ours alone.
        return unsafe { move_bytes(from.as_ptr(), to, from.len()) };
    }
    for (index, byte) in from.iter().enumerate() {
        // SAFETY: the caller's range; buffers are accessed as bytes only.
        unsafe { core::sync::atomic::AtomicU8::from_ptr(to.add(index)) }
            .store(*byte, Ordering::Relaxed);
    }
}

/// Every length by as few moves as it takes: the last ones end where the piece ends, and may move bytes again that were
/// moved before.
///
/// # Safety
///
/// Both ranges of `len` bytes are valid; they do not overlap.
#[inline]
unsafe fn move_bytes(from: *const u8, to: *mut u8, len: usize) {
    use assembler::{move1, move2, move4, move8, repeat};
    // SAFETY: the caller's ranges; each move lies within the first `len` bytes.
    unsafe {
        match len {
            0 => {}
            1 => move1(from, to),
            2..=3 => {
                move2(from, to);
                move2(from.add(len - 2), to.add(len - 2));
            }
            4..=7 => {
                move4(from, to);
                move4(from.add(len - 4), to.add(len - 4));
            }
            8..=15 => {
                move8(from, to);
                move8(from.add(len - 8), to.add(len - 8));
            }
            16..REPEATED_BYTES => {
                let last = len - 16;
                let mut at = 0;
                while at < last {
                    move8(from.add(at), to.add(at));
                    move8(from.add(at + 8), to.add(at + 8));
                    at += 16;
                }
                move8(from.add(last), to.add(last));
                move8(from.add(last + 8), to.add(last + 8));
            }
            _ => repeat(from, to, len),
        }
    }
}

/// Moves from one address to another. As assembly without `nomem`, each is also a compiler barrier.
#[cfg(all(target_arch = "x86_64", not(miri), not(shmbus_forced_words)))]
mod assembler {
    macro_rules! moves {
        ($($name:ident: $size:literal, $class:ident, $modifier:literal;)*) => {$(
            #[inline(always)]
            pub(super) unsafe fn $name(from: *const u8, to: *mut u8) {
                // SAFETY: the caller gives valid addresses of this many bytes; x86 moves from and to any alignment.
                unsafe {
                    core::arch::asm!(
                        concat!("mov {moved", $modifier, "}, ", $size, " ptr [{from}]"),
                        concat!("mov ", $size, " ptr [{to}], {moved", $modifier, "}"),
                        moved = out($class) _,
                        from = in(reg) from,
                        to = in(reg) to,
                        options(nostack, preserves_flags),
                    );
                }
            }
        )*};
    }
    moves! {
        move1: "byte", reg_byte, "";
        move2: "word", reg, ":x";
        move4: "dword", reg, ":e";
        move8: "qword", reg, ":r";
    }

    /// Eight words out, by as many loads as there are registers: what they tear is caught by the sequence.
    #[cfg(target_feature = "sse2")]
    #[inline(always)]
    pub(super) unsafe fn line_out(from: *const u8, to: *mut u8) {
        // SAFETY: the caller gives valid addresses of 64 bytes.
        unsafe {
            core::arch::asm!(
                "movups {a}, xmmword ptr [{from}]",
                "movups {b}, xmmword ptr [{from} + 16]",
                "movups {c}, xmmword ptr [{from} + 32]",
                "movups {d}, xmmword ptr [{from} + 48]",
                "movups xmmword ptr [{to}], {a}",
                "movups xmmword ptr [{to} + 16], {b}",
                "movups xmmword ptr [{to} + 32], {c}",
                "movups xmmword ptr [{to} + 48], {d}",
                a = out(xmm_reg) _,
                b = out(xmm_reg) _,
                c = out(xmm_reg) _,
                d = out(xmm_reg) _,
                from = in(reg) from,
                to = in(reg) to,
                options(nostack, preserves_flags),
            );
        }
    }

    /// Eight words in.
    #[cfg(target_feature = "sse2")]
    #[inline(always)]
    pub(super) unsafe fn line_in(from: *const u8, to: *mut u8) {
        // SAFETY: the caller gives valid addresses of 64 bytes.
        unsafe {
            core::arch::asm!(
                "movq {a}, qword ptr [{from}]",
                "movhps {a}, qword ptr [{from} + 8]",
                "movq {b}, qword ptr [{from} + 16]",
                "movhps {b}, qword ptr [{from} + 24]",
                "movq {c}, qword ptr [{from} + 32]",
                "movhps {c}, qword ptr [{from} + 40]",
                "movq {d}, qword ptr [{from} + 48]",
                "movhps {d}, qword ptr [{from} + 56]",
                "movups xmmword ptr [{to}], {a}",
                "movups xmmword ptr [{to} + 16], {b}",
                "movups xmmword ptr [{to} + 32], {c}",
                "movups xmmword ptr [{to} + 48], {d}",
                a = out(xmm_reg) _,
                b = out(xmm_reg) _,
                c = out(xmm_reg) _,
                d = out(xmm_reg) _,
                from = in(reg) from,
                to = in(reg) to,
                options(nostack, preserves_flags),
            );
        }
    }

    #[cfg(not(target_feature = "sse2"))]
    pub(super) unsafe fn line_out(_: *const u8, _: *mut u8) {}
    #[cfg(not(target_feature = "sse2"))]
    pub(super) unsafe fn line_in(_: *const u8, _: *mut u8) {}

    #[inline(always)]
    pub(super) unsafe fn repeat(from: *const u8, to: *mut u8, len: usize) {
        // SAFETY: the caller gives two valid ranges of `len` bytes; the direction flag is clear by the ABI.
        unsafe {
            core::arch::asm!(
                "rep movsb",
                inout("rcx") len => _,
                inout("rsi") from => _,
                inout("rdi") to => _,
                options(nostack, preserves_flags),
            );
        }
    }
}

/// Never called where there is no assembler.
#[cfg(not(all(target_arch = "x86_64", not(miri), not(shmbus_forced_words))))]
mod assembler {
    const _: () = assert!(!super::ASSEMBLER);

    pub(super) unsafe fn move1(_: *const u8, _: *mut u8) {}
    pub(super) unsafe fn move2(_: *const u8, _: *mut u8) {}
    pub(super) unsafe fn move4(_: *const u8, _: *mut u8) {}
    pub(super) unsafe fn move8(_: *const u8, _: *mut u8) {}
    pub(super) unsafe fn line_out(_: *const u8, _: *mut u8) {}
    pub(super) unsafe fn line_in(_: *const u8, _: *mut u8) {}
    pub(super) unsafe fn repeat(_: *const u8, _: *mut u8, _: usize) {}
}

#[cfg(test)]
mod tests {
    use crate::window::Window;
    use crate::{Bytes, Records, heap};

    /// Around every limit of the copies, at every alignment: all bytes arrive, and none beside them.
    #[test]
    fn every_length_arrives_at_every_alignment() {
        let lengths = (0..70).chain([127, 128, 129, 511, 512, 513, 4095, 4096]);
        let from: Vec<u8> = (0..4096_u32).map(|n| (n % 251) as u8 + 1).collect();
        let alignments = if cfg!(miri) { 0..3 } else { 0..16 };
        for (len, skip) in lengths.flat_map(|len| alignments.clone().map(move |skip| (len, skip))) {
            if cfg!(miri) && len > 130 {
                continue;
            }
            let window = heap(len + 40);
            let bytes = Bytes::new(&window, 0, window.len()).unwrap();
            assert_eq!(bytes.copy_from(skip, &from[..len]), len);
            let mut whole = vec![0xff; len + 40];
            bytes.copy_to(0, &mut whole);
            let (before, rest) = whole.split_at(skip);
            let (found, after) = rest.split_at(len);
            assert!(before.iter().chain(after).all(|byte| *byte == 0));
            assert_eq!(found, &from[..len]);

            let mut out = vec![0xee; len + 2];
            assert_eq!(bytes.copy_to(skip, &mut out[1..=len]), len);
            assert_eq!(&out[1..=len], &from[..len]);
            assert_eq!((out[0], out[len + 1]), (0xee, 0xee));
        }
    }

    #[test]
    fn every_number_of_words_arrives() {
        for words in [1, 2, 7, 8, 9, 63, 64, 65, 512] {
            let from: Vec<u64> = (1..=words as u64).map(|n| n << 32 | !n & 0xffff).collect();
            let window = heap(8 * (words + 2));
            let record = Records::new(&window, 0, 1, 8 * (words + 2), words).unwrap();
            record.store_payload(0, &from);
            let mut out = vec![0; words];
            record.load_payload(0, &mut out);
            assert_eq!(out, from);
            let mut ends = [0xff; 8];
            for offset in [0, 8 * (words + 1)] {
                let bytes = Bytes::new(&window, offset, 8).unwrap();
                bytes.copy_to(0, &mut ends);
                assert_eq!(ends, [0; 8]);
            }
        }
    }
}
