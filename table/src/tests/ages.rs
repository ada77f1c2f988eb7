//! How old a slot says it is, also after its writer's death, and how a dead writer looks.

use core::sync::atomic::Ordering::Relaxed;

use shmbus_shm::testing::{Counting, Dying, Probed};
use shmbus_shm::{Field, heap};

use super::*;
use crate::{Age, AgeError, Silence, TableOptions};

const BEAT_NS: u64 = 1_000;

fn layout(slot_bytes: u32) -> TableLayout {
    TableLayout::with_options(3, slot_bytes, TableOptions::new().ages(BEAT_NS)).unwrap()
}

fn beats(beats: u64) -> Result<Age, AgeError> {
    Ok(Age {
        beats,
        beat_ns: BEAT_NS,
    })
}

#[test]
fn an_age_counts_beats_since_the_last_publication() {
    for slot_bytes in SIZE_CLASSES {
        let (_, mut writer, mut reader) = table(layout(slot_bytes));
        assert_eq!(reader.age(1), Err(AgeError::NeverWritten));
        publish(&mut writer, 1, 1);
        assert_eq!(reader.age(1), beats(0));
        for _ in 0..5 {
            writer.beat();
        }
        publish(&mut writer, 2, 2);
        writer.beat();
        assert_eq!((reader.age(1), reader.age(2)), (beats(6), beats(1)));
        let age = reader.age(1).unwrap();
        assert_eq!((age.at_least_ns(), age.at_most_ns()), (5_000, 7_000));
        publish(&mut writer, 1, 3);
        assert_eq!(reader.age(1), beats(0));
        assert_eq!(read(&mut reader, 1).unwrap().1, 3);
        assert_eq!(
            reader.age(3),
            Err(AgeError::NoSuchSlot { slot: 3, slots: 3 })
        );
    }
    let (_, mut writer, reader) = table(TableLayout::new(3, 8).unwrap());
    publish(&mut writer, 1, 1);
    assert_eq!(reader.age(1), Err(AgeError::NotTold));
}

#[test]
fn an_age_that_is_ahead_of_the_heartbeat_is_refused() {
    let layout = layout(16);
    let (window, mut writer, reader) = table(layout);
    publish(&mut writer, 1, 1);
    let published = Field::<u64, _>::new(&window, layout.ages_offset() + 8).unwrap();
    published.store(2, Relaxed);
    assert_eq!(
        reader.age(1),
        Err(AgeError::Ahead {
            published: 2,
            heartbeat: 1
        })
    );
    published.store(u64::MAX, Relaxed);
    let (_, recovered) = TableWriter::resume_in_place(window, vec![0; 3]).unwrap();
    assert_eq!((recovered.values, recovered.lost), (1, 0));
    assert_eq!(reader.age(1), beats(1), "the restart's own beat");
}

#[test]
fn what_a_restarted_writer_takes_over_is_as_old_as_it_was() {
    for slot_bytes in SIZE_CLASSES {
        for in_place in [false, true] {
            let layout = layout(slot_bytes);
            let (mut window, mut writer, mut reader) = table(layout);
            publish(&mut writer, 1, 1);
            for _ in 0..4 {
                writer.beat();
            }
            drop(writer);
            let (mut writer, _) = if in_place {
                TableWriter::resume_in_place(window, vec![0; 3]).unwrap()
            } else {
                let old = core::mem::replace(&mut window, heap(layout.bytes()));
                let resumed = TableWriter::resume(&old, window.clone(), vec![0; 3]).unwrap();
                reader.rebind(window).unwrap();
                resumed
            };
            assert_eq!(reader.age(1), beats(5));
            assert_eq!(reader.age(2), Err(AgeError::NeverWritten));
            writer.beat();
            publish(&mut writer, 2, 2);
            assert_eq!((reader.age(1), reader.age(2)), (beats(6), beats(0)));
        }
    }
}

/// A value is never older than its age said before it was read, wherever the writer dies.
#[test]
fn no_death_makes_a_value_look_younger() {
    for slot_bytes in [8, 16] {
        for stores in 0..60 {
            let layout = layout(slot_bytes);
            let (window, writer, mut reader) = table(layout);
            drop(writer);
            let dying = Dying::after(stores);
            let probed = Probed::new(window.clone(), dying.clone());
            let Ok((mut writer, _)) = TableWriter::resume_in_place(probed, vec![0; 3]) else {
                panic!("the table was sound");
            };
            for number in 1..=3 {
                writer.beat();
                publish(&mut writer, 1, number);
            }
            // Publication n came after beat n of this life, and two are from before: setting up and taking over.
            let heartbeat = reader.heartbeat();
            if let Ok(age) = reader.age(1) {
                let told = heartbeat - age.beats;
                let (_, number) = read(&mut reader, 1).unwrap();
                assert!(number + 2 >= told, "{number} is not from beat {told}");
            }
            drop(writer);
            let (_, recovered) = TableWriter::resume_in_place(window, vec![0; 3]).unwrap();
            assert_eq!(recovered.lost, 0);
        }
    }
}

#[test]
fn an_age_costs_the_writer_a_store() {
    let stores = |layout: TableLayout| {
        let counting = Counting::default();
        let window = Probed::new(heap(layout.bytes()), counting.clone());
        let mut writer = writer(&window, layout);
        let before = counting.stores();
        publish(&mut writer, 0, 1);
        assert_eq!(counting.loads(), 0);
        counting.stores() - before
    };
    for slot_bytes in [8, 64] {
        let plain = stores(TableLayout::new(3, slot_bytes).unwrap());
        assert_eq!(stores(layout(slot_bytes)), plain + 1);
    }
}

#[test]
fn a_dead_writer_is_a_silent_one() {
    let (_, mut writer, reader) = table(layout(16));
    publish(&mut writer, 0, 1);
    let mut silence = Silence::new(reader.heartbeat(), 10_000);
    assert_eq!(silence.look(reader.heartbeat(), 10_900), 900);
    writer.beat();
    assert_eq!(silence.look(reader.heartbeat(), 11_800), 0);
    drop(writer);
    assert_eq!(silence.look(reader.heartbeat(), 14_800), 3 * BEAT_NS);
    assert_eq!(
        silence.look(reader.heartbeat(), 9_000),
        0,
        "a clock that goes back"
    );
    // Ages stand still with the writer's count: they do not tell.
    assert_eq!(reader.age(0), beats(1));
}
