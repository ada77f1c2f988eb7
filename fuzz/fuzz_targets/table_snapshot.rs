//! A table with transactions that its writer damages, before and while it is read and taken over: typed errors, or
//! snapshots of transactions that never go back, and a new table in which everything can be written.
#![no_main]

use libfuzzer_sys::fuzz_target;
use shmbus_fuzz::{scripted, tamper};
use shmbus_shm::heap;
use shmbus_table::{Epoch, SnapshotReader, TableLayout, TableOptions, TransactionWriter};

const MAX_SLOTS: usize = 70;
const MAX_WORDS: usize = 9;

fn storage() -> Vec<u64> {
    vec![0; MAX_SLOTS]
}

fn staging() -> Vec<u64> {
    vec![0; MAX_SLOTS * (1 + MAX_WORDS)]
}

fuzz_target!(|input: (u8, u8, u8, Vec<(u16, u16)>, &[u8])| {
    let (slots, words, copies, damage, script) = input;
    let slots = u32::from(slots) % MAX_SLOTS as u32 + 1;
    let words = u32::from(words) % MAX_WORDS as u32 + 1;
    let options = TableOptions::new().copies(2 << (copies % 3)).transactions();
    let Ok(layout) = TableLayout::with_options(slots, 8 * words, options) else {
        return;
    };
    let memory = heap(layout.bytes());
    let epoch = Epoch::FIRST;
    let writer = TransactionWriter::create(memory.clone(), layout, 7, epoch, storage(), staging());
    let mut writer = writer.expect("the layout fits its own memory");
    for number in 0..4 {
        let mut transaction = writer.begin();
        for slot in (0..slots).filter(|slot| (slot + number) % 3 > 0) {
            let staged = transaction.stage(slot, &vec![number.into(); words as usize]);
            staged.expect("the slot exists, and there is room");
        }
        let _ = transaction.commit().expect("a few transactions");
    }
    drop(writer);
    tamper(&memory, &damage);

    if let Ok(mut reader) = SnapshotReader::attach(scripted(&memory, script), storage(), storage())
    {
        let layout = reader.layout();
        let asked: Vec<u32> = (0..layout.slots()).rev().collect();
        let mut values = vec![0; asked.len() * layout.slot_words()];
        let mut generations = vec![None; asked.len()];
        for _ in 0..2 {
            let before = reader.committed();
            if let Ok(as_of) = reader.read_together(&asked, &mut values, &mut generations) {
                assert!(as_of.is_none_or(|as_of| before.is_none_or(|before| before <= as_of)));
                assert!(as_of.is_some() || generations.iter().all(Option::is_none));
            }
            for slot in 0..=layout.slots() {
                // A writer that says it restarted is followed into whatever epoch it names.
                let epoch = reader.committed().map(|last| last.epoch());
                let before = reader.generation(slot);
                let before = before.filter(|before| epoch == Some(before.epoch()));
                let value = &mut values[..layout.slot_words()];
                if let Ok(generation) = reader.read(slot, value) {
                    assert!(slot < layout.slots());
                    assert!(before.is_none_or(|before| before <= generation));
                }
            }
            reader.changed(|slot, _| assert!(slot < layout.slots()));
        }
    }

    // The same, taken over into new memory, whose size follows from what the old header says now.
    let new = heap(layout.bytes());
    let old = scripted(&memory, script);
    let resumed = TransactionWriter::resume(&old, new.clone(), storage(), staging());
    if let Ok((mut writer, recovered)) = resumed {
        let layout = writer.layout();
        assert!(recovered.values + recovered.lost <= layout.slots());
        let mut reader = SnapshotReader::attach(new, storage(), storage())
            .expect("a table that was resumed is one");
        let asked: Vec<u32> = (0..layout.slots()).collect();
        let mut values = vec![0; asked.len() * layout.slot_words()];
        let mut generations = vec![None; asked.len()];
        let read = reader.read_together(&asked, &mut values, &mut generations);
        assert_eq!(read, Ok(writer.committed()));
        let readable = generations.iter().flatten().count();
        assert_eq!(readable as u32, recovered.values);
        let value = vec![77; layout.slot_words()];
        for slot in asked {
            let (generation, _) = writer.publish(slot, &value).expect("it exists");
            assert_eq!(
                reader.read(slot, &mut values[..value.len()]),
                Ok(generation)
            );
            assert_eq!(values[..value.len()], value);
        }
    }
});
