//! A writer and readers in threads, over every size class: for Miri and ThreadSanitizer, and for the processor.

#[path = "threads/mirror.rs"]
mod mirror;
#[path = "threads/pinned.rs"]
mod pinned;

use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::{Acquire, Release};
use std::thread;

use shmbus_shm::slot::ReadError as SlotError;
use shmbus_shm::{Mapped, heap};
use shmbus_table::{
    Epoch, ReadError, SnapshotError, SnapshotReader, TableLayout, TableOptions, TableReader,
    TableWriter, TransactionWriter,
};

const SLOTS: u32 = 3;
const READERS: usize = 2;
/// How many newer values each reader waits for.
const NEWER: u64 = if cfg!(miri) { 12 } else { 500 };

/// What one reader found.
#[derive(Debug, Default)]
struct Found {
    values: u64,
    newer: u64,
    lapped: u64,
    reports: u64,
}

fn read_newer_values(window: Mapped, layout: TableLayout, progress: &[AtomicU64]) -> Found {
    let storage = vec![0; SLOTS as usize];
    let mut reader = TableReader::attach(window, storage.clone(), storage).unwrap();
    let mut value = vec![0; layout.slot_words()];
    let mut last = [0; SLOTS as usize];
    let mut found = Found::default();
    while found.newer < NEWER {
        for slot in 0..SLOTS {
            let complete = progress[slot as usize].load(Acquire);
            match reader.read(slot, &mut value) {
                Ok(generation) => {
                    let number = value[0];
                    assert!(value.iter().all(|word| *word == number), "torn: {value:?}");
                    assert!(number >= generation.count());
                    assert!(generation.count() >= complete, "older than the call");
                    let last = &mut last[slot as usize];
                    assert!(number >= *last, "backwards");
                    found.newer += u64::from(number > *last);
                    *last = number;
                    found.values += 1;
                }
                Err(ReadError::Slot(SlotError::NeverWritten)) => assert_eq!(complete, 0),
                Err(ReadError::Slot(SlotError::Lapped)) => found.lapped += 1,
                Err(error) => panic!("an honest writer: {error}"),
            }
        }
        reader.changed(|slot, generation| {
            assert!(slot < SLOTS && generation.epoch() == Epoch::FIRST);
            found.reports += 1;
        });
        // With more threads than processors the writer must come to its turn.
        thread::yield_now();
    }
    found
}

fn writer_and_readers(slot_bytes: u32) {
    let layout = TableLayout::new(SLOTS, slot_bytes).unwrap();
    let window = heap(layout.bytes());
    let mut writer = TableWriter::create(
        window.clone(),
        layout,
        1,
        Epoch::FIRST,
        vec![0; SLOTS as usize],
    )
    .unwrap();
    let progress: Vec<AtomicU64> = (0..SLOTS).map(|_| AtomicU64::new(0)).collect();
    thread::scope(|scope| {
        let readers: Vec<_> = (0..READERS)
            .map(|_| {
                let (window, progress) = (window.clone(), &progress);
                scope.spawn(move || read_newer_values(window, layout, progress))
            })
            .collect();
        let mut number = 0;
        while !readers.iter().all(|reader| reader.is_finished()) {
            number += 1;
            for slot in 0..SLOTS {
                let _ = writer
                    .publish(slot, &vec![number; layout.slot_words()])
                    .unwrap();
                // Release: what is complete when a call begins is complete before it.
                progress[slot as usize].store(number, Release);
            }
            if cfg!(miri) {
                thread::yield_now();
            }
        }
        for reader in readers {
            let found = reader.join().unwrap();
            eprintln!("{slot_bytes} bytes: {found:?}");
            assert!(found.values > 0 && found.reports > 0);
        }
    });
}

/// Snapshots of all slots, in which the first slot may be ahead of the others by one transaction.
fn read_newer_snapshots(window: Mapped, layout: TableLayout, progress: &AtomicU64) {
    let storage = vec![0; SLOTS as usize];
    let mut reader = SnapshotReader::attach(window, storage.clone(), storage).unwrap();
    let words = layout.slot_words();
    let mut values = vec![0; SLOTS as usize * words];
    let (mut last, mut newer, mut lapped) = (0, 0, 0);
    while newer < NEWER {
        let complete = progress.load(Acquire);
        let mut generations = [None; SLOTS as usize];
        match reader.read_together(&[0, 1, 2], &mut values, &mut generations) {
            Ok(commit) => {
                let number = commit.map_or(0, |commit| commit.count());
                assert!(number >= complete, "older than the call");
                assert!(number >= last, "backwards");
                let expected = [number, number & !1, number & !1];
                for (value, expected) in values.chunks(words).zip(expected) {
                    assert!(value.iter().all(|word| *word == expected), "a mix");
                }
                newer += u64::from(number > last);
                last = number;
            }
            Err(SnapshotError::Lapped { .. }) => lapped += 1,
            Err(error) => panic!("an honest writer: {error}"),
        }
        thread::yield_now();
    }
    eprintln!("{} bytes: {lapped} lapped", layout.slot_bytes());
}

/// Transactions of all slots, and between them of the first one alone. Each writes its own number.
fn writer_of_transactions_and_readers(slot_bytes: u32, copies: u32) {
    let options = TableOptions::new().copies(copies).transactions();
    let layout = TableLayout::with_options(SLOTS, slot_bytes, options).unwrap();
    let window = heap(layout.bytes());
    let storage = vec![0; SLOTS as usize * (1 + layout.slot_words())];
    let epoch = Epoch::FIRST;
    let writer =
        TransactionWriter::create(window.clone(), layout, 1, epoch, storage.clone(), storage);
    let mut writer = writer.unwrap();
    let progress = AtomicU64::new(0);
    thread::scope(|scope| {
        let readers: Vec<_> = (0..READERS)
            .map(|_| {
                let (window, progress) = (window.clone(), &progress);
                scope.spawn(move || read_newer_snapshots(window, layout, progress))
            })
            .collect();
        let mut number = 0;
        while !readers.iter().all(|reader| reader.is_finished()) {
            number += 1;
            let value = vec![number; layout.slot_words()];
            let slots = if number % 2 == 0 { SLOTS } else { 1 };
            let mut transaction = writer.begin();
            for slot in 0..slots {
                transaction.stage(slot, &value).unwrap();
            }
            let _ = transaction.commit().unwrap();
            progress.store(number, Release);
            if cfg!(miri) {
                thread::yield_now();
            }
        }
        for reader in readers {
            reader.join().unwrap();
        }
    });
}

#[test]
fn transactions_of_8_bytes() {
    writer_of_transactions_and_readers(8, 2);
}

#[test]
fn transactions_of_64_bytes() {
    writer_of_transactions_and_readers(64, 4);
}

#[test]
#[cfg_attr(miri, ignore = "slots of 64 bytes are the same accesses")]
fn transactions_of_4096_bytes() {
    writer_of_transactions_and_readers(4096, 4);
}

#[test]
fn slots_of_8_bytes() {
    writer_and_readers(8);
}

#[test]
fn slots_of_16_bytes() {
    writer_and_readers(16);
}

#[test]
fn slots_of_56_bytes() {
    writer_and_readers(56);
}

#[test]
fn slots_of_64_bytes() {
    writer_and_readers(64);
}

#[test]
fn slots_of_256_bytes() {
    writer_and_readers(256);
}

#[test]
fn slots_of_1024_bytes() {
    writer_and_readers(1024);
}

#[test]
fn slots_of_4096_bytes() {
    writer_and_readers(4096);
}
