//! A writing process is killed at random moments and restarted under the next epoch, again and again. Its readers keep
//! a complete value of every slot all the time. `SHMBUS_KILLS` says how often.
#![cfg(not(miri))] // no processes there

mod process;

use std::io::{BufRead, BufReader, Write};
use std::ops::AddAssign;
use std::os::fd::{AsFd, AsRawFd};
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use process::{Assignment, WritingProcess, count_from, descriptor_of, number_of, stamp};
use shmbus_shm::slot::{ReadError as SlotError, copy_stride};
use shmbus_shm::{Access, Mapped, Records, SharedMemory, Writers};
use shmbus_table::{Epoch, ReadError, TableLayout, TableReader, TableWriter};

const SLOTS: u32 = 3;
const SIZE_CLASSES: [u32; 3] = [8, 64, 4096];
const KILLS: u64 = 240;

type Writer = TableWriter<Mapped, Vec<u64>>;

fn storage() -> Vec<u64> {
    vec![0; SLOTS as usize]
}

/// What was seen over all lives of the writer.
#[derive(Debug, Default)]
struct Seen {
    kills: u64,
    /// Kills in the middle of writing a copy.
    half_written: u64,
    values: u64,
    newer: u64,
    restarts: u64,
    lapped: u64,
}

impl AddAssign for Seen {
    fn add_assign(&mut self, other: Self) {
        self.kills += other.kills;
        self.half_written += other.half_written;
        self.values += other.values;
        self.newer += other.newer;
        self.restarts += other.restarts;
        self.lapped += other.lapped;
    }
}

/// A reader with what it must never fall behind.
struct Observer {
    reader: TableReader<Mapped, Vec<u64>>,
    value: Vec<u64>,
    last: [u64; SLOTS as usize],
    seen: Seen,
}

impl Observer {
    fn attach(window: &Mapped, layout: TableLayout) -> Self {
        Self {
            reader: TableReader::attach(window.clone(), storage(), storage()).unwrap(),
            value: vec![0; layout.slot_words()],
            last: [0; SLOTS as usize],
            seen: Seen::default(),
        }
    }

    fn look(&mut self) {
        for slot in 0..SLOTS {
            match self.reader.read(slot, &mut self.value) {
                Ok(_) => {
                    let number = number_of(&self.value);
                    let last = &mut self.last[slot as usize];
                    assert!(number >= *last, "backwards from {last} to {number}");
                    self.seen.newer += u64::from(number > *last);
                    self.seen.values += 1;
                    *last = number;
                }
                Err(ReadError::Slot(SlotError::Restarted { .. })) => self.seen.restarts += 1,
                Err(ReadError::Slot(SlotError::Lapped)) => self.seen.lapped += 1,
                Err(error) => panic!("slot {slot}: {error}"),
            }
        }
    }

    fn look_for(&mut self, time: Duration) {
        let end = Instant::now() + time;
        while Instant::now() < end {
            self.look();
        }
    }

    /// With the writer dead: every slot has a complete value, for this reader and for one that comes only now, which
    /// may not see the last one if its head was not stored.
    fn assert_all_there(&mut self, window: &Mapped, layout: TableLayout) {
        let values = self.seen.values;
        self.look();
        self.look();
        assert!(self.seen.values - values >= u64::from(SLOTS));
        let mut cold = Self::attach(window, layout);
        cold.look();
        assert_eq!(cold.seen.values, u64::from(SLOTS));
        for (cold, followed) in cold.last.iter().zip(self.last) {
            assert!(*cold == followed || *cold + 1 == followed);
        }
    }
}

