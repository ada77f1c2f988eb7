//! What a table adds to slot and tree, under loom: a header that is announced when the rest is there, and a change
//! scan whose reports can be read.
#![cfg(not(miri))]

use std::panic::{AssertUnwindSafe, catch_unwind};

use core::sync::atomic::Ordering;

use loom::thread;
use shmbus_shm::testing::{LoomWindow, Weakening};
use shmbus_table::{Epoch, TableError, TableLayout, TableReader, TableWriter};

const NOTHING: Weakening = Weakening {
    without_fence: None,
    without_fence_number: None,
    relaxed_loads: false,
    relaxed_stores: false,
};

const SLOTS: usize = 2;

fn layout(slot_bytes: u32) -> TableLayout {
    TableLayout::with_copies(SLOTS as u32, slot_bytes, 2).unwrap()
}

/// The words of a table of two slots, 16 bytes in 2 copies or 8 bytes.
fn memory(layout: TableLayout) -> LoomWindow {
    let tree = layout.tree();
    let header = LoomWindow::builder()
        .words::<u64>(0, 1)
        .words::<u32>(8, 6)
        .words::<u64>(32, 4);
    let mut words = (0..=tree.levels()).fold(header, |words, level| {
        words.words::<u64>(layout.tree_offset() + tree.offset(level), tree.nodes(level))
    });
    let values = layout.values_offset();
    if layout.slot_bytes() == 8 {
        words = words.words::<u64>(values, SLOTS);
    } else {
        for copy in 0..2 * SLOTS {
            words = words.words::<u64>(values + 64 * copy, 3);
        }
    }
    // The last word of the last line, so that the window is as long as the table.
    words.words::<u64>(layout.bytes() - 8, 1).build()
}

fn value(layout: TableLayout, number: u64) -> [u64; 2] {
    if layout.slot_bytes() == 8 {
        [number, 0]
    } else {
        [number, number + 1000]
    }
}

/// A writer sets a table up and publishes; a reader attaches whenever it can and reads.
fn announced(layout: TableLayout, writing: Weakening, reading: Weakening) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(3);
    builder.check(move || {
        let window = memory(layout);
        let own = window.weakened(writing);
        let writer = thread::spawn(move || {
            TableWriter::create(own, layout, 1, Epoch::FIRST, [0; SLOTS]).unwrap();
        });
        match TableReader::attach(window.weakened(reading), [0; SLOTS], [0; SLOTS]) {
            Ok(reader) => {
                assert_eq!(reader.layout(), layout);
                assert_eq!(reader.type_id(), 1);
            }
            Err(error) => assert_eq!(error, TableError::Magic { found: 0 }),
        }
        writer.join().unwrap();
    });
}

/// What a scan reports can be read, at least as new as reported, and nothing is missed.
fn reported(layout: TableLayout, writing: Weakening, reading: Weakening) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(3);
    builder.check(move || {
        let window = memory(layout);
        let own = window.weakened(writing);
        let mut writer = TableWriter::create(own, layout, 1, Epoch::FIRST, [0; SLOTS]).unwrap();
        let mut reader =
            TableReader::attach(window.weakened(reading), [0; SLOTS], [0; SLOTS]).unwrap();
        let words = layout.slot_words();
        let writer = thread::spawn(move || {
            for number in 1..=2 {
                let _ = writer.publish(1, &value(layout, number)[..words]).unwrap();
            }
        });
        let mut look = || {
            let mut found = None;
            reader.changed(|slot, generation| {
                assert_eq!(slot, 1);
                found = Some(generation);
            });
            if let Some(reported) = found {
                let mut read = [0; 2];
                let generation = reader.read(1, &mut read[..words]).unwrap();
                assert!(generation >= reported);
                assert!(read[0] >= generation.count());
                assert_eq!(read, value(layout, read[0]), "torn");
            }
        };
        look();
        writer.join().unwrap();
        look();
        assert_eq!(reader.read(1, &mut [0; 2]).unwrap().count(), 2);
    });
}

fn is_caught(model: impl FnOnce()) {
    let outcome = catch_unwind(AssertUnwindSafe(model));
    assert!(outcome.is_err(), "the model did not notice");
}

const RELAXED: Weakening = Weakening {
    relaxed_stores: true,
    ..NOTHING
};

const FENCELESS: Weakening = Weakening {
    without_fence: Some(Ordering::Acquire),
    ..NOTHING
};

#[test]
fn who_finds_the_magic_finds_the_table() {
    announced(layout(8), NOTHING, NOTHING);
    is_caught(|| announced(layout(8), RELAXED, NOTHING));
    is_caught(|| announced(layout(8), NOTHING, FENCELESS));
}

#[test]
fn what_is_reported_can_be_read() {
    for slot_bytes in [8, 16] {
        reported(layout(slot_bytes), NOTHING, NOTHING);
    }
}

#[test]
fn what_is_reported_needs_its_orderings() {
    let relaxed_loads = Weakening {
        relaxed_loads: true,
        ..FENCELESS
    };
    for slot_bytes in [8, 16] {
        is_caught(|| reported(layout(slot_bytes), RELAXED, NOTHING));
        is_caught(|| reported(layout(slot_bytes), NOTHING, relaxed_loads));
    }
}
