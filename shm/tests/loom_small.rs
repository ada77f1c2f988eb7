//! Slots of one word under loom: the generation that a read returns is a lower bound of its value's.
#![cfg(not(miri))]

use std::panic::{AssertUnwindSafe, catch_unwind};

use core::sync::atomic::Ordering;

use loom::sync::Arc;
use loom::sync::atomic::AtomicU64;
use loom::thread;
use shmbus_shm::Entries;
use shmbus_shm::slot::{
    Epoch, HeadAt, ReadCursor, ReadError, SmallSlotReader, SmallSlotWriter, WriteCursor,
};
use shmbus_shm::testing::{LoomWindow, Weakening};

fn words(window: &LoomWindow, offset: usize) -> Entries<u64, LoomWindow> {
    Entries::new(window, offset, 1).unwrap()
}

/// Value `n` is 100 times `n`; three are written, the reader reads twice and once more at the end.
fn model(writer: Weakening, reader: Weakening) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(3);
    builder.check(move || {
        let window = LoomWindow::builder().words::<u64>(0, 2).build();
        let complete = Arc::new(AtomicU64::new(0));
        let (writing, done) = (window.weakened(writer), complete.clone());
        let publishing = thread::spawn(move || {
            let (heads, values) = (words(&writing, 0), words(&writing, 8));
            let mut cursor = WriteCursor::new(Epoch::FIRST);
            for number in 1..=3 {
                SmallSlotWriter::new(&values, 0, HeadAt::new(&heads, 0))
                    .publish(&mut cursor, number * 100)
                    .unwrap();
                done.store(number, Ordering::Release);
            }
        });
        let reading = window.weakened(reader);
        let (heads, values) = (words(&reading, 0), words(&reading, 8));
        let reader = SmallSlotReader::new(&values, 0, HeadAt::new(&heads, 0));
        let mut cursor = ReadCursor::default();
        let mut last = 0;
        for _ in 0..2 {
            let complete = complete.load(Ordering::Acquire);
            match reader.read(&mut cursor) {
                Ok((value, generation)) => {
                    let number = value / 100;
                    assert!(number >= generation.count(), "older than its generation");
                    assert!(generation.count() >= complete, "older than the call");
                    assert!(number >= last, "backwards");
                    last = number;
                }
                Err(error) => assert_eq!((error, complete), (ReadError::NeverWritten, 0)),
            }
        }
        publishing.join().unwrap();
        let (value, generation) = reader.read(&mut cursor).unwrap();
        assert_eq!((value, generation.count()), (300, 3));
    });
}

fn is_caught(writer: Weakening, reader: Weakening) {
    let outcome = catch_unwind(AssertUnwindSafe(|| model(writer, reader)));
    assert!(outcome.is_err(), "the model did not notice");
}

#[test]
fn a_value_is_not_older_than_its_generation() {
    model(Weakening::default(), Weakening::default());
}

#[test]
fn the_heads_release_and_the_fence_behind_it_are_needed() {
    let relaxed = Weakening {
        relaxed_stores: true,
        ..Weakening::default()
    };
    is_caught(relaxed, Weakening::default());
    let fenceless = Weakening {
        without_fence: Some(Ordering::Acquire),
        ..Weakening::default()
    };
    is_caught(Weakening::default(), fenceless);
}
