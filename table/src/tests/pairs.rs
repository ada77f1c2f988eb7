//! Slots of 16 bytes that are accessed at once.

use shmbus_shm::testing::{Counting, Hostile, Probe, Probed};

use super::*;
use crate::{Age, TableError, TableFlags, TableOptions};

/// The layout of such a table, if this machine promises what it needs.
fn layout(slots: u32, options: TableOptions) -> Option<TableLayout> {
    let layout = TableLayout::with_options(slots, 16, options.pairs()).unwrap();
    let window = heap(layout.bytes());
    if window.has_pairs() {
        return Some(layout);
    }
    let refused = TableWriter::create(
        window,
        layout,
        TYPE_ID,
        Epoch::FIRST,
        vec![0; slots as usize],
    );
    assert_eq!(refused.unwrap_err(), TableError::NoPairs);
    eprintln!("SKIPPED: {}", TableError::NoPairs);
    None
}

/// A machine that promises nothing.
#[derive(Clone, Debug)]
struct Unpromised;

impl Probe for Unpromised {
    fn allows_pairs(&self) -> bool {
        false
    }
}

#[test]
fn a_machine_that_promises_nothing_refuses_pairs_and_leaves_the_memory() {
    let layout = TableLayout::with_options(2, 16, TableOptions::new().pairs()).unwrap();
    let plain = TableLayout::with_copies(2, 16, 2).unwrap();
    let (window, mut writer, mut reader) = table(plain);
    publish(&mut writer, 1, 7);
    let unpromised = Probed::new(window, Unpromised);
    let storage = || vec![0; 2];
    let refused = TableWriter::create(unpromised, layout, TYPE_ID, Epoch::FIRST, storage());
    assert_eq!(refused.unwrap_err(), TableError::NoPairs);
    assert_eq!(read(&mut reader, 1).unwrap().1, 7);

    let Some(layout) = self::layout(2, TableOptions::new()) else {
        return;
    };
    let (window, ..) = table(layout);
    let unpromised = Probed::new(window, Unpromised);
    let refused = TableReader::attach(unpromised.clone(), storage(), storage());
    assert_eq!(refused.unwrap_err(), TableError::NoPairs);
    let refused = TableWriter::resume(&unpromised, heap(layout.bytes()), storage());
    assert_eq!(refused.unwrap_err(), TableError::NoPairs);
}

#[test]
fn pairs_are_a_table_like_any_other() {
    let Some(layout) = layout(70, TableOptions::new().ages(10)) else {
        return;
    };
    assert!(layout.flags().contains(TableFlags::PAIRS));
    let (old, mut writer, mut reader) = table(layout);
    assert!(read(&mut reader, 3).is_err());
    let last = publish(&mut writer, 69, 2);
    writer.beat();
    publish(&mut writer, 3, 1);
    assert_eq!(read(&mut reader, 69), Ok((last, 2)));
    let age = Age {
        beats: 1,
        beat_ns: 10,
    };
    assert_eq!(reader.age(69), Ok(age));
    assert_eq!(changes(&mut reader).len(), 2);
    assert_eq!(reader.read(3, &mut [0; 1]).unwrap().count(), 1);
    assert!(matches!(
        writer.publish(3, &[1]),
        Err(TableError::Publish(_))
    ));
    assert!(matches!(
        writer.publish(70, &[1, 2]),
        Err(TableError::NoSuchSlot { .. })
    ));
    drop(writer);

    let new = heap(layout.bytes());
    let (mut writer, recovered) = TableWriter::resume(&old, new.clone(), vec![0; 70]).unwrap();
    assert_eq!((recovered.values, recovered.lost), (2, 0));
    reader.rebind(new).unwrap();
    assert!(read(&mut reader, 69).is_err(), "a restart is told of");
    assert_eq!(read(&mut reader, 69).unwrap().1, 2);
    let generation = publish(&mut writer, 3, 5);
    assert!(read(&mut reader, 3).is_err());
    assert_eq!(read(&mut reader, 3), Ok((generation, 5)));
}

#[test]
#[cfg_attr(miri, ignore = "no pairs")]
fn pairs_survive_every_death() {
    if let Some(layout) = layout(2, TableOptions::new()) {
        death::every_death_in_two_lives(layout);
    }
}

/// The head and the pair, whose halves count as a load each, whatever they hold.
#[test]
fn a_read_takes_the_same_loads_whatever_is_found() {
    let Some(layout) = layout(3, TableOptions::new()) else {
        return;
    };
    let (honest, mut writer, _) = table(layout);
    let (hostile, counting) = (Hostile::new(1, 0), Counting::default());
    let window = Probed::new(honest, (hostile, counting.clone()));
    let mut reader = reader(&window, layout);
    let before = counting.loads();
    assert!(reader.read(1, &mut [0; 2]).is_err());
    assert_eq!(counting.loads() - before, 1);
    for number in 1..100 {
        publish(&mut writer, 1, number);
        let before = counting.loads();
        assert_eq!(read(&mut reader, 1).unwrap().1, number);
        assert_eq!(counting.loads() - before, 3);
    }
}
