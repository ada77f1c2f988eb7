//! The writer dies after each of its stores in turn: in setting up, in publishing, and in taking over from a dead one.

use shmbus_shm::heap;
use shmbus_shm::slot::ReadError as SlotError;
use shmbus_shm::testing::{Dying, Probed};

use super::*;
use crate::{Header, TableError};

const SLOTS: u32 = 2;
const PUBLICATIONS: u64 = if cfg!(miri) { 3 } else { 7 };

/// What became of a writer that could make only so many stores.
struct Life {
    window: Mapped,
    /// A reader that has followed from the start, if the table was set up.
    follower: Option<Reader<Mapped>>,
    /// For each slot, the last publication that was completed, 0 for none.
    completed: [u64; SLOTS as usize],
    /// The publication that was under way.
    attempted: u64,
    is_dead: bool,
}

/// Sets up a table and publishes to its slots in turn, until `stores` stores are made.
fn first_life(layout: TableLayout, stores: u64) -> Life {
    let dying = Dying::after(stores);
    let window = heap(layout.bytes());
    let mut life = Life {
        window: window.clone(),
        follower: None,
        completed: [0; SLOTS as usize],
        attempted: 0,
        is_dead: true,
    };
    let mut writer = writer(&Probed::new(window.clone(), dying.clone()), layout);
    if dying.is_dead() {
        return life;
    }
    let follower = life.follower.insert(reader(&window, layout));
    for number in 1..=PUBLICATIONS {
        let slot = number as u32 % SLOTS;
        life.attempted = number;
        publish(&mut writer, slot, number);
        if dying.is_dead() {
            return life;
        }
        life.completed[slot as usize] = number;
        assert_eq!(read(follower, slot).unwrap().1, number);
    }
    life.is_dead = false;
    life
}

impl Life {
    /// That each slot holds its last completed publication or the one that was under way. A restart may be reported.
    fn assert_kept(&self, reader: &mut Reader<Mapped>) {
        for slot in 0..SLOTS {
            let completed = self.completed[slot as usize];
            let outcome = match read(reader, slot) {
                Err(ReadError::Slot(SlotError::Restarted { .. })) => read(reader, slot),
                outcome => outcome,
            };
            match outcome {
                Ok((_, number)) => {
                    assert!(number == completed || number == self.attempted);
                }
                Err(error) => {
                    assert_eq!(completed, 0, "{error}");
                    assert_eq!(error, ReadError::Slot(SlotError::NeverWritten));
                }
            }
        }
    }

    fn resume<W: Window>(&self, window: &W) -> Writer<W> {
        let storage = vec![0; SLOTS as usize];
        let (writer, recovered) = TableWriter::resume_in_place(window.clone(), storage).unwrap();
        assert_eq!(recovered.lost, 0);
        writer
    }
}

pub(super) fn every_death_in_two_lives(layout: TableLayout) {
    let mut deaths = 0;
    for stores in 0.. {
        let life = first_life(layout, stores);
        let Some(mut follower) = life.follower.as_ref().map(|_| reader(&life.window, layout))
        else {
            // Nobody takes what is half set up for a table.
            assert!(matches!(
                Header::read(&life.window),
                Err(TableError::Magic { .. })
            ));
            continue;
        };
        life.assert_kept(&mut follower);
        for again in 0.. {
            let mut life = first_life(layout, stores);
            let mut follower = life.follower.take().unwrap();
            life.assert_kept(&mut follower);
            let dying = Dying::after(again);
            life.resume(&Probed::new(life.window.clone(), dying.clone()));
            life.assert_kept(&mut follower);
            life.assert_kept(&mut reader(&life.window, layout));
            deaths += 1;

            let mut third = life.resume(&life.window);
            life.assert_kept(&mut follower);
            for slot in 0..SLOTS {
                publish(&mut third, slot, 100);
                let _ = read(&mut follower, slot);
                assert_eq!(read(&mut follower, slot).unwrap().1, 100);
            }
            if !dying.is_dead() {
                break;
            }
        }
        if !life.is_dead {
            break;
        }
    }
    assert!(deaths > 20 * PUBLICATIONS, "{deaths} deaths");
}

#[test]
#[cfg_attr(miri, ignore = "thousands of lives, each of the same accesses")]
fn small_slots_survive_every_death() {
    every_death_in_two_lives(TableLayout::new(SLOTS, 8).unwrap());
}

#[test]
#[cfg_attr(miri, ignore = "thousands of lives, each of the same accesses")]
fn copied_slots_survive_every_death() {
    every_death_in_two_lives(TableLayout::with_copies(SLOTS, 24, 2).unwrap());
    every_death_in_two_lives(TableLayout::with_copies(SLOTS, 16, 4).unwrap());
}

/// Seeding new memory may stop anywhere: the old memory is as it was, and the new one is no table yet, though it was
/// one before.
#[test]
fn a_death_while_new_memory_is_seeded_loses_nothing() {
    let layout = TableLayout::with_copies(SLOTS, 16, 2).unwrap();
    for stores in 1.. {
        let mut life = first_life(layout, u64::MAX - 1);
        let (new, ..) = table(layout);
        let dying = Dying::after(stores);
        let seeded = Probed::new(new.clone(), dying.clone());
        let storage = || vec![0; SLOTS as usize];
        TableWriter::resume(&life.window, seeded, storage()).unwrap();
        let mut follower = life.follower.take().unwrap();
        life.assert_kept(&mut follower);
        if !dying.is_dead() {
            follower.rebind(new).unwrap();
            life.assert_kept(&mut follower);
            break;
        }
        assert!(matches!(
            follower.rebind(new),
            Err(TableError::Magic { found: 0 })
        ));
    }
}
