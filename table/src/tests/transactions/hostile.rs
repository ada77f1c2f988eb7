//! Whatever the memory holds, and however it changes under a call: typed outcomes, bounded work.

use core::sync::atomic::Ordering::Relaxed;

use proptest::prelude::*;
use shmbus_shm::Field;
use shmbus_shm::slot::ReadError;
use shmbus_shm::testing::{Counting, Hostile, Probe, Probed};

use super::*;
use crate::{Header, max_snapshot_loads};

fn tamper(window: &Mapped, offset: usize, value: u64) {
    Field::<u64, _>::new(window, offset)
        .unwrap()
        .store(value, Relaxed);
}

/// A reader of memory that lies also while it attaches, until that happens to pass.
fn attach<W: Window>(lying: &W, layout: TableLayout) -> Option<Reader<W>> {
    let storage = || vec![0; layout.slots() as usize];
    let attempts = if cfg!(miri) { 100 } else { 100_000 };
    (0..attempts).find_map(|_| {
        SnapshotReader::attach(lying.clone(), storage(), storage())
            .ok()
            .filter(|reader| reader.layout() == layout)
    })
}

#[test]
fn each_lie_has_a_name() {
    let layout = layout(2, 16, 2);
    let lie = |offset: usize, value: u64| {
        let (window, mut writer, mut reader) = table(layout);
        let last = commit(&mut writer, &[0, 1], 1);
        look(&mut reader, &[0, 1]).unwrap();
        tamper(&window, offset, value);
        let mut cold = super::reader(&window, layout);
        (last, look(&mut reader, &[0, 1]), look(&mut cold, &[0, 1]))
    };
    // The commit word: nonsense, an older transaction, another life's.
    let (_, warm, cold) = lie(64, 7);
    let nonsense = SnapshotError::Commit(ReadError::NoGeneration { word: 7 });
    assert_eq!((warm, cold), (Err(nonsense), Err(nonsense)));
    let (last, warm, _) = lie(64, 1 << 48 | 1);
    assert_eq!(last.word(), 1 << 48 | 1);
    assert_eq!(warm, Ok(vec![1, 1]));
    let (_, warm, cold) = lie(64, 2 << 48 | 1);
    assert!(matches!(warm, Err(SnapshotError::Restarted { .. })));
    assert!(matches!(
        cold,
        Err(SnapshotError::Slot {
            slot: 0,
            source: ReadError::NoGeneration { .. }
        })
    ));
    // A head: nonsense, and a generation that was never written.
    let head = layout.tree_offset() + layout.tree().offset(1) + 8;
    let slot = |source| Err(SnapshotError::Slot { slot: 1, source });
    let (_, warm, cold) = lie(head, 9);
    assert_eq!(warm, Ok(vec![1, 1]), "which needs no head");
    assert_eq!(cold, slot(ReadError::NoGeneration { word: 9 }));
    let head_of = Generation::from_word(1 << 48 | 5).unwrap();
    let (last, _, cold) = lie(head, head_of.word());
    assert_eq!(
        cold,
        slot(ReadError::Inconsistent {
            head: head_of,
            sequence: 2 * last.word()
        })
    );
    // A number from a transaction that was not committed: the value is not taken.
    let copy = layout.values_offset() + (2 + 1) * 64;
    let (_, warm, cold) = lie(copy + 8, 1 << 48 | 2);
    assert_eq!((warm, cold), (Ok(vec![1, 1]), Ok(vec![1, 0])));
    // A copy that is being overwritten for ever.
    let (_, warm, _) = lie(copy, u64::MAX);
    assert_eq!(warm, Err(SnapshotError::Lapped { slot: 1 }));
}

