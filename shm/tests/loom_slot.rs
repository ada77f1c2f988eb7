//! The slot kernel under loom: 2 copies, one payload word. The value of a generation is a function of it, so a mix of
//! two writes shows.
#![cfg(not(miri))]

use std::panic::{AssertUnwindSafe, catch_unwind};

use core::sync::atomic::Ordering;

use loom::sync::Arc;
use loom::sync::atomic::AtomicU64;
use loom::thread;
use shmbus_shm::slot::{
    Epoch, Generation, ReadCursor, ReadError, SlotReader, SlotWriter, WriteCursor,
};
use shmbus_shm::testing::{Dying, LoomWindow, Probed, Weakening};
use shmbus_shm::{Field, Records, Window};

/// Head at 0, two copies of a sequence word and a payload word.
fn window() -> LoomWindow {
    LoomWindow::builder().words::<u64>(0, 5).build()
}

fn copies<W: Window>(window: &W) -> Records<'_, W> {
    Records::new(window, 8, 2, 16, 1).unwrap()
}

fn value_of(count: u64) -> u64 {
    count * 100
}

fn publish<W: Window>(window: &W, cursor: &mut WriteCursor) {
    let head = Field::new(window, 0).unwrap();
    let count = (cursor.word() & 0xffff) + 1;
    SlotWriter::new(copies(window), &head)
        .publish(cursor, &[value_of(count)])
        .unwrap();
}

/// Reads, and checks that what is returned is whole and not older than `complete`, a count.
fn read<W: Window>(window: &W, cursor: &mut ReadCursor, complete: u64) -> Option<u64> {
    let head = Field::new(window, 0).unwrap();
    let mut value = [0];
    let before = cursor.generation();
    match SlotReader::new(copies(window), &head).read(cursor, &mut value) {
        Ok(generation) => {
            assert_eq!(value, [value_of(generation.count())], "torn");
            assert!(generation.count() >= complete, "older than the call");
            assert!(
                before.is_none_or(|before| generation >= before),
                "backwards"
            );
            Some(generation.count())
        }
        Err(ReadError::NeverWritten) => {
            assert_eq!(complete, 0, "never written, after a write was complete");
            None
        }
        Err(error) => panic!("an honest writer: {error}"),
    }
}

/// What one model is made of.
#[derive(Clone, Copy)]
struct Scene {
    /// Values written before the reader's cursor is warmed by a read.
    before: u64,
    /// Values written after that, before the threads start: the reader's lag.
    lag: u64,
    /// Values written while the reader reads.
    during: u64,
    /// How often the reader reads.
    reads: u64,
    writer: Weakening,
    reader: Weakening,
}

const NOTHING: Weakening = Weakening {
    without_fence: None,
    without_fence_number: None,
    relaxed_loads: false,
    relaxed_stores: false,
};

const COLD: Scene = Scene {
    before: 0,
    lag: 1,
    during: 2,
    reads: 1,
    writer: NOTHING,
    reader: NOTHING,
};

/// The cursor is at 1; the next copy is being written.
const FOLLOWING: Scene = Scene {
    before: 1,
    lag: 0,
    during: 2,
    reads: 2,
    writer: NOTHING,
    reader: NOTHING,
};

/// The cursor is at 1 and the writer at 4: the copy after the cursor's has been written again.
const LAGGING: Scene = Scene {
    before: 1,
    lag: 3,
    during: 2,
    reads: 1,
    writer: NOTHING,
    reader: NOTHING,
};

impl Scene {
    fn run(self) {
        let mut builder = loom::model::Builder::new();
        builder.preemption_bound = Some(3);
        builder.check(move || {
            let window = window();
            let progress = Arc::new(AtomicU64::new(self.before + self.lag));
            let mut written = WriteCursor::new(Epoch::FIRST);
            let mut cursor = ReadCursor::default();
            for _ in 0..self.before {
                publish(&window, &mut written);
            }
            if self.before > 0 {
                read(&window, &mut cursor, self.before);
            }
            for _ in 0..self.lag {
                publish(&window, &mut written);
            }

            let writing = window.weakened(self.writer);
            let published = progress.clone();
            let writer = thread::spawn(move || {
                for _ in 0..self.during {
                    publish(&writing, &mut written);
                    let last = written.generation().unwrap();
                    published.store(last.count(), Ordering::Release);
                }
            });
            let reading = window.weakened(self.reader);
            for _ in 0..self.reads {
                let complete = progress.load(Ordering::Acquire);
                read(&reading, &mut cursor, complete);
            }
            writer.join().unwrap();
            let last = self.before + self.lag + self.during;
            assert_eq!(read(&window, &mut cursor, last), Some(last));
        });
    }

    /// Shows that the model notices what is left out.
    fn is_caught(self) {
        let outcome = catch_unwind(AssertUnwindSafe(|| self.run()));
        assert!(outcome.is_err(), "the model did not notice");
    }
}

#[test]
fn a_slot_that_was_never_written() {
    Scene { lag: 0, ..COLD }.run();
}

#[test]
fn a_cold_reader() {
    COLD.run();
}

#[test]
fn a_following_reader() {
    FOLLOWING.run();
}

