//! The generation tree's reader in loom where it looks at whole rows of children: sixteen leaves below the root.
#![cfg(not(miri))]

use std::sync::atomic::Ordering::{Acquire, Relaxed};

use loom::model::Builder;
use loom::thread;
use shmbus_shm::testing::{LoomWindow, Weakening};
use shmbus_shm::{Entries, TreeLayout, TreeReader, TreeWriter};

const LEAVES: usize = TreeLayout::FAN_OUT as usize;

/// Behind the tree: a word for each of the first leaves, written before the leaf is marked.
const PAYLOAD: usize = 64 + 8 * LEAVES;

fn model(of_reader: Weakening) {
    let mut builder = Builder::new();
    builder.preemption_bound = Some(3);
    builder.check(move || {
        let layout = TreeLayout::new(LEAVES as u32).unwrap();
        assert_eq!((layout.levels(), layout.bytes()), (1, PAYLOAD));
        let window = LoomWindow::builder()
            .words::<u64>(0, 1)
            .words::<u64>(layout.offset(1), LEAVES)
            .words::<u64>(PAYLOAD, 2)
            .build();
        let mut writer = TreeWriter::create(&window, layout).unwrap();
        let seen = vec![0; LEAVES];
        let mut reader = TreeReader::new(&window.weakened(of_reader), layout, seen).unwrap();
        let payload = Entries::<u64, _>::new(&window, PAYLOAD, 2).unwrap();

        let written = payload.clone();
        let marks = thread::spawn(move || {
            for (leaf, generation) in [(1, 1), (0, 1), (1, 2)] {
                written.store(leaf, generation, Relaxed);
                writer.mark(leaf as u32, generation);
            }
        });

        let mut seen = [0; 2];
        let mut scan = || {
            reader.changed(|leaf, generation| {
                let leaf = leaf as usize;
                assert!(generation > seen[leaf], "reported twice");
                assert!(payload.load(leaf, Relaxed) >= generation, "told too early");
                seen[leaf] = generation;
            });
        };
        scan();
        marks.join().unwrap();
        scan();
        assert_eq!(seen, [1, 2], "a change was missed");
    });
}

#[test]
fn no_change_is_missed_or_told_too_early() {
    model(Weakening::default());
}

#[test]
#[should_panic = "told too early"]
fn the_fence_behind_a_row_is_needed() {
    model(Weakening {
        without_fence: Some(Acquire),
        ..Weakening::default()
    });
}