/// The first life, in the process that runs the test: every slot has a value.
fn create(window: &Mapped, layout: TableLayout) {
    let mut writer =
        TableWriter::create(window.clone(), layout, 1, Epoch::FIRST, storage()).unwrap();
    let mut value = vec![0; layout.slot_words()];
    stamp(&mut value, 1);
    for slot in 0..SLOTS {
        let _ = writer.publish(slot, &value).unwrap();
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
fn moment(number: u64) -> Duration {
    let mut z = (number + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    Duration::from_micros((z ^ (z >> 31)) % 1_500)
}

/// Publishes until killed.
fn write_for_ever(assignment: &Assignment, mut writer: Writer, window: &Mapped) {
    let layout = assignment.layout;
    let mut own = Observer::attach(window, layout);
    own.look();
    let mut value = vec![0; layout.slot_words()];
    for number in 1u64.. {
        for slot in 0..SLOTS {
            stamp(&mut value, own.last[slot as usize] + number);
            let _ = writer.publish(slot, &value).unwrap();
        }
        writer.beat();
        if number.is_multiple_of(1 << 14) && assignment.is_orphaned() {
            return;
        }
    }
}

/// The writing process of `killed_and_restarted_in_place`; nothing in the process that runs the tests.
#[test]
fn writing_in_place() {
    let Some(assignment) = Assignment::get() else {
        return;
    };
    let memory = assignment.map(Access::ReadWrite);
    let window = memory.window();
    let (writer, _) = TableWriter::resume_in_place(window.clone(), storage()).unwrap();
    write_for_ever(&assignment, writer, window);
}

#[test]
fn killed_and_restarted_in_place() {
    let kills = count_from("SHMBUS_KILLS", KILLS).div_ceil(2);
    let mut all = Seen::default();
    for slot_bytes in SIZE_CLASSES {
        let layout = TableLayout::new(SLOTS, slot_bytes).unwrap();
        let memory =
            SharedMemory::create("crash", layout.bytes() as u64, Writers::Everybody).unwrap();
        let window = memory.window();
        create(window, layout);
        let mut observer = Observer::attach(window, layout);
        observer.look();
        for life in 0..kills.div_ceil(SIZE_CLASSES.len() as u64) {
            let epoch = observer.reader.epoch();
            let mut process = WritingProcess::start("writing_in_place", &memory, layout);
            // Entering its epoch is the first thing that the new writer does; from there on it may die anywhere.
            while observer.reader.epoch() == epoch {
                observer.look();
                let ended = process.child().try_wait().unwrap();
                assert!(ended.is_none(), "the writing process gave up: {ended:?}");
            }
            observer.look_for(moment(life));
            process.kill();
            observer.seen.kills += 1;
            observer.seen.half_written += half_written(window, layout);
            observer.assert_all_there(window, layout);
        }
        all += observer.seen;
    }
    eprintln!("in place: {all:?}");
    // A writer that dies before it comes to a slot again restarts unnoticed there.
    assert!(all.restarts > 0 && all.restarts <= all.kills * u64::from(SLOTS));
    assert!(all.kills >= kills && all.newer > 0 && all.half_written > 0);
}

/// The writing process of `killed_and_restarted_in_new_memory`.
#[test]
fn writing_in_new_memory() {
    let Some(assignment) = Assignment::get() else {
        return;
    };
    let old = assignment.map(Access::Read);
    let bytes = assignment.layout.bytes() as u64;
    let memory = SharedMemory::create("crash", bytes, Writers::Creator).unwrap();
    let (writer, recovered) =
        TableWriter::resume(old.window(), memory.window().clone(), storage()).unwrap();
    assert_eq!((recovered.values, recovered.lost), (SLOTS, 0));
    let mut output = std::io::stdout().lock();
    writeln!(output, "\nmemory {}", memory.as_fd().as_raw_fd()).unwrap();
    output.flush().unwrap();
    drop(output);
    write_for_ever(&assignment, writer, memory.window());
}

/// Takes in the memory that a writing process announces.
fn announced_memory(process: &mut WritingProcess, bytes: u64) -> SharedMemory {
    let id = process.child().id();
    let output = process.child().stdout.take().unwrap();
    let fd = BufReader::new(output)
        .lines()
        .map_while(Result::ok)
        .find_map(|line| line.strip_prefix("memory ")?.parse().ok())
        .expect("the writing process announces its memory");
    SharedMemory::from_peer(descriptor_of(id, fd, false), bytes, Access::Read).unwrap()
}

#[test]
fn killed_and_restarted_in_new_memory() {
    let kills = count_from("SHMBUS_KILLS", KILLS).div_ceil(2);
    let mut all = Seen::default();
    for slot_bytes in SIZE_CLASSES {
        let layout = TableLayout::new(SLOTS, slot_bytes).unwrap();
        let bytes = layout.bytes() as u64;
        let mut memory = SharedMemory::create("crash", bytes, Writers::Creator).unwrap();
        create(memory.window(), layout);
        let mut observer = Observer::attach(memory.window(), layout);
        observer.look();
        for life in 0..kills.div_ceil(SIZE_CLASSES.len() as u64) {
            let mut process = WritingProcess::start("writing_in_new_memory", &memory, layout);
            memory = announced_memory(&mut process, bytes);
            let epoch = observer.reader.rebind(memory.window().clone()).unwrap();
            assert_eq!(u64::from(epoch.get()), life + 2);
            observer.look_for(moment(life));
            process.kill();
            observer.seen.kills += 1;
            observer.seen.half_written += half_written(memory.window(), layout);
            observer.assert_all_there(memory.window(), layout);
        }
        all += observer.seen;
    }
    eprintln!("in new memory: {all:?}");
    assert!(all.kills >= kills && all.restarts == all.kills * u64::from(SLOTS));
    assert!(all.newer > 0 && all.half_written > 0);
}
