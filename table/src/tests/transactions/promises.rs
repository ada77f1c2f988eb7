//! Transactions, one promise at a time.

use shmbus_shm::slot::PublishError;
use shmbus_shm::testing::{Counting, Probed};
use shmbus_shm::{Notify, Scan};

use super::*;
use crate::tests::SIZE_CLASSES;
use crate::{Age, TableError, TableFlags, TableReader, TableWriter};

#[test]
fn several_slots_change_as_one() {
    let (count, all_copies, last) = if cfg!(miri) {
        (9, &[2][..], 15)
    } else {
        (70, &[2, 4, 8][..], 40)
    };
    let end = count - 1;
    for slot_bytes in SIZE_CLASSES {
        for copies in all_copies {
            let layout = layout(count, slot_bytes, *copies);
            let (_, mut writer, mut reader) = table(layout);
            let slots = [3, end, 0];
            assert_eq!(look(&mut reader, &slots), Ok(vec![0, 0, 0]));
            assert_eq!(reader.read(3, &mut [0]), Err(SnapshotError::NeverWritten));
            let first = commit(&mut writer, &[end, 3], 1);
            assert_eq!(look(&mut reader, &slots), Ok(vec![1, 1, 0]));
            assert_eq!(reader.committed(), Some(first));
            // Lags of the reader within the walk, beyond it, and beyond the number of copies.
            for number in 2..last {
                let committed = commit(&mut writer, &[3, 0], number);
                assert_eq!(writer.committed(), Some(committed));
                if number % 11 < 3 {
                    assert_eq!(look(&mut reader, &slots), Ok(vec![number, 1, number]));
                }
            }
            assert_eq!(reader.read(end, &mut [0]).unwrap().count(), 1);
            assert_eq!(reader.generation(end), writer.generation(end));
            let (generation, notify) = writer.publish(3, &stamped(layout, last)).unwrap();
            assert_eq!(notify, Notify::Yes);
            assert_eq!(look(&mut reader, &slots), Ok(vec![last, 1, last - 1]));
            assert_eq!(reader.generation(3), Some(generation));
        }
    }
}

#[test]
fn what_is_not_committed_has_not_happened() {
    let layout = layout(3, 16, 2);
    let (_, mut writer, mut reader) = table(layout);
    let before = commit(&mut writer, &[0, 1], 1);
    for number in 2..10 {
        let mut transaction = writer.begin();
        transaction.stage(0, &stamped(layout, number)).unwrap();
        transaction.stage(2, &stamped(layout, number)).unwrap();
        drop(transaction);
        assert_eq!(look(&mut reader, &[0, 1, 2]), Ok(vec![1, 1, 0]));
        assert_eq!(writer.generation(0).unwrap().count(), 1);
    }
    assert_eq!(writer.committed(), Some(before));
    // What was staged in vain does not come with the next one, whichever way that is made.
    commit(&mut writer, &[1], 10);
    assert_eq!(look(&mut reader, &[0, 1, 2]), Ok(vec![1, 10, 0]));
    writer.begin().stage(2, &stamped(layout, 11)).unwrap();
    let _ = writer.publish(0, &stamped(layout, 12)).unwrap();
    assert_eq!(look(&mut reader, &[0, 1, 2]), Ok(vec![12, 10, 0]));
}

#[test]
fn the_last_value_staged_for_a_slot_counts() {
    let layout = layout(3, 24, 2);
    let (_, mut writer, mut reader) = table(layout);
    let mut transaction = writer.begin();
    assert!(transaction.is_empty());
    for number in 1..=4 {
        for slot in [2, 0, 1] {
            transaction.stage(slot, &stamped(layout, number)).unwrap();
        }
    }
    transaction.stage(0, &stamped(layout, 5)).unwrap();
    assert_eq!(transaction.len(), 3);
    let _ = transaction.commit().unwrap();
    assert_eq!(look(&mut reader, &[0, 1, 2]), Ok(vec![5, 4, 4]));
    assert_eq!(writer.generation(0).unwrap().count(), 1, "written once");
}

