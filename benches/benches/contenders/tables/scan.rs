//! Finding 16 changed slots of 65,536: ours by the generation tree, the peer's by a flat bitmap.
//!
//! The thread that finds them has marked them itself, which is not timed: so what is compared is the work of finding, with
//! warm caches. The bitmap's bits are cleared as they are found, which the tree's readers need not do, and could not: they
//! have a read-only mapping, and there may be many.

use std::hint::black_box;
use std::os::fd::AsFd;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::{AcqRel, Relaxed};
use std::time::Duration;

use shmbus_benches::{Comparison, Contender, SetUpError, pin_to_first_processor};
use shmbus_devices::clock::{Counter, Ticks};
use shmbus_shm::{Access, Mapped, SharedMemory, TreeLayout, TreeReader, TreeWriter, Writers};

use super::OURS;

const SLOTS: u32 = 65_536;
const CHANGED: usize = 16;

/// Which change, for each number of a scan.
type Changes = fn(u64) -> [u32; CHANGED];

pub(super) fn comparison(bench: &'static str, changes: Changes) -> Comparison {
    Comparison::new(
        bench,
        "one thread finds 16 changed of 65,536; the peer has a flat bitmap",
        move || {
            pin_to_first_processor()?;
            Ok(vec![tree(changes)?, bitmap(changes)])
        },
    )
}

/// Side by side, at another place each time.
pub(super) fn clustered(scan: u64) -> [u32; CHANGED] {
    let first = (mixed(scan) % u64::from(SLOTS)) as u32 & !(CHANGED as u32 - 1);
    std::array::from_fn(|index| first + index as u32)
}

/// Anywhere, one in each sixteenth.
pub(super) fn scattered(scan: u64) -> [u32; CHANGED] {
    let stretch = SLOTS / CHANGED as u32;
    std::array::from_fn(|index| {
        let random = mixed(scan * CHANGED as u64 + index as u64) as u32;
        index as u32 * stretch + random % stretch
    })
}

/// The finalizer of SplitMix64.
fn mixed(number: u64) -> u64 {
    let mut mixed = number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ mixed >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ mixed >> 31
}

/// Marks what changed, and finds it.
trait Finder {
    fn mark(&mut self, slot: u32);

    /// Reports what was marked since.
    fn find(&mut self, report: impl FnMut(u32));
}

struct Tree {
    writer: TreeWriter<Mapped>,
    reader: TreeReader<Mapped, Vec<u64>>,
    generation: u64,
}

fn tree(changes: Changes) -> Result<Contender, SetUpError> {
    let layout = TreeLayout::new(SLOTS)?;
    let memory = SharedMemory::create("bench", layout.bytes() as u64, Writers::Creator)?;
    let descriptor = memory.as_fd().try_clone_to_owned()?;
    let peers = SharedMemory::from_peer(descriptor, memory.bytes(), Access::Read)?;
    let tree = Tree {
        writer: TreeWriter::create(memory.window(), layout)?,
        reader: TreeReader::new(peers.window(), layout, vec![0; SLOTS as usize])?,
        generation: 0,
    };
    Ok(finding(OURS, changes, tree))
}

impl Finder for Tree {
    #[inline]
    fn mark(&mut self, slot: u32) {
        self.generation += 1;
        self.writer.mark(slot, self.generation);
    }

    #[inline]
    fn find(&mut self, mut report: impl FnMut(u32)) {
        self.reader.changed(|slot, generation| {
            black_box(generation);
            report(slot);
        });
    }
}

/// Bits in a word of the bitmap.
const BITS: usize = 64;

struct Bitmap(Vec<AtomicU64>);

fn bitmap(changes: Changes) -> Contender {
    let words = 0..SLOTS as usize / BITS;
    let bitmap = Bitmap(words.map(|_| AtomicU64::new(0)).collect());
    finding("bitmap", changes, bitmap)
}

impl Finder for Bitmap {
    #[inline]
    fn mark(&mut self, slot: u32) {
        let slot = slot as usize;
        self.0[slot / BITS].fetch_or(1 << (slot % BITS), AcqRel);
    }

    /// A line at a time, so that the usual case is a load and an OR for each word.
    #[inline]
    fn find(&mut self, mut report: impl FnMut(u32)) {
        let (lines, _) = self.0.as_chunks::<8>();
        for (line, words) in lines.iter().enumerate() {
            if words.iter().fold(0, |any, word| any | word.load(Relaxed)) == 0 {
                continue;
            }
            for (index, word) in words.iter().enumerate() {
                if word.load(Relaxed) == 0 {
                    continue;
                }
                let mut bits = word.swap(0, AcqRel);
                while bits != 0 {
                    let bit = bits.trailing_zeros() as usize;
                    report(((line * 8 + index) * BITS + bit) as u32);
                    bits &= bits - 1;
                }
            }
        }
    }
}

fn finding(name: &'static str, changes: Changes, mut finder: impl Finder + 'static) -> Contender {
    let counter = Counter::detect();
    let nanoseconds = super::nanoseconds_of_a_tick(&counter);
    let mut scan = 0;
    Contender::new(name, move |operations| {
        let mut ticks = 0;
        for _ in 0..operations {
            scan += 1;
            let changed = changes(scan);
            for slot in changed {
                finder.mark(slot);
            }
            let (mut found, mut sum) = (0, 0);
            let before = counter.now();
            finder.find(|slot| {
                found += 1;
                sum += slot;
            });
            ticks += counter.now() - before;
            assert_eq!((found, sum), (CHANGED, changed.iter().sum()));
        }
        Duration::from_nanos((ticks as f64 * nanoseconds) as u64)
    })
}
