//! What a table's writer left, damaged before and while another writer takes it over, in new memory or in place: a typed
//! error, or a table in which every slot that was taken over can be read, and every slot be written.
#![no_main]

use libfuzzer_sys::fuzz_target;
use shmbus_fuzz::{scripted, tamper};
use shmbus_shm::{Mapped, Window, heap};
use shmbus_table::{Epoch, Recovered, TableLayout, TableReader, TableWriter};

const MAX_SLOTS: usize = 70;

fn storage() -> Vec<u64> {
    vec![0; MAX_SLOTS]
}

/// The table that came of it is one, whatever the old one was.
fn check<W: Window>(memory: &Mapped, mut writer: TableWriter<W, Vec<u64>>, recovered: Recovered) {
    let layout = writer.layout();
    assert!(recovered.values + recovered.lost <= layout.slots());
    let mut reader = TableReader::attach(memory.clone(), storage(), storage())
        .expect("a table that was resumed is one");
    assert_eq!(reader.epoch(), Some(writer.epoch()));
    let mut value = vec![0; layout.slot_words()];
    let slots = 0..layout.slots();
    let readable = slots
        .clone()
        .filter(|slot| reader.read(*slot, &mut value).is_ok())
        .count();
    assert_eq!(readable as u32, recovered.values);
    for slot in slots {
        value.fill(u64::from(slot) + 1);
        if let Ok((generation, _)) = writer.publish(slot, &value) {
            let mut found = vec![0; value.len()];
            // A reader that has read an older epoch's value is told of the restart first.
            let read = reader.read(slot, &mut found);
            let read = read.or_else(|_| reader.read(slot, &mut found));
            assert_eq!(read, Ok(generation));
            assert_eq!(found, value);
        }
    }
}

fuzz_target!(|input: (u8, u8, bool, Vec<(u16, u16)>, &[u8])| {
    let (slots, words, in_place, damage, script) = input;
    let slots = u32::from(slots) % MAX_SLOTS as u32 + 1;
    let Ok(layout) = TableLayout::with_copies(slots, 8 * (u32::from(words) % 9 + 1), 2) else {
        return;
    };
    let memory = heap(layout.bytes());
    let mut writer = TableWriter::create(memory.clone(), layout, 7, Epoch::FIRST, storage())
        .expect("the layout fits its own memory");
    for number in 0..2 * u64::from(slots) {
        let slot = number as u32 % slots;
        let published = writer.publish(slot, &vec![number; layout.slot_words()]);
        let _ = published.expect("the slot exists");
    }
    drop(writer);

    tamper(&memory, &damage);
    // In place, a memory that goes on lying is the new table's own: nothing can be said of it, but that the call ends.
    if in_place {
        if let Ok((writer, recovered)) = TableWriter::resume_in_place(memory.clone(), storage()) {
            check(&memory, writer, recovered);
        }
        let _ = TableWriter::resume_in_place(scripted(&memory, script), storage());
        return;
    }
    let new = heap(layout.bytes());
    let old = scripted(&memory, script);
    if let Ok((writer, recovered)) = TableWriter::resume(&old, new.clone(), storage()) {
        check(&new, writer, recovered);
    }
});
