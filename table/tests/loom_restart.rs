//! A table whose dead writer's place another takes in the same memory, while a reader reads and scans, under loom: one slot
//! of two copies, or of one word.
#![cfg(not(miri))]

use std::panic::{AssertUnwindSafe, catch_unwind};

use core::sync::atomic::Ordering::Relaxed;

use loom::sync::Arc;
use loom::sync::atomic::AtomicU64;
use loom::thread;
use shmbus_shm::slot::ReadError as SlotError;
use shmbus_shm::testing::{Dying, LoomWindow, Probed, Weakening};
use shmbus_table::{Epoch, Generation, ReadError, TableLayout, TableReader, TableWriter};

/// A value's two words, or the first of them, show which one it is.
fn value(number: u64) -> [u64; 2] {
    [number, number + 1000]
}

fn memory(layout: TableLayout) -> LoomWindow {
    let tree = layout.tree();
    let header = LoomWindow::builder()
        .words::<u64>(0, 1)
        .words::<u32>(8, 6)
        .words::<u64>(32, 4)
        .words::<u64>(layout.tree_offset(), 1)
        .words::<u64>(layout.tree_offset() + tree.offset(1), 1);
    let values = layout.values_offset();
    let words = match layout.slot_bytes() {
        8 => header.words::<u64>(values, 1),
        _ => header.words::<u64>(values, 3).words::<u64>(values + 64, 3),
    };
    // The last word of the last line, so that the window is as long as the table.
    words.words::<u64>(layout.bytes() - 8, 1).build()
}

/// Reads once; the number of the value, which is not below `last`. A restart may be reported instead.
fn look(reader: &mut TableReader<LoomWindow, [u64; 1]>, last: u64, restarts: &mut u64) -> u64 {
    let mut read = [0; 2];
    let words = reader.layout().slot_words();
    match reader.read(0, &mut read[..words]) {
        Ok(_) => {
            assert_eq!(read[..words], value(read[0])[..words], "torn");
            assert!(read[0] >= last, "backwards");
            read[0]
        }
        Err(ReadError::Slot(SlotError::Restarted { .. })) => {
            *restarts += 1;
            last
        }
        Err(error) => panic!("honest writers: {error}"),
    }
}

/// The first writer publishes one value and dies after `stores` stores of the second; the next publishes a third.
fn restarted(slot_bytes: u32, stores: u64, writing: Weakening, reading: Weakening) {
    let layout = TableLayout::with_copies(1, slot_bytes, 2).unwrap();
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(3);
    builder.check(move || {
        let words = layout.slot_words();
        let window = memory(layout);
        let dying = Dying::after(u64::MAX - 1);
        let mut first = TableWriter::create(
            Probed::new(window.clone(), dying.clone()),
            layout,
            1,
            Epoch::FIRST,
            [0],
        )
        .unwrap();
        let _ = first.publish(0, &value(1)[..words]).unwrap();
        let mut reader = TableReader::attach(window.weakened(reading), [0], [0]).unwrap();
        let mut restarts = 0;
        let mut last = look(&mut reader, 1, &mut restarts);
        reader.changed(|_, _| ());
        dying.dies_after(stores);
        let _ = first.publish(0, &value(2)[..words]).unwrap();
        last = look(&mut reader, last, &mut restarts);

        // The new writer loads words that it stores later. loom remembers only the last access of an atomic, and would
        // take those loads for the reader's: nothing would race. So both access another one first.
        let begun = Arc::new(AtomicU64::new(0));
        let (begins, own) = (begun.clone(), window.weakened(writing));
        let writer = thread::spawn(move || {
            begins.load(Relaxed);
            let (mut second, recovered) = TableWriter::resume_in_place(own, [0]).unwrap();
            assert_eq!((recovered.values, recovered.lost), (1, 0));
            let _ = second.publish(0, &value(3)[..words]).unwrap();
        });
        begun.store(1, Relaxed);
        let mut reported = None;
        reader.changed(|slot, generation| reported = Some((slot, generation)));
        last = look(&mut reader, last, &mut restarts);
        if let (Some((slot, reported)), Some(read)) = (reported, reader.generation(0)) {
            assert!(slot == 0 && read >= reported);
        }
        writer.join().unwrap();
        let epoch = Epoch::FIRST.next();
        assert_eq!(reader.epoch(), epoch);
        reader.changed(|_, generation| reported = Some((0, generation)));
        assert_eq!(reported.map(|(_, generation)| generation.epoch()), epoch);
        // A slot of one word may have given the value under the old generation already.
        while last < 3 || reader.generation(0).map(Generation::epoch) != epoch {
            last = look(&mut reader, last, &mut restarts);
        }
        assert_eq!(restarts, 1);
    });
}

const NOTHING: Weakening = Weakening {
    without_fence: None,
    without_fence_number: None,
    relaxed_loads: false,
    relaxed_stores: false,
};

fn is_caught(model: impl FnOnce()) {
    let outcome = catch_unwind(AssertUnwindSafe(model));
    assert!(outcome.is_err(), "the model did not notice");
}

/// Dead with the copy complete and not named; and with it named and not announced. Other deaths are no other for who goes
/// on; `src/tests/death.rs` has them all.
#[test]
fn a_restart_under_a_readers_eyes() {
    for stores in [4, 5] {
        restarted(16, stores, NOTHING, NOTHING);
    }
}

#[test]
fn a_restart_of_a_slot_of_one_word() {
    for stores in 0..=3 {
        restarted(8, stores, NOTHING, NOTHING);
    }
}

#[test]
fn the_next_writers_orderings_are_needed() {
    let relaxed = Weakening {
        relaxed_stores: true,
        ..NOTHING
    };
    for slot_bytes in [8, 16] {
        is_caught(|| restarted(slot_bytes, 0, relaxed, NOTHING));
    }
}
