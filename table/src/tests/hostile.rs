//! Whatever the memory holds, and however it changes under a call: typed outcomes, bounded work.

use core::sync::atomic::Ordering::Relaxed;

use proptest::prelude::*;
use shmbus_shm::slot::{ReadError as SlotError, max_loads};
use shmbus_shm::testing::{Counting, Hostile, Probed};
use shmbus_shm::{Field, WindowError, heap};

use super::*;
use crate::{Header, LayoutError, TableError, TableFlags, TableOptions};

/// Overwrites word `index` of the table.
fn tamper(window: &Mapped, index: usize, value: u64) {
    Field::<u64, _>::new(window, index * 8)
        .unwrap()
        .store(value, Relaxed);
}

#[test]
#[cfg_attr(
    miri,
    ignore = "it tampers at another width than the header's, which Miri does not model"
)]
fn each_lie_in_the_header_has_a_name() {
    let layout = TableLayout::new(4, 16).unwrap();
    let lie = |word, value| {
        let (window, ..) = table(layout);
        tamper(&window, word, value);
        TableReader::attach(window, [0; 4], [0; 4]).map(|_| ())
    };
    assert_eq!(lie(0, 7), Err(TableError::Magic { found: 7 }));
    assert_eq!(lie(1, 3), Err(TableError::Version { found: 3 }));
    for (slots, slot_bytes) in [(0, 16), (65_537, 16), (4, 20), (4, 0), (4, 8192)] {
        let word = u64::from(slots as u32) | (slot_bytes << 32);
        assert!(matches!(lie(2, word), Err(TableError::Layout(_))));
    }
    assert!(matches!(lie(3, 5), Err(TableError::Layout(_))));
    let flags = |bits: u64| lie(3, 4 | bits << 32);
    assert_eq!(
        flags(1 << 31 | 1),
        Err(TableError::Layout(LayoutError::Flags {
            found: 1 << 31 | 1
        }))
    );
    assert_eq!(
        flags(TableFlags::AGES.bits().into()),
        Err(TableError::Layout(LayoutError::Beat { found: 0 }))
    );
    assert_eq!(
        flags(TableFlags::TRANSACTIONS.bits().into()),
        Err(TableError::Window(WindowError::OutOfBounds {
            offset: 0,
            bytes: layout.bytes() + 64,
            len: layout.bytes()
        }))
    );
    assert!(matches!(
        lie(2, 65_536 | 4096 << 32),
        Err(TableError::Window(_))
    ));
    assert!(matches!(
        lie(2, 5 | 16 << 32),
        Err(TableError::Window(_)) | Err(TableError::Storage { .. })
    ));
    for found in [0, 0x8000, u64::MAX, 1 << 32 | 1] {
        assert_eq!(lie(4, found), Err(TableError::Epoch { found }));
    }
}

#[test]
fn every_call_ends_within_its_bound() {
    let (rounds, attempts) = if cfg!(miri) {
        (12, 100)
    } else {
        (5_000, 1_000_000)
    };
    let (mut values, mut errors, mut reports) = (0, 0, 0);
    for slot_bytes in [8, 40] {
        for lies in [10, 100, 255] {
            let options = TableOptions::new().ages(1);
            let layout = TableLayout::with_options(70, slot_bytes, options).unwrap();
            let (honest, mut writer, _) = table(layout);
            let counting = Counting::default();
            let hostile = Hostile::new(u64::from(slot_bytes) << 8 | u64::from(lies), lies);
            let lying = Probed::new(Probed::new(honest, hostile), counting.clone());
            // The header is read under fire too, until it happens to pass.
            let Some(mut reader) = (0..attempts).find_map(|_| {
                TableReader::attach(lying.clone(), vec![0; 70], vec![0; 70])
                    .ok()
                    .filter(|reader| reader.layout() == layout)
            }) else {
                assert!(lies > 10, "most of what is loaded is true");
                continue;
            };
            for round in 0..rounds {
                publish(&mut writer, round as u32 % 70, round);
                let before = counting.loads();
                let mut value = vec![0; layout.slot_words()];
                match reader.read(round as u32 % 70, &mut value) {
                    Ok(_) => values += 1,
                    Err(_) => errors += 1,
                }
                let loads = counting.loads() - before;
                let bound = match slot_bytes {
                    8 => 2,
                    _ => max_loads(layout.slot_words()) as u64,
                };
                assert!(loads <= bound);
                let before = counting.loads();
                match reader.age(round as u32 % 70) {
                    Ok(age) => assert_eq!(age.beat_ns, layout.beat_ns()),
                    Err(_) => errors += 1,
                }
                assert!(counting.loads() - before <= 2);
                let before = counting.loads();
                reader.changed(|slot, _| {
                    assert!(slot < 70);
                    reports += 1;
                });
                assert!(counting.loads() - before <= layout.tree().bytes() as u64 / 8);
            }
        }
    }
    assert!(
        values > 0 && errors > 0 && reports > 0,
        "{values}, {errors}, {reports}"
    );
}

