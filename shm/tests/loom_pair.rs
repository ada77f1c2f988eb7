//! Slots of 16 bytes that are accessed at once, under loom: a value is whole, and not older than the generation that was
//! loaded before it.
#![cfg(not(miri))]

use std::panic::{AssertUnwindSafe, catch_unwind};

use core::sync::atomic::Ordering;

use loom::thread;
use shmbus_shm::slot::{
    Epoch, ReadCursor, ReadError, SmallSlotReader, SmallSlotWriter, WriteCursor,
};
use shmbus_shm::testing::{LoomWindow, Weakening};
use shmbus_shm::{Field, Pairs};

const NOTHING: Weakening = Weakening {
    without_fence: None,
    without_fence_number: None,
    relaxed_loads: false,
    relaxed_stores: false,
};

/// A value is published before the threads start, two while a reader reads twice.
fn run(writing: Weakening, reading: Weakening) {
    loom::model(move || {
        let window = LoomWindow::builder()
            .words::<u64>(0, 1)
            .pairs(16, 1)
            .build();
        let publish = |window: &LoomWindow, cursor: &mut WriteCursor, number| {
            let (head, pairs) = (
                Field::new(window, 0).unwrap(),
                Pairs::new(window, 16, 1).unwrap(),
            );
            SmallSlotWriter::new(&pairs, 0, &head)
                .publish(cursor, [number, number])
                .unwrap();
        };
        let mut written = WriteCursor::new(Epoch::FIRST);
        publish(&window, &mut written, 1);
        let own = window.weakened(writing);
        let writer = thread::spawn(move || {
            publish(&own, &mut written, 2);
            publish(&own, &mut written, 3);
        });
        let window = window.weakened(reading);
        let (head, pairs) = (
            Field::new(&window, 0).unwrap(),
            Pairs::new(&window, 16, 1).unwrap(),
        );
        let mut cursor = ReadCursor::default();
        let mut last = 0;
        let mut read = || -> Result<u64, ReadError> {
            let (value, generation) = SmallSlotReader::new(&pairs, 0, &head).read(&mut cursor)?;
            assert_eq!(value[0], value[1], "torn");
            assert!(value[0] >= generation.count(), "older than its generation");
            assert!(value[0] >= last, "backwards");
            last = value[0];
            Ok(last)
        };
        read().unwrap();
        read().unwrap();
        writer.join().unwrap();
        assert_eq!(read(), Ok(3));
    });
}

fn is_caught(writing: Weakening, reading: Weakening) {
    let outcome = catch_unwind(AssertUnwindSafe(|| run(writing, reading)));
    assert!(outcome.is_err(), "the model did not notice");
}

#[test]
fn a_pair_is_not_older_than_its_generation() {
    run(NOTHING, NOTHING);
}

#[test]
fn the_heads_release_and_the_fence_behind_it_are_needed() {
    let relaxed = Weakening {
        relaxed_stores: true,
        ..NOTHING
    };
    is_caught(relaxed, NOTHING);
    let fenceless = Weakening {
        without_fence: Some(Ordering::Acquire),
        ..NOTHING
    };
    is_caught(NOTHING, fenceless);
}
