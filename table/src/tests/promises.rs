use core::ops::ControlFlow;

use shmbus_shm::slot::{PublishError, ReadError as SlotError};
use shmbus_shm::testing::{Counting, Probed};
use shmbus_shm::{Window, heap};

use super::*;
use crate::{
    Header, InvalidValue, Scan, TableError, TypedReadError, TypedReader, TypedWriter, Value,
    layout_of,
};

#[test]
fn the_latest_value_is_read_and_reported() {
    for slot_bytes in SIZE_CLASSES {
        let layout = TableLayout::new(130, slot_bytes).unwrap();
        let (_, mut writer, mut reader) = table(layout);
        assert_eq!(
            read(&mut reader, 129),
            Err(ReadError::Slot(SlotError::NeverWritten))
        );
        assert_eq!(reader.changed(|_, _| ()), Scan::Unchanged);
        publish(&mut writer, 129, 1);
        let first = publish(&mut writer, 0, 2);
        let last = publish(&mut writer, 129, 3);
        assert_eq!(changes(&mut reader), [(0, first), (129, last)]);
        assert_eq!(read(&mut reader, 129), Ok((last, 3)));
        assert_eq!(read(&mut reader, 0), Ok((first, 2)));
        assert_eq!(reader.generation(0), Some(first));
        assert_eq!(writer.generation(129), Some(last));
        assert_eq!(writer.generation(1), None);
    }
}

#[test]
fn what_does_not_fit_is_refused_and_changes_nothing() {
    for slot_bytes in [8, 24] {
        let layout = TableLayout::new(3, slot_bytes).unwrap();
        let (window, mut writer, mut reader) = table(layout);
        assert_eq!(
            writer.publish(3, &stamped(layout, 1)).unwrap_err(),
            TableError::NoSuchSlot { slot: 3, slots: 3 }
        );
        assert_eq!(
            writer.publish(0, &[0; 2]).unwrap_err(),
            TableError::Publish(PublishError::WrongLength {
                expected: layout.slot_words(),
                found: 2
            })
        );
        assert_eq!(
            reader.read(3, &mut [0]),
            Err(ReadError::NoSuchSlot { slot: 3, slots: 3 })
        );
        assert_eq!(reader.changed(|_, _| ()), Scan::Unchanged);

        let short = window.narrow(0, layout.bytes() - 8).unwrap();
        assert!(matches!(
            TableWriter::create(short.clone(), layout, 0, Epoch::FIRST, [0; 3]),
            Err(TableError::Window(_))
        ));
        assert!(matches!(Header::read(&short), Err(TableError::Window(_))));
        let storage = TableError::Storage {
            expected: 3,
            found: 2,
        };
        assert_eq!(
            TableReader::attach(window.clone(), [0; 2], [0; 2]).unwrap_err(),
            storage
        );
        assert_eq!(
            TableWriter::create(window, layout, 0, Epoch::FIRST, [0; 2]).unwrap_err(),
            storage
        );
    }
}

#[test]
fn storage_for_more_makes_no_more_slots() {
    let layout = TableLayout::new(3, 8).unwrap();
    let window = heap(layout.bytes());
    let mut writer =
        TableWriter::create(window.clone(), layout, TYPE_ID, Epoch::FIRST, [0; 4]).unwrap();
    let mut reader = TableReader::attach(window, [0; 4], [0; 4]).unwrap();
    assert_eq!(
        writer.publish(3, &[1]).unwrap_err(),
        TableError::NoSuchSlot { slot: 3, slots: 3 }
    );
    assert_eq!(
        reader.read(3, &mut [0]),
        Err(ReadError::NoSuchSlot { slot: 3, slots: 3 })
    );
}

#[test]
fn a_read_gives_as_many_words_as_both_sides_have() {
    for words in [1, 2, 8, 9] {
        let layout = TableLayout::new(2, 8 * words as u32).unwrap();
        let (_, mut writer, mut reader) = table(layout);
        for (number, found) in (1..).zip([words - 1, words, words + 1]) {
            publish(&mut writer, 1, number);
            // First there is news, then there is none.
            for _ in 0..2 {
                let mut value = vec![u64::MAX; found];
                let generation = reader.read(1, &mut value).unwrap();
                assert_eq!(generation.count(), number);
                let both = words.min(found);
                assert_eq!(value[..both], stamped(layout, number)[..both]);
                assert!(value[both..].iter().all(|word| *word == u64::MAX));
            }
        }
    }
}

