//! A writing process and reading ones over its sealed memory, none of which is in anybody's way.

use std::sync::mpsc;
use std::thread;

use shmbus_shm::{Access, SharedMemory, Writers};
use shmbus_table::{Epoch, TableLayout, TableWriter};

use crate::counts::{Counts, print_progress};
use crate::observer::Observer;
use crate::process::{Assignment, Process, announce, say};
use crate::stamped::{Progress, SLOTS, stamp, storage};
use crate::{SIZE_CLASSES, count_from};

const READS: u64 = 1_000_000;

/// The most reading processes there are: as many as leave the writer a processor of its own.
const MOST_READERS: usize = 3;

/// A reader goes on until at least one in so many values was news to it, and until so many were in all.
const ONE_NEW_IN: u64 = 1_000;
const LEAST_NEW: u64 = 1_000;

/// After how many values a reader scans for changes, and says how far it is.
const SCAN_EVERY: u64 = 64;
const TELL_EVERY: u64 = 1 << 18;

/// The writing process; nothing in the process that runs the tests. It writes in bursts, and between them one value at
/// a time with pauses of different lengths: for readers that are lapped, lag, follow and find nothing new.
#[test]
fn writing() {
    let Some(assignment) = Assignment::get() else {
        return;
    };
    let layout = assignment.layout;
    let bytes = Progress::memory_bytes(layout);
    let memory = SharedMemory::create("torture", bytes, Writers::Creator).unwrap();
    let window = memory.window();
    let progress = Progress::new(window, layout);
    let mut writer =
        TableWriter::create(window.clone(), layout, 1, Epoch::FIRST, storage()).unwrap();
    announce(&memory);
    let mut value = vec![0; layout.slot_words()];
    for number in 1u64.. {
        for slot in 0..SLOTS {
            stamp(&mut value, number);
            let _ = writer.publish(slot, &value).unwrap();
            progress.completed(slot, number);
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

/// A reading process. It says what it has counted, again and again and at its end.
#[test]
fn reading() {
    let Some(assignment) = Assignment::get() else {
        return;
    };
    let layout = assignment.layout;
    let memory = assignment.place.map(layout, Access::Read);
    let mut observer = Observer::attach(memory.window(), layout);
    // A small slot's generation is a lower bound of its value's.
    let is_exact = layout.slot_bytes() > 8;
    let (mut told, mut scanned) = (0, 0);
    let newer = LEAST_NEW.max(assignment.reads / ONE_NEW_IN);
    while observer.counts.values < assignment.reads || observer.counts.newer < newer {
        for slot in 0..SLOTS {
            if let Some((generation, number)) = observer.look(slot) {
                let count = generation.count();
                let is_named = number == count || number > count && !is_exact;
                observer.counts.misnamed += u64::from(!is_named);
            }
        }
        let values = observer.counts.values;
        if values >= scanned + SCAN_EVERY {
            observer.scan(true);
            scanned = values;
        }
        if values >= told + TELL_EVERY {
            say("counted ", &observer.counts.to_string());
            told = values;
            if assignment.is_orphaned() {
                return;
            }
        }
        observer.rest_if_idle();
    }
    say("counted ", &observer.counts.to_string());
}

/// Runs a writer and its readers; `tell` is told how many values have been read so far.
fn one_size(layout: TableLayout, reads: u64, mut tell: impl FnMut(u64)) -> Counts {
    let mut writing = Process::start("reads::writing", layout, None, 0);
    let place = writing.announced_memory();
    let processors = thread::available_parallelism().map_or(1, usize::from);
    let readers = (processors - 1).clamp(1, MOST_READERS);
    let share = reads.div_ceil(readers as u64);
    let (sender, counted) = mpsc::channel();
    thread::scope(|scope| {
        for reader in 0..readers {
            let sender = sender.clone();
            scope.spawn(move || {
                let mut reading = Process::start("reads::reading", layout, Some(place), share);
                while let Some(counts) = reading.said("counted ") {
                    let counts: Counts = counts.parse().unwrap();
                    sender.send((reader, counts)).unwrap();
                }
                reading.assert_succeeds();
            });
        }
        drop(sender);
        let mut latest = vec![Counts::NONE; readers];
        for (reader, counts) in counted {
            latest[reader] = counts;
            tell(latest.iter().map(|counts| counts.values).sum());
        }
        let mut total = Counts::NONE;
        latest.iter().for_each(|counts| total += counts);
        total
    })
}

#[test]
fn no_value_is_torn_or_old() {
    if Assignment::get().is_some() {
        return;
    }
    let reads = count_from("SHMBUS_READS", READS);
    let mut total = Counts::NONE;
    for (slot_bytes, copies, percent) in SIZE_CLASSES {
        let layout = TableLayout::with_copies(SLOTS, slot_bytes, copies).unwrap();
        let share = (reads * percent).div_ceil(100);
        let before = total.values;
        let counts = one_size(layout, share, |values| {
            print_progress(before + values, reads, "reads");
        });
        counts.print(&format!("{slot_bytes} bytes, {copies} copies, reads"));
        assert!(counts.values >= share && counts.newer >= LEAST_NEW && counts.reports > 0);
        total += &counts;
    }
    assert!(total.values >= reads);
    assert_eq!(total.violations(), 0, "{total}");
}