#[test]
fn what_does_not_fit_is_refused_and_changes_nothing() {
    let layout = layout(3, 16, 2);
    let (window, writer, mut reader) = table(layout);
    drop(writer);
    let mut writer = TransactionWriter::create(
        window.clone(),
        layout,
        TYPE_ID,
        Epoch::FIRST,
        vec![0; 3],
        vec![0; 2 * 3],
    )
    .unwrap();
    let mut transaction = writer.begin();
    let value = stamped(layout, 1);
    assert_eq!(
        transaction.stage(3, &value),
        Err(TableError::NoSuchSlot { slot: 3, slots: 3 })
    );
    assert_eq!(
        transaction.stage(0, &[1]),
        Err(TableError::Publish(PublishError::WrongLength {
            expected: 2,
            found: 1
        }))
    );
    transaction.stage(0, &value).unwrap();
    transaction.stage(1, &value).unwrap();
    assert_eq!(
        transaction.stage(2, &value),
        Err(TableError::Staging { capacity: 2 })
    );
    let _ = transaction.commit().unwrap();
    assert_eq!(look(&mut reader, &[0, 1, 2]), Ok(vec![1, 1, 0]));
    assert_eq!(
        look(&mut reader, &[0, 3]),
        Err(SnapshotError::NoSuchSlot { slot: 3, slots: 3 })
    );
    assert_eq!(
        reader.read_together(&[0, 1], &mut [0; 3], &mut [None; 2]),
        Err(SnapshotError::Buffers {
            slots: 2,
            words: 4,
            found_words: 3,
            found_generations: 2
        })
    );

    // The other kind of table.
    let kind = |expected, found| TableError::Kind { expected, found };
    let (none, transactions) = (TableFlags::NONE, TableFlags::TRANSACTIONS);
    assert_eq!(
        TableReader::attach(window.clone(), [0; 3], [0; 3]).unwrap_err(),
        kind(none, transactions)
    );
    assert_eq!(
        TableWriter::resume_in_place(window.clone(), [0; 3]).unwrap_err(),
        kind(none, transactions),
        "what was not committed would be, in time"
    );
    assert_eq!(
        TableWriter::create(window.clone(), layout, 0, Epoch::FIRST, [0; 3]).unwrap_err(),
        kind(none, transactions)
    );
    let plain = TableLayout::new(3, 8).unwrap();
    assert_eq!(
        TransactionWriter::create(window.clone(), plain, 0, Epoch::FIRST, [0; 3], [0; 3])
            .unwrap_err(),
        kind(transactions, none)
    );
    TableWriter::create(window.clone(), plain, 0, Epoch::FIRST, [0; 3]).unwrap();
    assert_eq!(
        SnapshotReader::attach(window, [0; 3], [0; 3]).unwrap_err(),
        kind(transactions, none)
    );
}

#[test]
fn a_transaction_costs_its_stores_and_no_load() {
    let layout = layout(65, 64, 4);
    let counting = Counting::default();
    let window = Probed::new(heap(layout.bytes()), counting.clone());
    let mut writer = writer(&window, layout);
    let stores = |writer: &mut Writer<_>, slots: &[u32]| {
        let before = counting.stores();
        commit(writer, slots, 1);
        assert_eq!(counting.loads(), 0);
        counting.stores() - before
    };
    // Twice the sequence, number, value, head, and two levels of the tree; the commit word once.
    let slot = 2 + 1 + 8 + 1 + 2;
    assert_eq!(stores(&mut writer, &[]), 1);
    assert_eq!(stores(&mut writer, &[3]), 1 + slot);
    assert_eq!(stores(&mut writer, &[3, 64, 5]), 1 + 3 * slot);
    let before = counting.stores();
    let _ = writer.publish(7, &stamped(layout, 2)).unwrap();
    assert_eq!(counting.stores() - before, 1 + slot);
}

