//! The generation tree against its reader, in loom: two levels of stamps, four leaves.
#![cfg(not(miri))]

use std::sync::atomic::Ordering::Relaxed;

use loom::model::Builder;
use loom::sync::Arc;
use loom::sync::atomic::AtomicU64;
use loom::thread;
use shmbus_shm::testing::{LoomWindow, Weakening};
use shmbus_shm::{Entries, Field, TreeLayout, TreeReader, TreeWriter};

/// Behind the tree: a word for each leaf, written before the leaf is marked.
const PAYLOAD: usize = 192;

fn window(layout: TreeLayout) -> LoomWindow {
    assert_eq!((layout.levels(), layout.bytes()), (2, PAYLOAD));
    LoomWindow::builder()
        .words::<u64>(layout.offset(0), 1)
        .words::<u64>(layout.offset(1), 2)
        .words::<u64>(layout.offset(2), 4)
        .words::<u64>(PAYLOAD, 4)
        .build()
}

fn model(of_writer: Weakening, of_reader: Weakening) {
    let mut builder = Builder::new();
    builder.preemption_bound = Some(3);
    builder.check(move || {
        let layout = TreeLayout::for_model(4, 1).unwrap();
        let window = window(layout);
        let mut writer = TreeWriter::create(&window.weakened(of_writer), layout).unwrap();
        let mut reader = TreeReader::new(&window.weakened(of_reader), layout, vec![0; 4]).unwrap();
        let payload = Entries::<u64, _>::new(&window, PAYLOAD, 4).unwrap();

        let written = payload.clone();
        let marks = thread::spawn(move || {
            for (leaf, generation) in [(0, 1), (3, 1), (0, 2)] {
                written.store(leaf, generation, Relaxed);
                writer.mark(leaf as u32, generation);
            }
        });

        let mut seen = [0; 4];
        let mut scan = || {
            reader.changed(|leaf, generation| {
                let leaf = leaf as usize;
                assert!(generation > seen[leaf], "reported twice");
                assert!(payload.load(leaf, Relaxed) >= generation, "told too early");
                seen[leaf] = generation;
            });
            reader.stamp()
        };
        let stamp = scan();
        let later = scan();
        assert!(later >= stamp);
        marks.join().unwrap();
        // Whatever the scans during the changes saw: together they and this one miss nothing.
        scan();
        assert_eq!(seen, [2, 0, 0, 1], "a change was missed");
    });
}

#[test]
fn no_change_is_missed_or_told_too_early() {
    model(Weakening::default(), Weakening::default());
}

#[test]
#[should_panic]
fn relaxed_stores_are_caught() {
    let weakening = Weakening {
        relaxed_stores: true,
        ..Weakening::default()
    };
    model(weakening, Weakening::default());
}

#[test]
#[should_panic]
fn relaxed_loads_are_caught() {
    let weakening = Weakening {
        relaxed_loads: true,
        ..Weakening::default()
    };
    model(Weakening::default(), weakening);
}

/// A writer died after `stores` stores of a change; another goes on while a reader scans.
fn resumed(stores: u64, of_writer: Weakening) {
    let mut builder = Builder::new();
    builder.preemption_bound = Some(3);
    builder.check(move || {
        let layout = TreeLayout::for_model(4, 1).unwrap();
        let window = window(layout);
        let mut writer = TreeWriter::create(&window, layout).unwrap();
        writer.mark(1, 1);
        let mut reader = TreeReader::new(&window, layout, vec![0; 4]).unwrap();
        reader.changed(|leaf, generation| assert_eq!((leaf, generation), (1, 1)));
        // As the dead one would have gone on.
        let begun = [(layout.offset(2) + 24, 7), (layout.offset(1) + 8, 2)];
        for (offset, value) in begun.into_iter().take(stores as usize) {
            Field::<u64, _>::new(&window, offset)
                .unwrap()
                .store(value, Relaxed);
        }

        let own = window.weakened(of_writer);
        // The new writer loads the root before it stores it. loom remembers only the last access of an atomic, and would
        // take that load for the reader's: nothing would race. So both access another one first.
        let begun_too = Arc::new(AtomicU64::new(0));
        let begins = begun_too.clone();
        let resuming = thread::spawn(move || {
            begins.load(Relaxed);
            let mut writer = TreeWriter::resume(&own, layout).unwrap();
            writer.mark(0, 1);
        });
        let mut seen = Vec::new();
        let mut scan = || {
            reader.changed(|leaf, generation| seen.push((leaf, generation)));
        };
        begun_too.store(1, Relaxed);
        scan();
        resuming.join().unwrap();
        scan();
        seen.sort_unstable();
        let expected = [(0, 1), (3, 7)];
        assert_eq!(seen, expected[..if stores == 0 { 1 } else { 2 }]);
    });
}

#[test]
fn what_a_dead_writer_had_begun_is_found_once() {
    for stores in 0..=2 {
        resumed(stores, Weakening::default());
    }
}

#[test]
#[should_panic = "assertion"]
fn a_resuming_writers_relaxed_stores_are_caught() {
    let weakening = Weakening {
        relaxed_stores: true,
        ..Weakening::default()
    };
    resumed(1, weakening);
}
