//! Readers that pin, one that copies, one that lies about what it has pinned, and a writer that does not wait for them.

use std::cell::Cell;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::thread;

use shmbus_shm::slot::ReadError as SlotError;
use shmbus_shm::{Entries, Mapped, heap};
use shmbus_table::pinned::{PinError, PinnedTableReader, PinnedTableWriter, Seat};
use shmbus_table::{Epoch, ReadError, TableLayout, TableOptions};

const SLOTS: u32 = 2;
/// How many newer values each reader waits for.
const NEWER: u64 = if cfg!(miri) { 10 } else { 200 };
/// How often a pinned value is looked at.
const LOOKS: usize = if cfg!(miri) { 2 } else { 5 };

/// Pins values, or copies them if there is no seat, until there were [`NEWER`] newer ones.
fn follow(
    window: Mapped,
    layout: TableLayout,
    seat: Option<(Mapped, Seat)>,
    progress: &[AtomicU64],
) -> u64 {
    let cursors = vec![Cell::new(0); SLOTS as usize];
    let mut reader = PinnedTableReader::attach(window, cursors, vec![0; SLOTS as usize]).unwrap();
    let pins = seat.is_some();
    if let Some((own, seat)) = seat {
        reader.take_seat(own, seat).unwrap();
    }
    let mut value = vec![0; layout.slot_words()];
    let mut last = [0; SLOTS as usize];
    let (mut newer, mut lapped) = (0, 0);
    for slot in (0..SLOTS).cycle() {
        if newer >= NEWER {
            break;
        }
        let complete = progress[slot as usize].load(Acquire);
        let outcome = if pins {
            reader.pin(slot).map(|pinned| {
                let count = pinned.generation().count();
                for _ in 0..LOOKS {
                    assert!(pinned.words().all(|word| word == count), "touched");
                    assert!(pinned.check());
                    thread::yield_now();
                }
                count
            })
        } else {
            reader
                .read(slot, &mut value)
                .map_err(PinError::Read)
                .map(|generation| {
                    let count = generation.count();
                    assert!(value.iter().all(|word| *word == count), "torn");
                    count
                })
        };
        match outcome {
            Ok(count) => {
                assert!(count >= complete, "older than the call");
                let last = &mut last[slot as usize];
                assert!(count >= *last, "backwards");
                newer += u64::from(count > *last);
                *last = count;
            }
            Err(PinError::Read(ReadError::Slot(SlotError::NeverWritten))) => {
                assert_eq!(complete, 0)
            }
            Err(PinError::Read(ReadError::Slot(SlotError::Lapped))) => lapped += 1,
            Err(error) => panic!("an honest writer: {error}"),
        }
        // With more threads than processors the writer must come to its turn.
        thread::yield_now();
    }
    lapped
}

fn writer_and_readers(slot_bytes: u32) {
    let options = TableOptions::new().copies(4).pinned();
    let layout = TableLayout::with_options(SLOTS, slot_bytes, options).unwrap();
    let window = heap(layout.bytes());
    let storage = || vec![0; SLOTS as usize];
    let mut writer = PinnedTableWriter::create(
        window.clone(),
        layout,
        1,
        Epoch::FIRST,
        storage(),
        storage(),
    )
    .unwrap();
    let mut own = || {
        let own = heap(layout.announcements_bytes());
        let seat = writer.subscribe(own.clone()).unwrap();
        (own, seat)
    };
    let (liars, _) = own();
    let seats = [Some(own()), Some(own()), None];
    let progress: Vec<AtomicU64> = (0..SLOTS).map(|_| AtomicU64::new(0)).collect();
    thread::scope(|scope| {
        let readers = seats.map(|seat| {
            let (window, progress) = (window.clone(), &progress);
            scope.spawn(move || follow(window, layout, seat, progress))
        });
        let lies = Entries::<u64, _>::new(&liars, 0, SLOTS as usize).unwrap();
        for count in 1_u64.. {
            for slot in 0..SLOTS {
                // Between any two publications, whatever it says.
                lies.store(
                    slot as usize,
                    count.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 59,
                    Relaxed,
                );
                let _ = writer
                    .publish(slot, &vec![count; layout.slot_words()])
                    .unwrap();
                // Release: what is complete when a call begins is complete before it.
                progress[slot as usize].store(count, Release);
            }
            if readers.iter().all(|reader| reader.is_finished()) {
                break;
            }
            if cfg!(miri) {
                thread::yield_now();
            }
        }
        for reader in readers {
            eprintln!("{slot_bytes} bytes: {} lapped", reader.join().unwrap());
        }
    });
}

#[test]
fn pinned_slots_of_8_bytes() {
    writer_and_readers(8);
}

#[test]
fn pinned_slots_of_256_bytes() {
    writer_and_readers(256);
}

#[test]
#[cfg_attr(miri, ignore = "slots of 256 bytes are the same accesses")]
fn pinned_slots_of_4096_bytes() {
    writer_and_readers(4096);
}