#[test]
fn a_lagging_reader() {
    for lag in 1..=4 {
        Scene { lag, ..LAGGING }.run();
    }
}

#[test]
fn the_writers_fence_is_needed() {
    let writer = Weakening {
        without_fence: Some(Ordering::Release),
        ..NOTHING
    };
    Scene { writer, ..COLD }.is_caught();
    Scene {
        writer,
        ..FOLLOWING
    }
    .is_caught();
    Scene { writer, ..LAGGING }.is_caught();
}

#[test]
fn the_writers_release_stores_are_needed() {
    let writer = Weakening {
        relaxed_stores: true,
        ..NOTHING
    };
    Scene { writer, ..COLD }.is_caught();
    Scene {
        writer,
        ..FOLLOWING
    }
    .is_caught();
    Scene { writer, ..LAGGING }.is_caught();
}

/// A cold reader makes fences 1, behind the head, and 2, before the sequence is looked at again. One that follows makes
/// 0 before that second look if nothing is new, else 0 behind the walk and 1.
#[test]
fn each_of_the_readers_fences_is_needed() {
    for (scene, number) in [(COLD, 1), (COLD, 2), (FOLLOWING, 0), (FOLLOWING, 1)] {
        let reader = Weakening {
            without_fence_number: Some(number),
            ..NOTHING
        };
        Scene { reader, ..scene }.is_caught();
    }
}

/// A writer dies after `stores` of its stores, and another goes on in the same memory while a reader reads that may
/// have been given the value which the dead one completed and did not name.
#[derive(Clone, Copy)]
struct Restart {
    stores: u64,
    /// Whether the new writer takes the dead one's last step.
    finishes: bool,
    reader: Weakening,
}

impl Restart {
    fn run(self) {
        let mut builder = loom::model::Builder::new();
        builder.preemption_bound = Some(3);
        builder.check(move || {
            let window = window();
            let mut written = WriteCursor::new(Epoch::FIRST);
            let mut cursor = ReadCursor::default();
            publish(&window, &mut written);
            read(&window, &mut cursor, 1);
            let dying = Probed::new(window.clone(), Dying::after(self.stores));
            publish(&dying, &mut written);
            read(&window, &mut cursor, 1);

            let writing = window.clone();
            // The new writer loads words that it stores later. loom remembers only the last access of an atomic, and
            // would take those loads for the reader's: nothing would race. So both access another one first.
            let begun = Arc::new(AtomicU64::new(0));
            let begins = begun.clone();
            let writer = thread::spawn(move || {
                begins.load(Ordering::Relaxed);
                let head = Field::new(&writing, 0).unwrap();
                let mut value = [0];
                let last = SlotReader::new(copies(&writing), &head)
                    .recover(Epoch::FIRST, &mut value)
                    .unwrap();
                assert_eq!(value, [value_of(last.count())]);
                if self.finishes {
                    SlotWriter::new(copies(&writing), &head).finish(last);
                }
                let mut written = WriteCursor::after(last, Epoch::FIRST.next().unwrap());
                publish(&writing, &mut written);
                publish(&writing, &mut written);
            });
            let reading = window.weakened(self.reader);
            let head = Field::new(&reading, 0).unwrap();
            let reader = SlotReader::new(copies(&reading), &head);
            let mut value = [0];
            let mut restarts = 0;
            begun.store(1, Ordering::Relaxed);
            for _ in 0..2 {
                match reader.read(&mut cursor, &mut value) {
                    Ok(generation) => assert_eq!(value, [value_of(generation.count())]),
                    Err(ReadError::Restarted { .. }) => restarts += 1,
                    Err(error) => panic!("honest writers: {error}"),
                }
            }
            assert!(restarts <= 1);
            writer.join().unwrap();
        });
    }

    fn is_caught(self) {
        let outcome = catch_unwind(AssertUnwindSafe(|| self.run()));
        assert!(outcome.is_err(), "the model did not notice");
    }
}

/// Dead with the copy complete and the head not stored.
const UNNAMED: Restart = Restart {
    stores: 3,
    finishes: true,
    reader: NOTHING,
};

#[test]
fn a_restart_in_place() {
    for stores in 0..=4 {
        Restart { stores, ..UNNAMED }.run();
    }
}

#[test]
fn taking_the_dead_writers_last_step_is_needed() {
    Restart {
        finishes: false,
        ..UNNAMED
    }
    .is_caught();
}

/// Number 0 comes before the head if the copy that follows is found to be newer, number 1 if the reader's own is gone.
#[test]
fn the_fence_before_the_head_is_needed() {
    for number in [0, 1] {
        let reader = Weakening {
            without_fence_number: Some(number),
            ..NOTHING
        };
        Restart { reader, ..UNNAMED }.is_caught();
    }
}

