//! Transactions under loom: two slots of one word, in 2 copies. The value that a transaction writes is its own number,
//! so what each slot must hold as of a transaction is known.
#![cfg(not(miri))]

use std::panic::{AssertUnwindSafe, catch_unwind};

use core::sync::atomic::Ordering;

use loom::sync::Arc;
use loom::sync::atomic::AtomicU64;
use loom::thread;
use shmbus_shm::Window;
use shmbus_shm::testing::{LoomWindow, Weakening};
use shmbus_table::{Epoch, SnapshotReader, TableLayout, TableOptions, TransactionWriter};

const NOTHING: Weakening = Weakening {
    without_fence: None,
    without_fence_number: None,
    relaxed_loads: false,
    relaxed_stores: false,
};

const SLOTS: usize = 2;

fn layout() -> TableLayout {
    let options = TableOptions::new().copies(2).transactions();
    TableLayout::with_options(SLOTS as u32, 8, options).unwrap()
}

fn memory() -> LoomWindow {
    let layout = layout();
    let tree = layout.tree();
    let header = LoomWindow::builder()
        .words::<u64>(0, 1)
        .words::<u32>(8, 6)
        .words::<u64>(32, 4)
        .words::<u64>(64, 1);
    let mut words = (0..=tree.levels()).fold(header, |words, level| {
        words.words::<u64>(layout.tree_offset() + tree.offset(level), tree.nodes(level))
    });
    for copy in 0..2 * SLOTS {
        words = words.words::<u64>(layout.values_offset() + 64 * copy, 3);
    }
    // The last word of the last line, so that the window is as long as the table.
    words.words::<u64>(layout.bytes() - 8, 1).build()
}

/// The slots that a transaction writes.
type Slots = &'static [u32];

const BOTH: Slots = &[0, 1];
const FIRST: Slots = &[0];
const SECOND: Slots = &[1];

/// The value of a slot as of transaction `commit` of `history`, 0 for none.
fn as_of(history: &[Slots], commit: u64, slot: u32) -> u64 {
    let committed = &history[..commit as usize];
    let last = committed.iter().rposition(|slots| slots.contains(&slot));
    last.map_or(0, |index| index as u64 + 1)
}

struct Writer {
    table: TransactionWriter<LoomWindow, Vec<u64>>,
}

impl Writer {
    fn new(window: LoomWindow) -> Self {
        let storage = vec![0; 2 * SLOTS];
        let table =
            TransactionWriter::create(window, layout(), 1, Epoch::FIRST, storage.clone(), storage);
        Self {
            table: table.unwrap(),
        }
    }

    fn run(&mut self, transactions: &[Slots]) {
        for slots in transactions {
            let number = self.table.committed().map_or(0, |last| last.count()) + 1;
            if let [slot] = slots {
                let _ = self.table.publish(*slot, &[number]).unwrap();
                continue;
            }
            let mut transaction = self.table.begin();
            for slot in *slots {
                transaction.stage(*slot, &[number]).unwrap();
            }
            let _ = transaction.commit().unwrap();
        }
    }
}

struct Reader<W: Window>(SnapshotReader<W, Vec<u64>>);

impl<W: Window> Reader<W> {
    fn new(window: W) -> Self {
        let storage = vec![0; SLOTS];
        Self(SnapshotReader::attach(window, storage.clone(), storage).unwrap())
    }

    /// Takes a snapshot, which must be that of one transaction, not older than `complete`; returns which.
    fn look(&mut self, history: &[Slots], complete: u64) -> u64 {
        let (mut values, mut generations) = ([0; SLOTS], [None; SLOTS]);
        let commit = self
            .0
            .read_together(BOTH, &mut values, &mut generations)
            .expect("an honest writer of few transactions")
            .map_or(0, |commit| commit.count());
        assert!(commit >= complete, "older than the call");
        for slot in [0, 1] {
            let expected = as_of(history, commit, slot);
            let index = slot as usize;
            assert_eq!(generations[index].is_some(), expected != 0);
            if expected != 0 {
                assert_eq!(values[index], expected, "a mix");
            }
        }
        commit
    }
}

/// What one model is made of: what is committed before the reader's cursors are warmed by a snapshot, after that, and
/// while it reads.
#[derive(Clone, Copy)]
struct Scene {
    before: &'static [Slots],
    lag: &'static [Slots],
    during: &'static [Slots],
    snapshots: u64,
    writer: Weakening,
    reader: Weakening,
}

/// Both cursors are cold.
const COLD: Scene = Scene {
    before: &[],
    lag: &[BOTH],
    during: &[BOTH, FIRST],
    snapshots: 1,
    writer: NOTHING,
    reader: NOTHING,
};

/// Both cursors are at the last transaction when the next are written.
const FOLLOWING: Scene = Scene {
    before: &[BOTH],
    lag: &[],
    during: &[BOTH, SECOND],
    snapshots: 1,
    writer: NOTHING,
    reader: NOTHING,
};

