//! The slot kernel between threads: for Miri and ThreadSanitizer, and for the processor.

use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed, Release, SeqCst};
use std::thread;

use shmbus_shm::slot::{
    Epoch, ReadCursor, ReadError, SlotReader, SlotWriter, WriteCursor, copy_stride,
};
use shmbus_shm::{Field, Mapped, Records, Window, heap};

const READERS: usize = 2;

/// How many newer values each reader waits for.
const NEWER: u64 = if cfg!(miri) { 10 } else { 300 };

/// A slot with its head on the first line.
struct Slot {
    window: Mapped,
    head: Field<u64, Mapped>,
    copies: usize,
    words: usize,
}

impl Slot {
    fn new(copies: usize, words: usize) -> Self {
        let window = heap(64 + copies * copy_stride(words));
        Self {
            head: Field::new(&window, 0).unwrap(),
            window,
            copies,
            words,
        }
    }

    fn records(&self) -> Records<'_, Mapped> {
        let stride = copy_stride(self.words);
        Records::new(&self.window, 64, self.copies, stride, self.words).unwrap()
    }
}

/// Reads until there were [`NEWER`] newer values; returns how many reads were lapped.
fn follow(slot: &Slot, complete: &AtomicU64) -> u64 {
    let reader = SlotReader::new(slot.records(), &slot.head);
    let mut cursor = ReadCursor::default();
    let mut value = vec![0; slot.words];
    let (mut last, mut newer, mut lapped) = (0, 0, 0);
    while newer < NEWER {
        let complete = complete.load(Acquire);
        match reader.read(&mut cursor, &mut value) {
            Ok(generation) => {
                let count = generation.count();
                assert!(value.iter().all(|word| *word == count), "torn: {value:?}");
                assert!(count >= complete, "older than the call");
                assert!(count >= last, "backwards");
                newer += u64::from(count > last);
                last = count;
            }
            Err(ReadError::NeverWritten) => assert_eq!(complete, 0),
            Err(ReadError::Lapped) => lapped += 1,
            Err(error) => panic!("an honest writer: {error}"),
        }
        // With more threads than processors the writer must come to its turn.
        thread::yield_now();
    }
    lapped
}

fn writer_and_readers(copies: usize, words: usize) {
    let slot = Slot::new(copies, words);
    let complete = AtomicU64::new(0);
    thread::scope(|scope| {
        let readers: Vec<_> = (0..READERS)
            .map(|_| scope.spawn(|| follow(&slot, &complete)))
            .collect();
        let mut writer = SlotWriter::new(slot.records(), &slot.head);
        let mut cursor = WriteCursor::new(Epoch::FIRST);
        for count in 1.. {
            writer.publish(&mut cursor, &vec![count; words]).unwrap();
            complete.store(count, Release);
            if readers.iter().all(|reader| reader.is_finished()) {
                break;
            }
            if cfg!(miri) {
                thread::yield_now();
            }
        }
        let lapped: u64 = readers
            .into_iter()
            .map(|reader| reader.join().unwrap())
            .sum();
        eprintln!("{copies} copies of {words} words: {lapped} lapped");
    });
}

#[test]
fn two_copies_of_a_word() {
    writer_and_readers(2, 1);
}

#[test]
fn four_copies_of_a_line() {
    writer_and_readers(4, 7);
}

#[test]
fn eight_copies_that_the_assembler_moves() {
    writer_and_readers(8, 512);
}

/// Two threads store a word each and load the other's, with a full fence between: at least one finds the other's.
#[test]
fn a_full_fence_orders_a_store_before_a_load() {
    const ROUNDS: u64 = if cfg!(miri) { 20 } else { 150_000 };
    let window = heap(256);
    let words = [0, 128].map(|offset| Field::<u64, Mapped>::new(&window, offset).unwrap());
    let found = [0, 1].map(|_| AtomicU64::new(0));
    let begun = AtomicU64::new(0);
    let await_all = |count| {
        while begun.load(Acquire) < count {
            // As close together as can be, unless the other has no processor.
            for _ in 0..1000 {
                if begun.load(Acquire) >= count {
                    return;
                }
            }
            thread::yield_now();
        }
    };
    let side = |own: usize| {
        for round in 1..=ROUNDS {
            // Both begin a round together, and none before the other has looked at the last one's outcome.
            begun.fetch_add(1, AcqRel);
            await_all(4 * round - 2);
            words[own].store(round, Relaxed);
            window.fence(SeqCst);
            found[own].store(words[1 - own].load(Relaxed), Release);
            begun.fetch_add(1, AcqRel);
            await_all(4 * round);
            let [one, other] = [0, 1].map(|side: usize| found[side].load(Acquire));
            assert!(
                one == round || other == round,
                "round {round}: {one} {other}"
            );
        }
    };
    thread::scope(|scope| {
        scope.spawn(|| side(1));
        side(0);
    });
}
