//! Pinnable slots under loom: 4 copies and one subscribed reader, or 2 copies and none; one payload word.
//!
//! That a pinned value is not touched is more than that its reader notices when it is: the model keeps beside each copy a
//! cell in which loom looks for unsynchronised accesses. The writer writes to it with the payload; a reader reads it while it
//! has the copy pinned. So also the orders by which a copy is *given back* are caught, though loom lets no load find a store
//! that is made later.
#![cfg(not(miri))]

use std::panic::{AssertUnwindSafe, catch_unwind};

use core::sync::atomic::Ordering;

use loom::cell::UnsafeCell;
use loom::sync::Arc;
use loom::sync::atomic::AtomicU64;
use loom::thread;
use shmbus_shm::slot::pinned::{
    AnnouncementAt, CopyOrder, PinnableReader, PinnableWriter, PlaceAt,
};
use shmbus_shm::slot::{Epoch, ReadCursor, WriteCursor};
use shmbus_shm::testing::{LoomWindow, Probe, Probed, Weakening};
use shmbus_shm::{Entries, Field, Records, Rows, Window};

/// The most copies of a slot here.
const MOST: usize = 4;
/// Where the copies start, behind the head, and the place on its line.
const COPIES_AT: usize = 128;
const STRIDE: usize = 16;
/// How many stores a publication makes.
const STORES: usize = 6;

/// Of a publication's stores, those that are ordered.
const INTENT: usize = 0;
const BEGIN: usize = 1;
const END: usize = 3;
const PLACE: usize = 4;

fn memory() -> LoomWindow {
    LoomWindow::builder()
        .words::<u64>(0, 1)
        .words::<u64>(64, 8)
        .words::<u64>(COPIES_AT, 2 * MOST)
        .build()
}

fn announcements() -> LoomWindow {
    LoomWindow::builder().words::<u64>(0, 1).build()
}

/// A cell for each copy, which stands for accesses to its payload that are not atomic.
#[derive(Clone)]
struct Cells(Arc<[UnsafeCell<()>; MOST]>);

// SAFETY: the cells hold nothing. Loom looks at who accesses them, and that is what they are for.
unsafe impl Send for Cells {}
// SAFETY: as for `Send`.
unsafe impl Sync for Cells {}

impl Cells {
    fn new() -> Self {
        Self(Arc::new(core::array::from_fn(|_| UnsafeCell::new(()))))
    }

    fn look_at(&self, copy: u64) {
        self.0[copy as usize].with(|_| ());
    }
}

impl Probe for Cells {
    fn store(&self, offset: usize, _: usize, _: u64) -> bool {
        if let Some(offset) = offset.checked_sub(COPIES_AT)
            && offset % STRIDE != 0
        {
            self.0[offset / STRIDE].with_mut(|_| ());
        }
        true
    }
}

/// The views of a slot that are not borrowed.
struct Slot<W> {
    window: W,
    count: usize,
    head: Field<u64, W>,
    lines: Rows<u64, W, 8>,
}

impl<W: Window> Slot<W> {
    fn new(window: W, count: usize) -> Self {
        Self {
            count,
            head: Field::new(&window, 0).unwrap(),
            lines: Rows::new(&window, 64, 1.try_into().unwrap()).unwrap(),
            window,
        }
    }

    fn copies(&self) -> Records<'_, W> {
        Records::new(&self.window, COPIES_AT, self.count, STRIDE, 1).unwrap()
    }

    fn reader(&self) -> PinnableReader<'_, W> {
        PinnableReader::new(self.copies(), PlaceAt::new(&self.lines, 0))
    }
}

fn value_of(count: u64) -> u64 {
    count * 100
}

/// A writer and the reader that it has subscribed.
struct Writer<W, A> {
    slot: Slot<W>,
    reader: Option<Entries<u64, A>>,
    cursor: WriteCursor,
    order: CopyOrder,
}

impl<W: Window, A: Window> Writer<W, A> {
    fn publish(&mut self) -> u64 {
        let count = (self.cursor.word() & 0xffff) + 1;
        let place = PlaceAt::new(&self.slot.lines, 0);
        let announced = self
            .reader
            .iter()
            .map(|words| AnnouncementAt::new(words, 0));
        PinnableWriter::new(self.slot.copies(), place, &self.slot.head)
            .publish(
                &mut self.cursor,
                &mut self.order,
                &[value_of(count)],
                announced,
            )
            .unwrap();
        count
    }