#[test]
fn publishing_loads_nothing_and_stores_a_fixed_number_of_words() {
    for (slots, slot_bytes, stores) in [(1, 8, 1 + 2), (16, 64, 8 + 2 + 2), (17, 64, 8 + 2 + 3)] {
        let layout = TableLayout::new(slots, slot_bytes).unwrap();
        let counting = Counting::default();
        let window = Probed::new(heap(layout.bytes()), counting.clone());
        let mut writer = writer(&window, layout);
        let before = (counting.loads(), counting.stores());
        publish(&mut writer, 0, 1);
        assert_eq!(
            (counting.loads(), counting.stores()),
            (before.0, before.1 + stores)
        );
    }
}

#[test]
fn memory_that_was_used_before_is_a_new_table() {
    for (slot_bytes, published) in [(8, 1), (64, 1), (64, 2), (64, 3), (64, 9)] {
        let layout = TableLayout::new(5, slot_bytes).unwrap();
        let (window, mut old, _) = table(layout);
        for number in 1..=published {
            publish(&mut old, 2, number);
        }
        // The same epoch again: the old table's generations must not pass for the new one's.
        let mut new = writer(&window, layout);
        let mut reader = super::reader(&window, layout);
        assert_eq!(changes(&mut reader), []);
        let first = publish(&mut new, 2, 100);
        for _ in 0..2 {
            assert_eq!(read(&mut reader, 2), Ok((first, 100)));
        }
    }
}

/// Two loads say whether there is something else to read, also when the newest value lies where the last one lay, and
/// when the memory is another life's.
#[test]
fn a_reader_sees_without_copying_that_nothing_changed() {
    for slot_bytes in SIZE_CLASSES {
        let layout = TableLayout::new(3, slot_bytes).unwrap();
        let counting = Counting::default();
        let window = Probed::new(heap(layout.bytes()), counting.clone());
        let (mut writer, mut reader) = (writer(&window, layout), reader(&window, layout));
        publish(&mut writer, 1, 1);
        assert!(!reader.is_unchanged(1), "it was not read yet");
        let copied = slot_bytes > 8;
        for count in 1..=2 * layout.copies() as u64 {
            read(&mut reader, 1).unwrap();
            let loads = counting.loads();
            assert_eq!(reader.is_unchanged(1), copied);
            assert!(counting.loads() - loads <= 2);
            for number in 0..count {
                publish(&mut writer, 1, number);
            }
            assert!(!reader.is_unchanged(1), "{count} more");
        }
        read(&mut reader, 1).unwrap();
        let mut restarted = self::writer(&window, layout);
        assert!(!reader.is_unchanged(1), "the memory was set up anew");
        publish(&mut restarted, 1, 1);
        assert!(!reader.is_unchanged(1) && !reader.is_unchanged(7));
    }
}

#[test]
fn a_heartbeat_shows_a_writer_without_news() {
    let (_, mut writer, reader) = table(TableLayout::new(1, 8).unwrap());
    let before = reader.heartbeat();
    writer.beat();
    assert_ne!(reader.heartbeat(), before);
    assert_eq!(reader.epoch(), Some(Epoch::FIRST));
}

#[test]
fn a_scan_that_is_broken_off_goes_on() {
    let (_, mut writer, mut reader) = table(TableLayout::new(100, 16).unwrap());
    for slot in [7, 70, 99] {
        publish(&mut writer, slot, 1);
    }
    let mut found = Vec::new();
    for _ in 0..3 {
        reader.scan(|slot, _| {
            found.push(slot);
            ControlFlow::Break(())
        });
    }
    assert_eq!(found, [7, 70, 99]);
}

#[test]
fn a_reader_follows_a_restarted_writer_to_new_memory() {
    for slot_bytes in SIZE_CLASSES {
        let layout = TableLayout::new(70, slot_bytes).unwrap();
        let (old, mut writer, mut reader) = table(layout);
        publish(&mut writer, 3, 1);
        let last = publish(&mut writer, 69, 2);
        read(&mut reader, 69).unwrap();
        drop(writer);

        let new = heap(layout.bytes());
        let (mut writer, recovered) = TableWriter::resume(&old, new.clone(), vec![0; 70]).unwrap();
        assert_eq!((recovered.values, recovered.lost), (2, 0));
        assert_eq!(writer.epoch().get(), 2);
        assert_eq!(read(&mut reader, 69), Ok((last, 2)), "the old memory stays");

        assert_eq!(reader.rebind(new).unwrap(), writer.epoch());
        let found = changes(&mut reader);
        assert_eq!(
            found.iter().map(|(slot, _)| *slot).collect::<Vec<_>>(),
            [3, 69]
        );
        assert_eq!(
            read(&mut reader, 69),
            Err(ReadError::Slot(SlotError::Restarted {
                from: Epoch::FIRST,
                to: writer.epoch()
            }))
        );
        assert_eq!(read(&mut reader, 69).unwrap().1, 2);
        assert_eq!(
            read(&mut reader, 3).unwrap().1,
            1,
            "not read before: no restart to report"
        );
        let generation = publish(&mut writer, 3, 5);
        assert_eq!(read(&mut reader, 3), Ok((generation, 5)));
    }
}

