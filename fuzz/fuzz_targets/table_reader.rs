//! A table that its writer damages, before and while it is read: typed errors, or values with generations that never
//! go back.
#![no_main]

use libfuzzer_sys::fuzz_target;
use shmbus_fuzz::{scripted, tamper};
use shmbus_shm::heap;
use shmbus_table::{Epoch, TableLayout, TableReader, TableWriter};

const MAX_SLOTS: usize = 130;

fuzz_target!(|input: (u8, u8, Vec<(u16, u16)>, &[u8])| {
    let (slots, words, damage, script) = input;
    let slots = u32::from(slots) % MAX_SLOTS as u32 + 1;
    let Ok(layout) = TableLayout::new(slots, 8 * (u32::from(words) % 16 + 1)) else {
        return;
    };
    let memory = heap(layout.bytes());
    let storage = vec![0; slots as usize];
    let mut writer = TableWriter::create(memory.clone(), layout, 7, Epoch::FIRST, storage)
        .expect("the layout fits its own memory");
    for slot in 0..slots {
        let value = vec![u64::from(slot); layout.slot_words()];
        let published = writer.publish(slot, &value);
        let _ = published.expect("the slot exists");
    }

    tamper(&memory, &damage);
    let storage = || vec![0; MAX_SLOTS];
    let Ok(mut reader) = TableReader::attach(scripted(&memory, script), storage(), storage())
    else {
        return;
    };
    let layout = reader.layout();
    let mut value = vec![0; layout.slot_words()];
    for _ in 0..2 {
        let mut reports = 0;
        reader.changed(|slot, _| {
            assert!(slot < layout.slots());
            reports += 1;
        });
        assert!(reports <= layout.slots());
        for slot in 0..=layout.slots() {
            let before = reader.generation(slot);
            if let Ok(generation) = reader.read(slot, &mut value) {
                assert!(slot < layout.slots());
                assert!(before.is_none_or(|before| before <= generation));
            }
        }
    }
});