    /// The same writer over other views of its memory.
    fn over<V, B>(self, slot: V, reader: B) -> Writer<V, B>
    where
        V: Window,
        B: Window,
    {
        Writer {
            slot: Slot::new(slot, self.slot.count),
            reader: self.reader.map(|_| Entries::new(&reader, 0, 1).unwrap()),
            cursor: self.cursor,
            order: self.order,
        }
    }
}

#[derive(Clone, Copy, PartialEq)]
enum How {
    Pinned,
    /// The writer has unsubscribed the reader, which does not know yet.
    Unheard,
    /// The writer subscribes the reader after so many publications, and the reader pins if it has come to know of it, by a
    /// word without any order of its own.
    Late(u64),
    Copied,
}

/// What one model is made of.
#[derive(Clone, Copy)]
struct Scene {
    copies: usize,
    /// Values written while the reader reads, after a first one.
    during: u64,
    /// How the reader reads, and how often.
    how: How,
    reads: u64,
    /// One of the writer's stores is relaxed.
    relaxed: Option<usize>,
    writer: Weakening,
    reader: Weakening,
    /// Left out on both sides' accesses to the announcement.
    announcing: Weakening,
}

const NOTHING: Weakening = Weakening {
    without_fence: None,
    without_fence_number: None,
    relaxed_loads: false,
    relaxed_stores: false,
};

const fn without(order: Ordering) -> Weakening {
    Weakening {
        without_fence: Some(order),
        ..NOTHING
    }
}

/// The third publication is the first that could overwrite what the reader pins; a fourth one announces what it did.
const PINNED: Scene = Scene {
    copies: 4,
    during: 4,
    how: How::Pinned,
    reads: 1,
    relaxed: None,
    writer: NOTHING,
    reader: NOTHING,
    announcing: NOTHING,
};

/// With two copies the second publication overwrites the first value.
const COPIED: Scene = Scene {
    copies: 2,
    during: 2,
    how: How::Copied,
    reads: 2,
    ..PINNED
};

impl Scene {
    fn run(self) {
        let mut builder = loom::model::Builder::new();
        builder.preemption_bound = Some(3);
        builder.check(move || self.once());
    }

    fn once(self) {
        let (memory, announced, cells) = (memory(), announcements(), Cells::new());
        let progress = Arc::new(AtomicU64::new(1));
        let subscribed = Arc::new(AtomicU64::new(0));
        let mut writer = Writer {
            slot: Slot::new(Probed::new(memory.clone(), cells.clone()), self.copies),
            reader: Some(Entries::new(&announced, 0, 1).unwrap()),
            cursor: WriteCursor::new(Epoch::FIRST),
            order: CopyOrder::FIRST,
        };
        PlaceAt::new(&writer.slot.lines, 0).reset(writer.order, self.copies);
        writer.publish();

        let mut own = memory.weakened(self.writer);
        if let Some(nth) = self.relaxed {
            own = own.with_relaxed_store(nth, STORES);
        }
        let mut writer = writer.over(Probed::new(own, cells.clone()), announced.clone());
        let (complete, seat) = (progress.clone(), subscribed.clone());
        let writing = thread::spawn(move || {
            let words = writer.reader.take_if(|_| self.how != How::Pinned);
            for number in 1..=self.during {
                let count = writer.publish();
                complete.store(count, Ordering::Release);
                if self.how == How::Late(number) {
                    writer.reader = words.clone();
                    seat.store(1, Ordering::Relaxed);
                }
            }
        });

        let slot = Slot::new(memory.weakened(self.reader), self.copies);
        let words = Entries::new(&announced.weakened(self.announcing), 0, 1).unwrap();
        let mut cursor = ReadCursor::default();
        let mut last = 0;
        let is_heard = !matches!(self.how, How::Late(_)) || subscribed.load(Ordering::Relaxed) == 1;
        for _ in 0..if is_heard { self.reads } else { 0 } {
            let complete = progress.load(Ordering::Acquire);
            let (count, value) = match self.how {
                How::Copied => {
                    let mut value = [0];
                    let generation = slot.reader().read(&mut cursor, &mut value).unwrap();
                    (generation.count(), value[0])
                }
                How::Pinned | How::Unheard | How::Late(_) => {
                    let announcement = AnnouncementAt::new(&words, 0);
                    let pinned = slot.reader().pin(&mut cursor, announcement).unwrap();
                    let value = pinned.word(0).unwrap();
                    if self.how == How::Unheard {
                        if !pinned.check() {
                            continue;
                        }
                    } else {
                        // What it has announced is what it looks at.
                        cells.look_at(words.load(0, Ordering::Relaxed) - 1);
                        assert!(pinned.check(), "overwritten");
                    }
                    (pinned.generation().count(), value)
                }
            };
            assert_eq!(value, value_of(count), "torn");
            assert!(count >= complete, "older than the call");
            assert!(count >= last, "backwards");
            last = count;
        }
        writing.join().unwrap();
        let mut value = [0];
        let newest = slot.reader().read(&mut cursor, &mut value);
        assert_eq!(newest.unwrap().count(), 1 + self.during);
    }