#[test]
fn an_unchanged_slot_costs_a_reader_two_loads_more_than_its_words() {
    let layout = layout(3, 64, 4);
    let (window, mut writer, _) = table(layout);
    let counting = Counting::default();
    let mut reader = reader(&Probed::new(window, counting.clone()), layout);
    commit(&mut writer, &[0, 1, 2], 1);
    look(&mut reader, &[0, 1, 2]).unwrap();
    commit(&mut writer, &[], 2);
    let before = counting.loads();
    look(&mut reader, &[0, 1, 2]).unwrap();
    assert_eq!(counting.loads() - before, 1 + 3 * (1 + 8 + 1));
}

#[test]
fn changes_are_reported_once_they_are_committed() {
    let layout = layout(100, 16, 2);
    let (_, mut writer, mut reader) = table(layout);
    assert_eq!(reader.changed(|_, _| ()), Scan::Unchanged);
    commit(&mut writer, &[99, 4], 1);
    commit(&mut writer, &[4], 2);
    let mut found = Vec::new();
    reader.changed(|slot, generation| found.push((slot, generation.count())));
    assert_eq!(found, [(4, 2), (99, 1)]);
    assert_eq!(reader.changed(|_, _| ()), Scan::Unchanged);
}

#[test]
fn slots_of_a_transaction_have_an_age() {
    let options = TableOptions::new().copies(2).transactions().ages(5);
    let layout = TableLayout::with_options(3, 16, options).unwrap();
    let (window, mut writer, mut reader) = table(layout);
    commit(&mut writer, &[0, 1], 1);
    writer.beat();
    commit(&mut writer, &[1], 2);
    writer.beat();
    let age = |beats| Ok(Age { beats, beat_ns: 5 });
    assert_eq!((reader.age(0), reader.age(1)), (age(2), age(1)));
    let new = heap(layout.bytes());
    resume(&window, &new, layout);
    reader.rebind(new).unwrap();
    assert_eq!((reader.age(0), reader.age(1)), (age(3), age(2)));
    assert_eq!(reader.heartbeat(), 4);
}

#[test]
fn a_reader_follows_a_restarted_writer_and_is_told_once() {
    for slot_bytes in SIZE_CLASSES {
        let layout = layout(5, slot_bytes, 2);
        let (old, mut writer, mut reader) = table(layout);
        commit(&mut writer, &[0, 1, 2], 1);
        commit(&mut writer, &[1, 3], 2);
        look(&mut reader, &[0, 1]).unwrap();
        drop(writer);
        let new = heap(layout.bytes());
        let mut writer = resume(&old, &new, layout);
        assert_eq!(reader.rebind(new).unwrap(), writer.epoch());
        let restarted = SnapshotError::Restarted {
            from: Epoch::FIRST,
            to: writer.epoch(),
        };
        assert_eq!(look(&mut reader, &all(layout)), Err(restarted));
        assert_eq!(look(&mut reader, &all(layout)), Ok(vec![1, 2, 1, 2, 0]));
        commit(&mut writer, &[4, 0], 3);
        assert_eq!(look(&mut reader, &all(layout)), Ok(vec![3, 2, 1, 2, 3]));

        let mut found = 0;
        reader.changed(|_, _| found += 1);
        assert_eq!(found, 5);
        let (other, ..) = table(super::layout(5, slot_bytes, 4));
        assert!(matches!(
            reader.rebind(other),
            Err(TableError::Geometry { .. })
        ));
    }
}

#[test]
fn nothing_committed_is_nothing_recovered() {
    let layout = layout(3, 16, 2);
    let (old, mut writer, mut reader) = table(layout);
    writer.begin().stage(1, &[1, 2]).unwrap();
    let new = heap(layout.bytes());
    let mut writer = resume(&old, &new, layout);
    assert_eq!(writer.committed(), None);
    reader.rebind(new).unwrap();
    assert_eq!(look(&mut reader, &[0, 1]), Ok(vec![0, 0]));
    commit(&mut writer, &[0], 7);
    assert_eq!(look(&mut reader, &[0, 1]), Ok(vec![7, 0]));
}
