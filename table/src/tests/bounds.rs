//! How many loads each call makes at most, whatever the memory holds and however it changes: what "Bounds on work" in
//! `docs/abi.md` says.

use shmbus_shm::heap;
use shmbus_shm::slot::max_loads;
use shmbus_shm::testing::{Counting, Hostile, Probed};

use super::*;
use crate::{TableFlags, TableOptions};

const HEADER: u64 = 9;
const SLOTS: u32 = 70;

type Lying = Probed<Probed<Mapped, Hostile>, Counting>;

/// The table at `window`, of which `lies` of 256 loads find something else.
fn lying(window: &Mapped, seed: u64, lies: u8) -> (Lying, Counting) {
    let counting = Counting::default();
    let hostile = Probed::new(window.clone(), Hostile::new(seed, lies));
    (Probed::new(hostile, counting.clone()), counting)
}

fn layouts() -> impl Iterator<Item = TableLayout> {
    let shapes = [
        (8, TableFlags::NONE),
        (40, TableFlags::NONE),
        (40, TableFlags::AGES),
    ];
    shapes.into_iter().map(|(slot_bytes, flags)| {
        let options = TableOptions {
            copies: 2,
            flags,
            beat_ns: u64::from(flags.contains(TableFlags::AGES)),
        };
        TableLayout::with_options(SLOTS, slot_bytes, options).unwrap()
    })
}

fn is_small(layout: TableLayout) -> bool {
    layout.slot_words() == 1
}

#[test]
fn a_read_and_a_scan_keep_their_bounds() {
    let rounds = if cfg!(miri) { 10 } else { 5_000 };
    for layout in layouts() {
        let read = match layout.slot_words() {
            1 => 2,
            words => max_loads(words) as u64,
        };
        let tree = layout.tree();
        let scan: usize = (0..=tree.levels()).map(|level| tree.nodes(level)).sum();
        for lies in [0, 20, 255] {
            let (window, mut writer, _) = table(layout);
            let hostile = Hostile::new(u64::from(lies), 0);
            let counting = Counting::default();
            // The header is true, or the geometry would be another.
            let calm = Probed::new(Probed::new(window, hostile.clone()), counting.clone());
            let mut reader = reader(&calm, layout);
            hostile.lie_in(lies);
            let mut most = (0, 0);
            for round in 0..rounds {
                let slot = round as u32 % SLOTS;
                publish(&mut writer, slot, round);
                let start = counting.loads();
                let _ = reader.read(slot, &mut vec![0; layout.slot_words()]);
                let end = counting.loads();
                most.0 = most.0.max(end - start);
                reader.changed(|_, _| ());
                most.1 = most.1.max(counting.loads() - end);
            }
            assert!(most.0 <= read && most.1 <= scan as u64, "{most:?}");
        }
    }
}

#[test]
fn attaching_and_resuming_keep_their_bounds() {
    let rounds = if cfg!(miri) { 2 } else { 300 };
    for layout in layouts() {
        let words = layout.slot_words() as u64;
        let ages = u64::from(layout.flags().contains(TableFlags::AGES));
        let recovery = if is_small(layout) {
            2
        } else {
            2 + 2 * (words + 1) + 1
        };
        // And the heartbeat.
        let resuming = HEADER + 1 + u64::from(SLOTS) * (recovery + ages);
        let (mut resumed, mut refused) = (0, 0);
        for seed in 0..rounds {
            let (window, mut writer, _) = table(layout);
            for slot in 0..SLOTS {
                publish(&mut writer, slot, 1);
            }
            let lies = [0, 3, 40][seed as usize % 3];
            let storage = || vec![0; SLOTS as usize];

            let (memory, counting) = lying(&window, seed, lies);
            let _ = TableReader::attach(memory, storage(), storage());
            assert!(counting.loads() <= HEADER);

            // The seeds that pass the header are found on the way; storage is for the true geometry.
            let (memory, counting) = lying(&window, seed, lies);
            match TableWriter::resume(&memory, heap(layout.bytes()), storage()) {
                Ok(_) => resumed += 1,
                Err(_) => refused += 1,
            }
            assert!(counting.loads() <= resuming, "{}", counting.loads());

            let (memory, counting) = lying(&window, seed, lies);
            let _ = TableWriter::resume_in_place(memory, storage());
            // The root and the heartbeat besides.
            assert!(counting.loads() <= resuming + 2, "{}", counting.loads());
        }
        assert!(resumed > 0 && (cfg!(miri) || refused > 0));
    }
}