    /// Shows that the model notices what is left out.
    fn is_caught(self) {
        let outcome = catch_unwind(AssertUnwindSafe(|| self.run()));
        assert!(outcome.is_err(), "the model did not notice");
    }
}

const UNHEARD: Scene = Scene {
    copies: 2,
    during: 2,
    how: How::Unheard,
    ..PINNED
};

/// The second publication overwrites the first value, and hears nobody.
const LATE: Scene = Scene {
    copies: 2,
    during: 2,
    how: How::Late(2),
    ..PINNED
};

#[test]
fn a_pinned_value_is_not_touched() {
    PINNED.run();
    Scene {
        reads: 2,
        during: 3,
        ..PINNED
    }
    .run();
}

#[test]
fn a_reader_that_is_subscribed_late_is_heard() {
    LATE.run();
    Scene {
        copies: 4,
        during: 4,
        how: How::Late(1),
        ..LATE
    }
    .run();
}

#[test]
fn a_reader_that_was_unsubscribed_is_not_deceived() {
    UNHEARD.run();
}

#[test]
fn a_value_is_copied_whole() {
    COPIED.run();
}

#[test]
fn each_sides_full_fence_is_needed() {
    let fenceless = without(Ordering::SeqCst);
    Scene {
        writer: fenceless,
        ..PINNED
    }
    .is_caught();
    Scene {
        reader: fenceless,
        ..PINNED
    }
    .is_caught();
}

#[test]
fn the_writers_other_fences_are_needed() {
    for (scene, order) in [
        (PINNED, Ordering::Acquire),
        (UNHEARD, Ordering::Release),
        (COPIED, Ordering::Release),
    ] {
        Scene {
            writer: without(order),
            ..scene
        }
        .is_caught();
    }
}

#[test]
fn each_of_the_writers_release_stores_is_needed() {
    for (scene, store) in [
        (COPIED, INTENT),
        (COPIED, BEGIN),
        (UNHEARD, END),
        (PINNED, PLACE),
        (COPIED, PLACE),
    ] {
        Scene {
            relaxed: Some(store),
            ..scene
        }
        .is_caught();
    }
}

/// Pinning makes fences 0, which is the full one, 1 behind the place, 2 behind the sequence, and 3 in the check; copying
/// makes 0 behind the place, 1 behind the payload, and 2 before the next try.
#[test]
fn each_of_the_readers_other_fences_is_needed() {
    for (scene, number) in [
        (PINNED, 1),
        (UNHEARD, 2),
        (UNHEARD, 3),
        (COPIED, 0),
        (COPIED, 1),
        (COPIED, 2),
    ] {
        let reader = Weakening {
            without_fence_number: Some(number),
            ..NOTHING
        };
        Scene { reader, ..scene }.is_caught();
    }
}

#[test]
fn giving_a_copy_back_needs_its_release() {
    let announcing = Weakening {
        relaxed_stores: true,
        ..NOTHING
    };
    Scene {
        announcing,
        ..PINNED
    }
    .is_caught();
}
