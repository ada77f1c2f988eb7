//! What a table adds to slot and tree, under loom: a header that is announced when the rest is there, and a change
//! scan whose reports can be read.
#![cfg(not(miri))]

use std::panic::{AssertUnwindSafe, catch_unwind};

use core::sync::atomic::Ordering;

use loom::thread;
use shmbus_shm::testing::{LoomWindow, Weakening};
use shmbus_table::{Epoch, TableError, TableLayout, TableOptions, TableReader, TableWriter};

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

/// The words of a table of two slots, 16 bytes in 2 copies or 8 bytes, with or without ages.
fn memory(layout: TableLayout) -> LoomWindow {
    let tree = layout.tree();
    let ages = if layout.beat_ns() == 0 { 0 } else { SLOTS };
    let header = LoomWindow::builder()
        .words::<u64>(0, 1)
        .words::<u32>(8, 6)
        .words::<u64>(32, 4)
        .words::<u64>(layout.ages_offset(), ages);
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

/// A value that is read after its age is not older than that: a publication after each beat.
fn aged(slot_bytes: u32, writing: Weakening, reading: Weakening) {
    let options = TableOptions::new().copies(2).ages(1);
    let layout = TableLayout::with_options(SLOTS as u32, slot_bytes, options).unwrap();
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(3);
    builder.check(move || {
        let window = memory(layout);
        let own = window.weakened(writing);
        let mut writer = TableWriter::create(own, layout, 1, Epoch::FIRST, [0; SLOTS]).unwrap();
        let mut reader =
            TableReader::attach(window.weakened(reading), [0; SLOTS], [0; SLOTS]).unwrap();
        let words = layout.slot_words();
        let mut publish = move |number| {
            writer.beat();
            let _ = writer.publish(1, &value(layout, number)[..words]).unwrap();
        };
        // A lag, so that a beat can be told whose value is not there yet.
        publish(1);
        let writer = thread::spawn(move || publish(2));
        let before = reader.heartbeat();
        let age = reader.age(1).unwrap();
        // The first publication was at beat 2, the second at beat 3; the age was told by beat 3 at most.
        let least = if age.beats == 0 && before == 3 { 2 } else { 1 };
        let mut read = [0; 2];
        reader.read(1, &mut read[..words]).unwrap();
        assert!(read[0] >= least);
        writer.join().unwrap();
        assert_eq!(reader.age(1).unwrap().beats, 0);
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
fn a_value_is_not_older_than_its_age() {
    for slot_bytes in [8, 16] {
        aged(slot_bytes, NOTHING, NOTHING);
        is_caught(|| aged(slot_bytes, RELAXED, NOTHING));
        is_caught(|| aged(slot_bytes, NOTHING, FENCELESS));
    }
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
