//! A writer, a mirror of its table and readers of the mirror, in threads of their own.

use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::Relaxed;
use std::thread;

use shmbus_shm::slot::ReadError as SlotError;
use shmbus_shm::{Mapped, heap};
use shmbus_table::{Epoch, Header, Mirror, ReadError, TableLayout, TableReader, TableWriter};

use super::{NEWER, READERS, SLOTS};

fn storage() -> Vec<u64> {
    vec![0; SLOTS as usize]
}

fn read_newer_values(window: Mapped, layout: TableLayout) {
    let mut reader = TableReader::attach(window, storage(), storage()).unwrap();
    let mut value = vec![0; layout.slot_words()];
    let (mut last, mut newer) = ([0; SLOTS as usize], 0);
    while newer < NEWER {
        for slot in 0..SLOTS {
            match reader.read(slot, &mut value) {
                Ok(generation) => {
                    let number = value[0];
                    assert!(value.iter().all(|word| *word == number), "torn: {value:?}");
                    assert!(number >= generation.count());
                    let last = &mut last[slot as usize];
                    assert!(number >= *last, "backwards");
                    newer += u64::from(number > *last);
                    *last = number;
                }
                Err(ReadError::Slot(SlotError::NeverWritten | SlotError::Lapped)) => {}
                Err(error) => panic!("an honest mirror: {error}"),
            }
        }
        thread::yield_now();
    }
}

fn writer_mirror_and_readers(slot_bytes: u32) {
    let layout = TableLayout::new(SLOTS, slot_bytes).unwrap();
    let header = Header {
        layout,
        type_id: 1,
        epoch: Epoch::FIRST,
    };
    let (source, target) = (heap(layout.bytes()), heap(layout.bytes()));
    let epoch = Epoch::FIRST;
    let mut writer = TableWriter::create(source.clone(), layout, 1, epoch, storage()).unwrap();
    let storages = [storage(), storage(), storage()];
    let mut mirror = Mirror::create(source, target.clone(), header, storages).unwrap();
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            let mut number = 0;
            while !is_over.load(Relaxed) {
                number += 1;
                for slot in 0..SLOTS {
                    let value = vec![number; layout.slot_words()];
                    let _ = writer.publish(slot, &value).unwrap();
                }
                thread::yield_now();
            }
        });
        let readers: Vec<_> = (0..READERS)
            .map(|_| scope.spawn(|| read_newer_values(target.clone(), layout)))
            .collect();
        while !readers.iter().all(|reader| reader.is_finished()) {
            let done = mirror.update(2);
            assert!(done.published + done.kept <= 2);
            thread::yield_now();
        }
        is_over.store(true, Relaxed);
        for reader in readers {
            reader.join().unwrap();
        }
    });
}

#[test]
fn mirrored_slots_of_8_bytes() {
    writer_mirror_and_readers(8);
}

#[test]
fn mirrored_slots_of_64_bytes() {
    writer_mirror_and_readers(64);
}

#[test]
#[cfg_attr(miri, ignore = "slots of 64 bytes are the same accesses")]
fn mirrored_slots_of_1024_bytes() {
    writer_mirror_and_readers(1024);
}