#[test]
fn every_call_ends_within_its_bound() {
    let rounds = if cfg!(miri) { 12 } else { 2_000 };
    let (mut snapshots, mut errors, mut most) = (0, 0, 0);
    for (slot_bytes, copies) in [(8, 2), (40, 4), (8, 8)] {
        for lies in [5, 60, 120] {
            let layout = layout(6, slot_bytes, copies);
            let (honest, mut writer, _) = table(layout);
            let counting = Counting::default();
            let hostile = Hostile::new(u64::from(slot_bytes + copies) << 8 | u64::from(lies), lies);
            let lying = Probed::new(Probed::new(honest.clone(), hostile), counting.clone());
            let Some(mut reader) = attach(&lying, layout) else {
                assert!(lies > 5, "most of what is loaded is true");
                continue;
            };
            let slots = [5, 0, 3];
            let (mut values, mut generations) = (vec![0; 3 * layout.slot_words()], [None; 3]);
            for round in 0..rounds {
                commit(&mut writer, &[round as u32 % 6, 3], round);
                let before = counting.loads();
                match reader.read_together(&slots, &mut values, &mut generations) {
                    Ok(_) => snapshots += 1,
                    Err(_) => errors += 1,
                }
                let loads = counting.loads() - before;
                assert!(loads <= max_snapshot_loads(layout, 3) as u64);
                most = most.max(loads);
                let before = counting.loads();
                let _ = reader.read(3, &mut values[..layout.slot_words()]);
                assert!(counting.loads() - before <= max_snapshot_loads(layout, 1) as u64);
                let before = counting.loads();
                reader.changed(|slot, _| assert!(slot < 6));
                assert!(counting.loads() - before <= layout.tree().bytes() as u64 / 8);
                // A reader is not stuck for ever behind one lie.
                if round % 32 == 0
                    && let Some(new) = attach(&lying, layout)
                {
                    reader = new;
                }
            }
        }
    }
    assert!(snapshots > 0 && errors > 0, "{snapshots}, {errors}");
    eprintln!("{snapshots} snapshots, {errors} errors, at most {most} loads");
}

/// After the first looks every sequence has moved on: each try costs the most that a try can.
#[derive(Clone, Debug)]
struct Overwritten {
    loads: Counting,
    values_at: usize,
}

impl Probe for Overwritten {
    fn load(&self, offset: usize, bytes: usize, value: u64) -> u64 {
        self.loads.load(offset, bytes, value);
        let is_sequence = offset >= self.values_at && (offset - self.values_at).is_multiple_of(64);
        if is_sequence { u64::MAX } else { value }
    }
}

#[test]
fn a_snapshot_that_is_always_overwritten_is_given_up() {
    let layout = layout(3, 8, 2);
    let (window, mut writer, _) = table(layout);
    commit(&mut writer, &[0, 1, 2], 1);
    let probe = Overwritten {
        loads: Counting::default(),
        values_at: layout.values_offset(),
    };
    let mut reader = reader(&Probed::new(window, probe.clone()), layout);
    let before = probe.loads.loads();
    assert_eq!(
        look(&mut reader, &[0, 1, 2]),
        Err(SnapshotError::Lapped { slot: 0 })
    );
    // In each try the commit word, the head, and one look at a sequence.
    assert_eq!(probe.loads.loads() - before, 8 * 3);
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
        transactions in 0..12u64,
        tampered in prop::collection::vec((any::<prop::sample::Index>(), any::<u64>(), any::<bool>()), 0..20),
    ) {
        let layout = layout(3, 16, 2);
        let (window, mut writer, _) = table(layout);
        for number in 1..=transactions {
            commit(&mut writer, &[number as u32 % 3, number as u32 / 2 % 3], number);
        }
        // Not the header: what is wrong there has names of its own.
        let words = layout.bytes() / 8;
        for (index, value, near) in tampered {
            let near_one = 1 << 48 | (value & 0x1f);
            tamper(&window, 8 * (8 + index.index(words - 8)), if near { near_one } else { value });
        }
        let new = heap(layout.bytes());
        let (cursors, staging) = storage(layout);
        let (mut writer, recovered) = TransactionWriter::resume(&window, new.clone(), cursors, staging).unwrap();
        prop_assert!(recovered.values + recovered.lost <= 3);
        let mut reader = reader(&new, layout);
        let (mut values, mut generations) = ([0; 6], [None; 3]);
        reader.read_together(&[0, 1, 2], &mut values, &mut generations).unwrap();
        prop_assert_eq!(generations.iter().flatten().count() as u32, recovered.values);
        commit(&mut writer, &[0, 1, 2], 500);
        prop_assert_eq!(look(&mut reader, &[0, 1, 2]), Ok(vec![500; 3]));
        prop_assert_eq!(Header::read(&new).unwrap().epoch.get(), 2);
    }
}
