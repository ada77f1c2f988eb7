//! The writing process is killed again and again, by SIGKILL at any moment, and another one goes on: in the same memory,
//! or in new memory, as after sealing. A reader keeps complete values, and follows.

use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use shmbus_shm::slot::copy_stride;
use shmbus_shm::{Access, Mapped, Records, SharedMemory, Writers};
use shmbus_table::{Epoch, TableLayout, TableWriter};

use crate::counts::{Counts, print_progress};
use crate::observer::Observer;
use crate::process::{Assignment, Place, Process, announce};
use crate::stamped::{Progress, SLOTS, stamp, storage};
use crate::{SIZE_CLASSES, count_from};

const KILLS: u64 = 48;

type Writer = TableWriter<Mapped, Vec<u64>>;

/// With the writer dead: every slot has its last complete value, for the reader and for one that comes only now, which
/// may not see the last one if its head was not stored.
fn assert_all_there(observer: &mut Observer, window: &Mapped, layout: TableLayout) {
    let values = observer.counts.values;
    // The first look may say that the writer restarted.
    for slot in (0..SLOTS).chain(0..SLOTS) {
        observer.look(slot);
    }
    observer.scan(false);
    assert!(observer.counts.values - values >= u64::from(SLOTS));
    let mut cold = Observer::attach(window, layout);
    for slot in 0..SLOTS {
        let (_, number) = cold.look(slot).expect("a complete value");
        let followed = observer.last[slot as usize];
        assert!(number == followed || number + 1 == followed);
    }
    assert_eq!(cold.counts.violations(), 0);
}

/// The first life, in the process that runs the test: every slot has a value.
fn create(window: &Mapped, layout: TableLayout) {
    let mut writer =
        TableWriter::create(window.clone(), layout, 1, Epoch::FIRST, storage()).unwrap();
    let progress = Progress::new(window, layout);
    let mut value = vec![0; layout.slot_words()];
    stamp(&mut value, 1);
    for slot in 0..SLOTS {
        let _ = writer.publish(slot, &value).unwrap();
        progress.completed(slot, 1);
    }
}

/// How many copies were being written when the writer died.
fn half_written(window: &Mapped, layout: TableLayout) -> u64 {
    if layout.slot_bytes() == 8 {
        return 0;
    }
    let words = layout.slot_words();
    let count = layout.copies() as usize;
    let stride = copy_stride(words);
    (0..SLOTS as usize)
        .map(|slot| {
            let offset = layout.values_offset() + slot * count * stride;
            let copies = Records::new(window, offset, count, stride, words).unwrap();
            let odd = |copy: &u64| copies.load_header(*copy, Relaxed) % 2 == 1;
            (0..copies.count()).filter(odd).count() as u64
        })
        .sum()
}

