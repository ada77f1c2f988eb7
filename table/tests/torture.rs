//! A writing and a reading process over one memory: no value is torn, none goes backwards, none is older than what was
//! complete when the call began. `SHMBUS_READS` says how many reads.
#![cfg(not(miri))] // no processes there

mod process;

use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};

use process::{Assignment, WritingProcess, count_from, number_of, stamp};
use shmbus_shm::slot::ReadError as SlotError;
use shmbus_shm::{Access, Entries, Mapped, SharedMemory, Window, Writers};
use shmbus_table::{Epoch, ReadError, TableLayout, TableReader, TableWriter};

const SLOTS: u32 = 2;
const READS: u64 = 10_000_000;

/// For each size class the reader goes on until it has been given so many values that were news to it.
const NEWER: u64 = 1_000;

/// Size classes with their shares of the reads, in percent.
const SIZE_CLASSES: [(u32, u64); 6] = [(8, 30), (16, 20), (56, 20), (64, 20), (512, 6), (4096, 4)];

/// Behind the table: what the writer has completed, a word for each slot. It is not part of the table.
fn progress(window: &Mapped, layout: TableLayout) -> Entries<u64, Mapped> {
    Entries::new(window, layout.bytes(), SLOTS as usize).unwrap()
}

fn storage() -> Vec<u64> {
    vec![0; SLOTS as usize]
}

/// The writing process; nothing in the process that runs the tests. It writes in bursts, and between them one value at
/// a time with pauses of different lengths: for readers that are lapped, lag, follow and find nothing new.
#[test]
fn writing() {
    let Some(assignment) = Assignment::get() else {
        return;
    };
    let layout = assignment.layout;
    let memory = assignment.map(Access::ReadWrite);
    let progress = progress(memory.window(), layout);
    let mut writer =
        TableWriter::create(memory.window().clone(), layout, 1, Epoch::FIRST, storage()).unwrap();
    let mut value = vec![0; layout.slot_words()];
    for number in 1u64.. {
        for slot in 0..SLOTS {
            stamp(&mut value, number);
            let _ = writer.publish(slot, &value).unwrap();
            progress.store(slot as usize, number, Release);
        }
        let pause = match number >> 12 & 3 {
            0 => 0,
            shift => 1 << (2 * shift),
        };
        for _ in 0..pause {
            std::hint::spin_loop();
        }
        if number.is_multiple_of(1 << 14) && assignment.is_orphaned() {
            return;
        }
    }
}

#[derive(Debug, Default)]
struct Counts {
    values: u64,
    newer: u64,
    lapped: u64,
    reports: u64,
}

/// Reads `reads` values or more; a read that gives none does not count.
fn read(window: &Mapped, layout: TableLayout, reads: u64) -> Counts {
    let progress = progress(window, layout);
    let mut reader = loop {
        // Until the writing process has set it up, it is no table.
        if let Ok(reader) = TableReader::attach(window.clone(), storage(), storage()) {
            break reader;
        }
        std::thread::yield_now();
    };
    let mut value = vec![0; layout.slot_words()];
    let mut last = [0; SLOTS as usize];
    let mut counts = Counts::default();
    let mut idle = 0;
    while counts.values < reads || counts.newer < NEWER {
        for slot in 0..SLOTS {
            let complete = progress.load(slot as usize, Relaxed);
            window.fence(Acquire);
            match reader.read(slot, &mut value) {
                Ok(generation) => {
                    let number = number_of(&value);
                    assert!(
                        generation.count() >= complete,
                        "older than the call's begin"
                    );
                    // A small slot's generation is a lower bound of its value's.
                    let is_exact = layout.slot_bytes() > 8;
                    assert!(
                        number == generation.count() || number > generation.count() && !is_exact
                    );
                    let last = &mut last[slot as usize];
                    assert!(number >= *last, "backwards");
                    idle = if number > *last { 0 } else { idle + 1 };
                    counts.newer += u64::from(number > *last);
                    counts.values += 1;
                    *last = number;
                }
                Err(ReadError::Slot(SlotError::Lapped)) => counts.lapped += 1,
                Err(ReadError::Slot(SlotError::NeverWritten)) => assert_eq!(complete, 0),
                Err(error) => panic!("slot {slot}: {error}"),
            }
        }
        if idle > 1_000 {
            // Both processes on one processor: the writer must come to its turn.
            std::thread::yield_now();
            idle = 0;
        }
        if counts.values.is_multiple_of(64) {
            reader.changed(|_, _| counts.reports += 1);
        }
    }
    counts
}

#[test]
fn two_processes() {
    let reads = count_from("SHMBUS_READS", READS);
    let mut total = 0;
    for (slot_bytes, percent) in SIZE_CLASSES {
        let layout = TableLayout::new(SLOTS, slot_bytes).unwrap();
        let bytes = layout.bytes() as u64 + 64;
        let memory = SharedMemory::create("torture", bytes, Writers::Everybody).unwrap();
        let _writing = WritingProcess::start("writing", &memory, layout);
        let counts = read(memory.window(), layout, (reads * percent).div_ceil(100));
        eprintln!("{slot_bytes} bytes: {counts:?}, 0 torn, 0 backwards, 0 too old");
        assert!(counts.values > 0 && counts.newer >= NEWER && counts.reports > 0);
        total += counts.values;
    }
    eprintln!("{total} values read");
    assert!(total >= reads);
}