/// A head that names what is long gone. A reader that has followed the copies must not go on there.
#[test]
fn what_is_given_up_was_never_written() {
    let layout = TableLayout::with_copies(1, 16, 2).unwrap();
    let (window, mut writer, mut reader) = table(layout);
    for number in 1..=10 {
        publish(&mut writer, 0, number);
        if number == 9 {
            read(&mut reader, 0).unwrap();
        }
    }
    let head = layout.tree_offset() + layout.tree().offset(1);
    tamper(&window, head / 8, 1 << 48 | 5);
    let (mut writer, recovered) = TableWriter::resume_in_place(window.clone(), [0]).unwrap();
    assert_eq!((recovered.values, recovered.lost), (0, 1));
    for reader in [&mut reader, &mut super::reader(&window, layout)] {
        assert_eq!(
            read(reader, 0),
            Err(ReadError::Slot(SlotError::NeverWritten))
        );
    }
    let (generation, _) = writer.publish(0, &stamped(layout, 11)).unwrap();
    assert!(matches!(
        read(&mut reader, 0),
        Err(ReadError::Slot(SlotError::Restarted { .. }))
    ));
    assert_eq!(read(&mut reader, 0), Ok((generation, 11)));
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: if cfg!(miri) { 4 } else { 512 },
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    /// A new writer over tampered contents: it goes on, and what it says is there is there.
    #[test]
    fn a_restart_survives_any_contents(
        small in any::<bool>(),
        published in 0..20u64,
        tampered in prop::collection::vec((any::<prop::sample::Index>(), any::<u64>(), any::<bool>()), 0..20),
        in_place in any::<bool>(),
    ) {
        let layout = TableLayout::with_copies(3, if small { 8 } else { 16 }, 2).unwrap();
        let (window, mut writer, _) = table(layout);
        for number in 1..=published {
            publish(&mut writer, number as u32 % 3, number);
        }
        // Not the header: what is wrong there has names of its own.
        let words = layout.bytes() / 8;
        for (index, value, near) in tampered {
            let near_one = 1 << 48 | (value & 0x1f);
            tamper(&window, 8 + index.index(words - 8), if near { near_one } else { value });
        }
        let new = if in_place { window.clone() } else { heap(layout.bytes()) };
        let resumed = if in_place {
            TableWriter::resume_in_place(window, vec![0; 3])
        } else {
            TableWriter::resume(&window, new.clone(), vec![0; 3])
        };
        let (mut writer, recovered) = match resumed {
            Ok(resumed) => resumed,
            // A tree whose root cannot be, a count at its end: the memory must be given up.
            Err(TableError::Tree(_) | TableError::Publish(_)) => {
                prop_assert!(in_place);
                return Ok(());
            }
            Err(error) => return Err(TestCaseError::fail(error.to_string())),
        };
        prop_assert!(recovered.values + recovered.lost <= 3);
        let mut reader = reader(&new, layout);
        let mut value = vec![0; layout.slot_words()];
        let readable = (0..3).filter(|slot| reader.read(*slot, &mut value).is_ok()).count();
        prop_assert_eq!(readable as u32, recovered.values);
        for slot in 0..3 {
            let generation = publish(&mut writer, slot, 500);
            prop_assert_eq!(read(&mut reader, slot), Ok((generation, 500)));
        }
        prop_assert_eq!(Header::read(&new).unwrap().epoch.get(), 2);
    }
}