/// A moment somewhere in the first part of a life: SplitMix64, so that the moments are spread evenly.
pub(crate) fn moment(number: u64) -> Duration {
    let mut z = (number + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    Duration::from_micros((z ^ (z >> 31)) % 1_500)
}

/// Publishes until killed, on from the values that were taken over.
fn write_for_ever(assignment: &Assignment, mut writer: Writer, window: &Mapped, last: &Observer) {
    let layout = assignment.layout;
    let progress = Progress::new(window, layout);
    let mut value = vec![0; layout.slot_words()];
    for number in 1u64.. {
        for slot in 0..SLOTS {
            let number = last.last[slot as usize] + number;
            stamp(&mut value, number);
            let _ = writer.publish(slot, &value).unwrap();
            progress.completed(slot, number);
        }
        writer.beat();
        if number.is_multiple_of(1 << 14) && assignment.is_orphaned() {
            return;
        }
    }
}

/// What a writer took over, looked at by itself.
fn taken_over(window: &Mapped, layout: TableLayout) -> Observer {
    let mut observer = Observer::attach(window, layout);
    for slot in 0..SLOTS {
        observer.look(slot).expect("a value that was taken over");
    }
    assert_eq!(observer.counts.violations(), 0);
    observer
}

/// The reader's part of one life, and the writer's end.
fn watch_and_kill(
    observer: &mut Observer,
    mut process: Process,
    window: &Mapped,
    layout: TableLayout,
    life: u64,
) {
    let end = Instant::now() + moment(life);
    while Instant::now() < end {
        for slot in 0..SLOTS {
            observer.look(slot);
        }
        observer.scan(false);
        observer.rest_if_idle();
    }
    process.kill();
    observer.counts.kills += 1;
    observer.counts.half_written += half_written(window, layout);
    assert_all_there(observer, window, layout);
}

/// Runs the lives of all sizes of slots.
fn every_size(what: &str, mut lives: impl FnMut(TableLayout, u64, &mut dyn FnMut()) -> Counts) {
    let kills = count_from("SHMBUS_KILLS", KILLS).div_ceil(2);
    let share = kills.div_ceil(SIZE_CLASSES.len() as u64);
    let mut total = Counts::NONE;
    let mut killed = 0;
    for (slot_bytes, copies, _) in SIZE_CLASSES {
        let layout = TableLayout::with_copies(SLOTS, slot_bytes, copies).unwrap();
        let counts = lives(layout, share, &mut || {
            killed += 1;
            print_progress(killed, kills, what);
        });
        counts.print(&format!("{slot_bytes} bytes, {copies} copies, {what}"));
        total += &counts;
    }
    assert_eq!(total.violations(), 0, "{total}");
    assert!(total.kills >= kills && total.newer > 0 && total.half_written > 0);
    // A writer that dies before it comes to a slot restarts unnoticed there.
    assert!(total.restarts > 0 && total.restarts <= total.kills * u64::from(SLOTS));
}

/// The writing process of `killed_and_restarted_in_place`; nothing in the process that runs the tests.
#[test]
fn writing_in_place() {
    let Some(assignment) = Assignment::get() else {
        return;
    };
    let layout = assignment.layout;
    let memory = assignment.place.map(layout, Access::ReadWrite);
    let window = memory.window();
    let (writer, recovered) = TableWriter::resume_in_place(window.clone(), storage()).unwrap();
    assert_eq!((recovered.values, recovered.lost), (SLOTS, 0));
    let last = taken_over(window, layout);
    write_for_ever(&assignment, writer, window, &last);
}

/// Memory that a successor can write is not sealed against writing, so the reader's mapping is not read-only either.
#[test]
fn killed_and_restarted_in_place() {
    if Assignment::get().is_some() {
        return;
    }
    every_size("kills in place", |layout, kills, told| {
        let bytes = Progress::memory_bytes(layout);
        let memory = SharedMemory::create("torture", bytes, Writers::Everybody).unwrap();
        let window = memory.window();
        create(window, layout);
        let mut observer = taken_over(window, layout);
        for life in 0..kills {
            let epoch = observer.epoch();
            let place = Some(Place::of(&memory));
            let mut process = Process::start("kills::writing_in_place", layout, place, 0);
            // Entering its epoch is the first thing that the new writer does; from there on it may die anywhere.
            while observer.epoch() == epoch {
                for slot in 0..SLOTS {
                    observer.look(slot);
                }
                observer.rest_if_idle();
                process.assert_runs();
            }
            watch_and_kill(&mut observer, process, window, layout, life);
            told();
        }
        observer.counts
    });
}

/// The writing process of `killed_and_restarted_in_new_memory`.
#[test]
fn writing_in_new_memory() {
    let Some(assignment) = Assignment::get() else {
        return;
    };
    let layout = assignment.layout;
    let old = assignment.place.map(layout, Access::Read);
    let bytes = Progress::memory_bytes(layout);
    let memory = SharedMemory::create("torture", bytes, Writers::Creator).unwrap();
    let window = memory.window();
    let (writer, recovered) = TableWriter::resume(old.window(), window.clone(), storage()).unwrap();
    assert_eq!((recovered.values, recovered.lost), (SLOTS, 0));
    let last = taken_over(window, layout);
    let progress = Progress::new(window, layout);
    for slot in 0..SLOTS {
        progress.completed(slot, last.last[slot as usize]);
    }
    announce(&memory);
    write_for_ever(&assignment, writer, window, &last);
}

#[test]
fn killed_and_restarted_in_new_memory() {
    if Assignment::get().is_some() {
        return;
    }
    every_size("kills into new memory", |layout, kills, told| {
        let bytes = Progress::memory_bytes(layout);
        let first = SharedMemory::create("torture", bytes, Writers::Creator).unwrap();
        create(first.window(), layout);
        let mut observer = taken_over(first.window(), layout);
        let mut place = Place::of(&first);
        let mut memory = first;
        for life in 0..kills {
            let mut process =
                Process::start("kills::writing_in_new_memory", layout, Some(place), 0);
            memory = process.announced_memory().map(layout, Access::Read);
            // The process will be gone: its successor gets the memory from here.
            place = Place::of(&memory);
            let epoch = observer.rebind(memory.window());
            assert_eq!(u64::from(epoch.get()), life + 2);
            watch_and_kill(&mut observer, process, memory.window(), layout, life);
            told();
        }
        drop(memory);
        assert_eq!(observer.counts.restarts, kills * u64::from(SLOTS));
        observer.counts
    });
}