/// The cursors are at the first transaction, and more than the copies have been overwritten since.
const LAGGING: Scene = Scene {
    before: &[BOTH],
    lag: &[BOTH, FIRST, BOTH],
    during: &[FIRST, FIRST],
    snapshots: 1,
    writer: NOTHING,
    reader: NOTHING,
};

/// A slot gets its first values.
const NEW: Scene = Scene {
    before: &[FIRST],
    lag: &[],
    during: &[SECOND, SECOND, SECOND],
    snapshots: 1,
    writer: NOTHING,
    reader: NOTHING,
};

impl Scene {
    fn run(self) {
        let mut builder = loom::model::Builder::new();
        builder.preemption_bound = Some(3);
        builder.check(move || {
            let window = memory();
            let history = [self.before, self.lag, self.during].concat();
            let mut writer = Writer::new(window.weakened(self.writer));
            let mut reader = Reader::new(window.weakened(self.reader));
            writer.run(self.before);
            if !self.before.is_empty() {
                reader.look(&history, self.before.len() as u64);
            }
            writer.run(self.lag);
            let started = (self.before.len() + self.lag.len()) as u64;
            let progress = Arc::new(AtomicU64::new(started));

            let committed = progress.clone();
            let writer = thread::spawn(move || {
                for (done, slots) in (1..).zip(self.during) {
                    writer.run(&[*slots]);
                    committed.store(started + done, Ordering::Release);
                }
            });
            let mut last = 0;
            for _ in 0..self.snapshots {
                let complete = progress.load(Ordering::Acquire);
                let commit = reader.look(&history, complete);
                assert!(commit >= last, "backwards");
                last = commit;
            }
            writer.join().unwrap();
            let all = history.len() as u64;
            assert_eq!(reader.look(&history, all), all);
        });
    }
}

/// What a scan reports is committed: what is read then is at least as new, and nothing is missed.
fn reported(writing: Weakening, reading: Weakening) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(3);
    builder.check(move || {
        let window = memory();
        let mut writer = Writer::new(window.weakened(writing));
        let mut reader = Reader::new(window.weakened(reading)).0;
        writer.run(&[FIRST]);
        let writer = thread::spawn(move || writer.run(&[BOTH]));
        let mut look = || {
            let mut found = [None; SLOTS];
            reader.changed(|slot, generation| found[slot as usize] = Some(generation));
            for (slot, reported) in (0..).zip(found) {
                if let Some(reported) = reported {
                    assert!(reader.read(slot, &mut [0]).unwrap() >= reported);
                }
            }
        };
        look();
        writer.join().unwrap();
        look();
        assert_eq!(reader.generation(0).unwrap().count(), 2);
        assert_eq!(reader.generation(1).unwrap().count(), 1);
    });
}

fn is_caught(model: impl FnOnce()) {
    let outcome = catch_unwind(AssertUnwindSafe(model));
    assert!(outcome.is_err(), "the model did not notice");
}

#[test]
fn a_cold_reader_sees_one_transaction() {
    COLD.run();
}

#[test]
fn a_following_reader_sees_one_transaction() {
    FOLLOWING.run();
    let once = Scene {
        during: &[BOTH],
        ..FOLLOWING
    };
    Scene {
        snapshots: 2,
        ..once
    }
    .run();
    Scene {
        lag: &[BOTH],
        ..once
    }
    .run();
}

#[test]
fn a_lagging_reader_sees_one_transaction() {
    LAGGING.run();
}

#[test]
fn a_slot_has_no_value_before_its_first_transaction() {
    NEW.run();
}

#[test]
fn what_is_reported_is_committed() {
    reported(NOTHING, NOTHING);
}

#[test]
fn the_writers_orderings_are_needed() {
    let fenceless = Weakening {
        without_fence: Some(Ordering::Release),
        ..NOTHING
    };
    let relaxed = Weakening {
        relaxed_stores: true,
        ..NOTHING
    };
    for scene in [COLD, FOLLOWING, LAGGING, NEW] {
        for writer in [fenceless, relaxed] {
            is_caught(|| Scene { writer, ..scene }.run());
        }
    }
    is_caught(|| reported(relaxed, NOTHING));
}

/// Fence 0 is attaching's. A cold reader makes 1 behind the commit word, 2 behind the first head, 3 and more behind the
/// sequences that it finds complete and the copying. In the other scenes a first snapshot, of which nothing is left
/// out, makes 7, or 5 where a slot has no value.
#[test]
fn each_of_the_readers_fences_is_needed() {
    for (scene, numbers) in [
        (COLD, 1..=9),
        (FOLLOWING, 8..=11),
        (LAGGING, 9..=12),
        (NEW, 8..=11),
    ] {
        for number in numbers {
            let reader = Weakening {
                without_fence_number: Some(number),
                ..NOTHING
            };
            is_caught(|| Scene { reader, ..scene }.run());
        }
    }
}

#[test]
fn a_scan_needs_its_loads_acquired() {
    let relaxed_loads = Weakening {
        relaxed_loads: true,
        ..NOTHING
    };
    is_caught(|| reported(NOTHING, relaxed_loads));
}
