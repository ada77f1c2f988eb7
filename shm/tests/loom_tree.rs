//! The generation tree against its reader, in loom: two levels of stamps, four leaves.
#![cfg(not(miri))]

use std::sync::atomic::Ordering::Relaxed;

use loom::model::Builder;
use loom::thread;
use shmbus_shm::testing::{LoomWindow, Weakening};
use shmbus_shm::{Entries, TreeLayout, TreeReader, TreeWriter};

/// Behind the tree: a word for each leaf, written before the leaf is marked.
const PAYLOAD: usize = 192;

fn model(of_writer: Weakening, of_reader: Weakening) {
    let mut builder = Builder::new();
    builder.preemption_bound = Some(3);
    builder.check(move || {
        let layout = TreeLayout::for_model(4, 1).unwrap();
        assert_eq!((layout.levels(), layout.bytes()), (2, PAYLOAD));
        let window = LoomWindow::builder()
            .words::<u64>(layout.offset(0), 1)
            .words::<u64>(layout.offset(1), 2)
            .words::<u64>(layout.offset(2), 4)
            .words::<u64>(PAYLOAD, 4)
            .build();
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
