//! The writer dies after each of its stores in turn: a snapshot is that of one transaction, and the next life goes on
//! with the last committed one.

use shmbus_shm::testing::{Dying, Probed};

use super::*;
use crate::{Header, TableError};

const SLOTS: u32 = 3;

/// The slots that each transaction writes.
const HISTORY: [&[u32]; 6] = [&[0, 1], &[2], &[0, 1, 2], &[1], &[2, 0], &[0, 1, 2]];

/// What each slot holds as of the first `commit` transactions.
fn as_of(commit: usize) -> Vec<u64> {
    let last = |slot| {
        let committed = &HISTORY[..commit];
        committed.iter().rposition(|slots| slots.contains(&slot))
    };
    let number = |slot| last(slot).map_or(0, |index| index as u64 + 1);
    (0..SLOTS).map(number).collect()
}

/// A snapshot, in which a restart may be reported.
fn snapshot(reader: &mut Reader<Mapped>) -> Vec<u64> {
    let slots = all(reader.layout());
    match look(reader, &slots) {
        Err(SnapshotError::Restarted { .. }) => look(reader, &slots),
        outcome => outcome,
    }
    .unwrap()
}

fn every_death(layout: TableLayout) {
    let (mut deaths, mut is_dead) = (0, true);
    for stores in 0.. {
        if !is_dead {
            break;
        }
        let dying = Dying::after(stores);
        let window = heap(layout.bytes());
        let mut dead = writer(&Probed::new(window.clone(), dying.clone()), layout);
        if dying.is_dead() {
            // Nobody takes what is half set up for a table.
            let header = Header::read(&window);
            assert!(matches!(header, Err(TableError::Magic { .. })));
            continue;
        }
        let mut follower = reader(&window, layout);
        let mut completed = 0;
        for (index, slots) in HISTORY.iter().enumerate() {
            commit(&mut dead, slots, index as u64 + 1);
            if dying.is_dead() {
                break;
            }
            completed = index + 1;
            // One that follows, and one that falls behind: it looks at every other transaction.
            if index % 2 == 0 {
                assert_eq!(snapshot(&mut follower), as_of(completed));
            }
        }
        is_dead = dying.is_dead();
        let left = snapshot(&mut follower);
        let attempted = (completed + 1).min(HISTORY.len());
        assert!(left == as_of(completed) || left == as_of(attempted));
        assert_eq!(snapshot(&mut reader(&window, layout)), left);

        // The next life, which dies too while it sets up its memory, and the one after.
        for again in 0.. {
            let dying = Dying::after(again);
            let new = heap(layout.bytes());
            let seeded = Probed::new(new.clone(), dying.clone());
            resume(&window, &seeded, layout);
            deaths += 1;
            if dying.is_dead() {
                assert!(Header::read(&new).is_err());
                assert_eq!(snapshot(&mut follower), left);
                continue;
            }
            follower.rebind(new.clone()).unwrap();
            assert_eq!(snapshot(&mut follower), left);
            assert_eq!(snapshot(&mut reader(&new, layout)), left);
            let third = heap(layout.bytes());
            let mut writer = resume(&new, &third, layout);
            follower.rebind(third).unwrap();
            commit(&mut writer, &[0, 2], 9);
            assert_eq!(snapshot(&mut follower), [9, left[1], 9]);
            break;
        }
    }
    assert!(deaths > 50, "{deaths} deaths");
}

#[test]
#[cfg_attr(miri, ignore = "thousands of lives, each of the same accesses")]
fn a_death_leaves_the_last_committed_transaction() {
    every_death(layout(SLOTS, 8, 2));
    every_death(layout(SLOTS, 24, 2));
    every_death(layout(SLOTS, 16, 4));
    let options = TableOptions::new().copies(2).transactions().ages(1);
    every_death(TableLayout::with_options(SLOTS, 16, options).unwrap());
}