#[test]
fn a_reader_does_not_follow_to_another_shape() {
    let layout = TableLayout::new(4, 16).unwrap();
    let (_, mut writer, mut reader) = table(layout);
    let generation = publish(&mut writer, 1, 1);
    let larger = TableLayout::new(4, 24).unwrap();
    let (other, ..) = table(larger);
    assert_eq!(
        reader.rebind(other).unwrap_err(),
        TableError::Geometry {
            expected: layout,
            found: larger
        }
    );
    let window = heap(layout.bytes());
    assert!(matches!(
        reader.rebind(window.clone()),
        Err(TableError::Magic { found: 0 })
    ));
    TableWriter::create(window.clone(), layout, 1, Epoch::FIRST, [0; 4]).unwrap();
    assert_eq!(
        reader.rebind(window).unwrap_err(),
        TableError::Type {
            expected: TYPE_ID,
            found: 1
        }
    );
    assert_eq!(read(&mut reader, 1), Ok((generation, 1)));
}

#[test]
fn the_last_epoch_has_no_successor() {
    let layout = TableLayout::new(1, 8).unwrap();
    let window = heap(layout.bytes());
    let last = Epoch::new(0x7fff).unwrap();
    TableWriter::create(window.clone(), layout, TYPE_ID, last, [0]).unwrap();
    assert_eq!(
        TableWriter::resume_in_place(window, [0]).unwrap_err(),
        TableError::EpochsUsedUp
    );
}

/// A percentage.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Percentage(u64);

impl Value for Percentage {
    const TYPE_ID: u32 = 0x7065_7263;
    const WORDS: usize = 1;

    fn encode(&self, words: &mut [u64]) {
        words[0] = self.0;
    }

    fn decode(words: &[u64]) -> Result<Self, InvalidValue> {
        match *words {
            [percentage @ 0..=100] => Ok(Self(percentage)),
            _ => Err(InvalidValue {
                word: 0,
                found: words[0],
                expected: "0 to 100",
            }),
        }
    }
}

#[test]
fn typed_values_are_checked() {
    let layout = layout_of::<Percentage>(2).unwrap();
    let window = heap(layout.bytes());
    let mut writer =
        TypedWriter::<Percentage, _, _>::create(window.clone(), 2, Epoch::FIRST, [0; 2]).unwrap();
    let mut reader =
        TypedReader::<Percentage, _, _>::attach(window.clone(), [0; 2], [0; 2]).unwrap();
    let (generation, _) = writer.publish(1, &Percentage(40)).unwrap();
    assert_eq!(reader.read(1), Ok((Percentage(40), generation)));
    let (generation, _) = writer.publish(1, &Percentage(101)).unwrap();
    let error = reader.read(1).unwrap_err();
    assert!(
        matches!(error, TypedReadError::Invalid { slot: 1, generation: found, .. } if found == generation)
    );
    assert_eq!(
        error.to_string(),
        "slot 1, generation 1.2: word 0 of the value is 0x65, not 0 to 100"
    );

    let other = TableWriter::create(window.clone(), layout, TYPE_ID, Epoch::FIRST, [0; 2]).unwrap();
    assert!(matches!(
        TypedWriter::<Percentage, _, _>::new(other),
        Err(TableError::Type { .. })
    ));
    let wide = TableLayout::new(2, 16).unwrap();
    let window = heap(wide.bytes());
    let other =
        TableWriter::create(window, wide, Percentage::TYPE_ID, Epoch::FIRST, [0; 2]).unwrap();
    assert!(matches!(
        TypedWriter::<Percentage, _, _>::new(other),
        Err(TableError::ValueBytes {
            expected: 8,
            found: 16
        })
    ));
}
