//! Transactions between processes: the writer is killed at any moment, and another one goes on in new memory. A snapshot is
//! always that of one transaction.

use std::time::Instant;

use shmbus_shm::slot::copy_stride;
use shmbus_shm::{Access, Field, Mapped, Records, SharedMemory, Writers};
use shmbus_table::{
    Epoch, Generation, SnapshotError, SnapshotReader, TableLayout, TableOptions, TransactionWriter,
};

use crate::count_from;
use crate::kills::moment;
use crate::process::{Assignment, Place, Process, announce};
use crate::stamped::{Progress, SLOTS, number_of, stamp, storage};

const KILLS: u64 = 24;

/// Bytes and copies of a slot.
const SIZES: [(u32, u32); 4] = [(8, 2), (64, 4), (256, 2), (4096, 2)];

const ALL: [u32; SLOTS as usize] = [0, 1, 2];

fn layout(slot_bytes: u32, copies: u32) -> TableLayout {
    let options = TableOptions::new().copies(copies).transactions();
    TableLayout::with_options(SLOTS, slot_bytes, options).unwrap()
}

fn staging(layout: TableLayout) -> Vec<u64> {
    vec![0; TransactionWriter::<Mapped, Vec<u64>>::staging_words(layout, SLOTS as usize)]
}

/// The slots that transaction `number` writes: all, or the first alone.
fn slots_of(number: u64) -> &'static [u32] {
    if number.is_multiple_of(2) {
        &ALL
    } else {
        &ALL[..1]
    }
}

struct Observer {
    reader: SnapshotReader<Mapped, Vec<u64>>,
    values: Vec<u64>,
    /// The transaction of the last snapshot.
    last: u64,
    snapshots: u64,
    newer: u64,
    lapped: u64,
    restarts: u64,
}

impl Observer {
    fn attach(window: &Mapped, layout: TableLayout) -> Self {
        Self {
            reader: SnapshotReader::attach(window.clone(), storage(), storage()).unwrap(),
            values: vec![0; SLOTS as usize * layout.slot_words()],
            last: 0,
            snapshots: 0,
            newer: 0,
            lapped: 0,
            restarts: 0,
        }
    }

    /// Takes a snapshot: each slot is what the transactions up to one have made it, not before `complete`.
    fn look(&mut self, complete: u64) {
        let mut generations = [None::<Generation>; SLOTS as usize];
        match self
            .reader
            .read_together(&ALL, &mut self.values, &mut generations)
        {
            Ok(_) => {
                let words = self.reader.layout().slot_words();
                let values = self.values.chunks(words);
                let numbers: Vec<u64> = values.map(|it| number_of(it).expect("torn")).collect();
                let number = numbers[0];
                assert_eq!(numbers[1..], [number & !1; 2], "a mix with {number}");
                assert!(number >= complete, "older than the call");
                assert!(number >= self.last, "backwards");
                self.newer += u64::from(number > self.last);
                self.last = number;
                self.snapshots += 1;
            }
            Err(SnapshotError::Lapped { .. }) => self.lapped += 1,
            Err(SnapshotError::Restarted { .. }) => self.restarts += 1,
            Err(error) => panic!("an honest writer: {error}"),
        }
    }
}

/// Commits transaction `number`.
fn write(writer: &mut TransactionWriter<Mapped, Vec<u64>>, value: &mut [u64], number: u64) {
    stamp(value, number);
    let mut transaction = writer.begin();
    for slot in slots_of(number) {
        transaction.stage(*slot, value).unwrap();
    }
    let _ = transaction.commit().unwrap();
}

/// How many copies hold what was not committed when the writer died, whole or not.
fn uncommitted(window: &Mapped, layout: TableLayout) -> usize {
    let words = layout.slot_words() + 1;
    let (count, stride) = (layout.copies() as usize, copy_stride(words));
    let commit = Field::<u64, _>::new(window, 64).unwrap();
    let commit = commit.load(std::sync::atomic::Ordering::Relaxed);
    let numbers = (0..SLOTS as usize * count).map(|copy| {
        let offset = layout.values_offset() + copy * stride;
        let copies = Records::new(window, offset, 1, stride, words).unwrap();
        let mut number = [0];
        copies.load_payload(0, &mut number);
        number[0]
    });
    numbers.filter(|number| *number > commit).count()
}

/// The writing process of `a_snapshot_is_one_transaction`; nothing in the process that runs the tests.
#[test]
fn writing() {
    let Some(assignment) = Assignment::get() else {
        return;
    };
    let layout = assignment.layout;
    let old = assignment.place.map(layout, Access::Read);
    let bytes = Progress::memory_bytes(layout);
    let memory = SharedMemory::create("torture", bytes, Writers::Creator).unwrap();
    let window = memory.window();
    let (mut writer, recovered) =
        TransactionWriter::resume(old.window(), window.clone(), storage(), staging(layout))
            .unwrap();
    assert_eq!((recovered.values, recovered.lost), (SLOTS, 0));
    let mut own = Observer::attach(window, layout);
    own.look(2);
    let progress = Progress::new(window, layout);
    progress.completed(0, own.last);
    announce(&memory);
    let mut value = vec![0; layout.slot_words()];
    for number in own.last + 1.. {
        write(&mut writer, &mut value, number);
        progress.completed(0, number);
        if number.is_multiple_of(1 << 14) && assignment.is_orphaned() {
            return;
        }
    }
}

#[test]
fn a_snapshot_is_one_transaction() {
    if Assignment::get().is_some() {
        return;
    }
    let kills = count_from("SHMBUS_KILLS", KILLS).div_ceil(SIZES.len() as u64);
    let (mut snapshots, mut newer, mut in_the_middle) = (0, 0, 0);
    for (slot_bytes, copies) in SIZES {
        let layout = layout(slot_bytes, copies);
        let bytes = Progress::memory_bytes(layout);
        let mut memory = SharedMemory::create("torture", bytes, Writers::Creator).unwrap();
        let window = memory.window().clone();
        let first = Epoch::FIRST;
        let writer =
            TransactionWriter::create(window, layout, 1, first, storage(), staging(layout));
        write(&mut writer.unwrap(), &mut vec![0; layout.slot_words()], 2);
        let mut observer = Observer::attach(memory.window(), layout);
        observer.look(2);
        for life in 0..kills {
            let place = Some(Place::of(&memory));
            let mut process = Process::start("transactions::writing", layout, place, 0);
            memory = process.announced_memory().map(layout, Access::Read);
            let progress = Progress::new(memory.window(), layout);
            observer.reader.rebind(memory.window().clone()).unwrap();
            let end = Instant::now() + moment(life);
            while Instant::now() < end {
                observer.look(progress.complete(0));
            }
            process.kill();
            let left = uncommitted(memory.window(), layout);
            in_the_middle += u64::from(left > 0);
            // The writer is dead: whoever comes sees the same, all the time.
            observer.look(progress.complete(0));
            let mut cold = Observer::attach(memory.window(), layout);
            cold.look(progress.complete(0));
            observer.look(cold.last);
            assert_eq!((observer.last, cold.snapshots), (cold.last, 1));
        }
        assert_eq!(observer.restarts, kills);
        snapshots += observer.snapshots;
        newer += observer.newer;
        eprintln!(
            "{slot_bytes} bytes, {copies} copies: {kills} kills, {} snapshots, {} lapped",
            observer.snapshots, observer.lapped
        );
    }
    eprintln!("{in_the_middle} killed in the middle of a transaction");
    assert!(snapshots > 0 && newer > 0);
    // About one kill in ten is.
    assert!(in_the_middle > 0 || kills * (SIZES.len() as u64) < 200);
}