/// Somebody saves the slot's value while its writer writes: he gets a whole one, or none.
fn recovered_beside_the_writer(reader: Weakening) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(3);
    builder.check(move || {
        let window = window();
        let mut written = WriteCursor::new(Epoch::FIRST);
        publish(&window, &mut written);
        let writing = window.clone();
        let writer = thread::spawn(move || {
            for _ in 0..3 {
                publish(&writing, &mut written);
            }
        });
        let reading = window.weakened(reader);
        let head = Field::new(&reading, 0).unwrap();
        let mut value = [0];
        match SlotReader::new(copies(&reading), &head).recover(Epoch::FIRST, &mut value) {
            Ok(generation) => assert_eq!(value, [value_of(generation.count())], "torn"),
            Err(error) => assert!(matches!(error, ReadError::Inconsistent { .. })),
        }
        writer.join().unwrap();
    });
}

#[test]
fn what_is_recovered_is_whole() {
    recovered_beside_the_writer(NOTHING);
}

/// Number 0 comes behind the head and the sequence of the copy ahead of it, number 1 before the second look at a sequence.
#[test]
fn each_of_the_fences_of_recovery_is_needed() {
    for number in 0..2 {
        let reader = Weakening {
            without_fence_number: Some(number),
            ..NOTHING
        };
        let outcome = catch_unwind(AssertUnwindSafe(|| recovered_beside_the_writer(reader)));
        assert!(outcome.is_err(), "fence {number}");
    }
}

/// A slot of four copies, whose writer passes on what another one wrote. The reader's cursor is at 1: it looks for news in the
/// copy after that.
#[derive(Clone, Copy)]
struct PassedOn {
    /// Values written one after the other first, while the reader reads.
    before: u64,
    /// The generation that the next value is passed on as.
    as_count: u64,
    writer: Weakening,
}

impl PassedOn {
    fn run(self) {
        let mut builder = loom::model::Builder::new();
        builder.preemption_bound = Some(3);
        builder.check(move || {
            let window = LoomWindow::builder().words::<u64>(0, 9).build();
            let mut written = WriteCursor::new(Epoch::FIRST);
            let mut cursor = ReadCursor::default();
            pass_on(&window, &mut written, 1);
            assert_eq!(read_passed_on(&window, &mut cursor), (1, value_of(1)));

            let progress = Arc::new(AtomicU64::new(1));
            let published = progress.clone();
            let writing = window.weakened(self.writer);
            let writer = thread::spawn(move || {
                for count in 2..2 + self.before {
                    pass_on(&writing, &mut written, count);
                }
                pass_on(&writing, &mut written, self.as_count);
                published.store(self.as_count, Ordering::Release);
            });
            // Who is told of a generation by its head finds it, or a newer one.
            let told = Field::<u64, _>::new(&window, 0).unwrap();
            let told = told.load(Ordering::Acquire) & 0xffff;
            let complete = progress.load(Ordering::Acquire).max(told);
            let (count, value) = read_passed_on(&window, &mut cursor);
            assert!(count >= complete, "older than the call");
            // Under a generation that is passed over it is the value of the one that is not.
            let own = if count <= 1 + self.before {
                count
            } else {
                self.as_count
            };
            assert_eq!(value, value_of(own), "torn");
            writer.join().unwrap();
            let last = (self.as_count, value_of(self.as_count));
            assert_eq!(read_passed_on(&window, &mut cursor), last);
        });
    }

    fn is_caught(self) {
        let outcome = catch_unwind(AssertUnwindSafe(|| self.run()));
        assert!(outcome.is_err(), "the model did not notice");
    }
}

fn four_copies<W: Window>(window: &W) -> Records<'_, W> {
    Records::new(window, 8, 4, 16, 1).unwrap()
}

fn pass_on<W: Window>(window: &W, cursor: &mut WriteCursor, count: u64) {
    let head = Field::new(window, 0).unwrap();
    let generation = Generation::new(Epoch::FIRST, count).unwrap();
    SlotWriter::new(four_copies(window), &head)
        .publish_as(cursor, generation, &[value_of(count)])
        .unwrap();
}

fn read_passed_on<W: Window>(window: &W, cursor: &mut ReadCursor) -> (u64, u64) {
    let head = Field::new(window, 0).unwrap();
    let mut value = [0];
    let generation = SlotReader::new(four_copies(window), &head)
        .read(cursor, &mut value)
        .unwrap();
    (generation.count(), value[0])
}

const PASSED_ON: PassedOn = PassedOn {
    before: 0,
    as_count: 3,
    writer: NOTHING,
};

/// To the next copy, to others, and to the one that holds the last value.
#[test]
fn a_value_that_is_passed_on() {
    for as_count in 2..=6 {
        PassedOn {
            as_count,
            ..PASSED_ON
        }
        .run();
    }
}

/// The copy that is marked is the one that the reader would copy.
#[test]
fn a_lagging_reader_of_what_is_passed_on() {
    PassedOn {
        before: 3,
        as_count: 6,
        ..PASSED_ON
    }
    .run();
}

#[test]
fn orders_of_passing_on_are_needed() {
    let writer = Weakening {
        relaxed_stores: true,
        ..NOTHING
    };
    PassedOn {
        writer,
        ..PASSED_ON
    }
    .is_caught();
    let writer = Weakening {
        without_fence: Some(Ordering::Release),
        ..NOTHING
    };
    PassedOn {
        writer,
        as_count: 5,
        ..PASSED_ON
    }
    .is_caught();
}
