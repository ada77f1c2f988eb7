use core::ops::ControlFlow;
use core::sync::atomic::Ordering::{Relaxed, Release};
use std::collections::BTreeMap;
use std::vec;
use std::vec::Vec;

use proptest::prelude::*;

use super::*;
use crate::testing::{Counting, Hostile, Probed};
use crate::{Field, Mapped, heap};

fn tree(layout: TreeLayout) -> (Mapped, TreeWriter<Mapped>, TreeReader<Mapped, Vec<u64>>) {
    let window = heap(layout.bytes());
    let writer = TreeWriter::create(&window, layout).unwrap();
    let reader = reader(&window, layout);
    (window, writer, reader)
}

fn reader<W: crate::Window>(window: &W, layout: TreeLayout) -> TreeReader<W, Vec<u64>> {
    TreeReader::new(window, layout, vec![0; layout.leaves() as usize]).unwrap()
}

fn reported<W: crate::Window>(reader: &mut TreeReader<W, Vec<u64>>) -> Vec<(u32, u64)> {
    let mut found = Vec::new();
    reader.changed(|leaf, generation| found.push((leaf, generation)));
    found
}

#[test]
fn levels_start_on_lines_of_their_own() {
    for (leaves, levels, bytes) in [
        (1, 1, 64 + 64),
        (8, 1, 64 + 64),
        (16, 1, 64 + 128),
        (17, 2, 64 + 64 + 256),
        (64, 2, 64 + 64 + 512),
        (2_000, 3, 64 + 64 + 1_024 + 16_384),
        (4_096, 3, 64 + 128 + 2_048 + 32_768),
        (65_536, 4, 64 + 128 + 2_048 + 32_768 + 524_288),
        (
            TreeLayout::MAX_LEAVES,
            6,
            64 + (16 + 256 + 4_096 + 65_536 + 1_048_576 + 16_777_216) * 8,
        ),
    ] {
        let layout = TreeLayout::new(leaves).unwrap();
        assert_eq!(
            (layout.levels(), layout.bytes()),
            (levels, bytes),
            "{leaves} leaves"
        );
        for level in 0..=levels {
            assert!(layout.offset(level).is_multiple_of(64));
        }
    }
    assert!(TreeLayout::new(0).is_err());
    assert!(TreeLayout::new(TreeLayout::MAX_LEAVES + 1).is_err());
}

#[test]
fn too_little_memory_or_storage_is_refused() {
    let layout = TreeLayout::new(100).unwrap();
    assert!(matches!(
        TreeWriter::create(&heap(layout.bytes() - 8), layout),
        Err(TreeError::Window(_))
    ));
    assert_eq!(
        TreeReader::new(&heap(layout.bytes()), layout, [0; 99]).unwrap_err(),
        TreeError::Storage {
            leaves: 100,
            found: 99
        }
    );
}

#[test]
fn an_idle_scan_is_one_load_and_a_clustered_one_looks_at_few_words() {
    let layout = TreeLayout::new(4_096).unwrap();
    let window = heap(layout.bytes());
    let mut writer = TreeWriter::create(&window, layout).unwrap();
    let counting = Counting::default();
    let mut reader = reader(&Probed::new(window, counting.clone()), layout);

    assert_eq!(reader.changed(|_, _| ()), Scan::Unchanged);
    assert_eq!(counting.loads(), 1);

    for leaf in 640..656 {
        writer.mark(leaf, 1);
    }
    let before = counting.loads();
    assert_eq!(reported(&mut reader).len(), 16);
    assert_eq!(counting.loads() - before, 1 + 16 + 16 + 16);
    assert_eq!(counting.stores(), 0);
}

#[test]
fn the_writer_reads_nothing_and_stores_one_word_a_level() {
    let leaves = if cfg!(miri) { 65 } else { 65_536 };
    let layout = TreeLayout::new(leaves).unwrap();
    let counting = Counting::default();
    let window = Probed::new(heap(layout.bytes()), counting.clone());
    let mut writer = TreeWriter::create(&window, layout).unwrap();
    let formatted = counting.stores();
    writer.mark(leaves - 1, 1);
    assert_eq!(counting.stores() - formatted, layout.levels() as u64 + 1);
    assert_eq!(counting.loads(), 0);
}

#[test]
fn a_paused_scan_goes_round_and_starves_no_leaf() {
    let (_, mut writer, mut reader) = tree(TreeLayout::new(300).unwrap());
    writer.mark(299, 1);
    let mut found = Vec::new();
    for generation in 1..=2 {
        // Leaf 0 changes before every scan.
        writer.mark(0, generation);
        assert_eq!(
            reader.scan(|leaf, _| {
                found.push(leaf);
                ControlFlow::Break(())
            }),
            Scan::Paused
        );
        assert!(!reader.is_unchanged());
    }
    assert_eq!(found, [0, 299]);
    assert_eq!(reader.changed(|_, _| ()), Scan::Finished);
    assert_eq!(reported(&mut reader), [(0, 2)]);
    assert!(reader.is_unchanged());
}

#[test]
fn a_resumed_writer_announces_what_its_predecessor_had_only_begun() {
    let layout = TreeLayout::new(300).unwrap();
    let (window, mut writer, mut reader) = tree(layout);
    writer.mark(5, 1);
    assert_eq!(reported(&mut reader), [(5, 1)]);
    // It dies between a leaf and the stamps above.
    writer.leaves().store(200, 7, Release);

    let mut writer = TreeWriter::resume(&window, layout).unwrap();
    assert_eq!(reported(&mut reader), [(200, 7)]);
    writer.mark(200, 8);
    assert_eq!(reported(&mut reader), [(200, 8)]);

    Field::<u64, _>::new(&window, 0)
        .unwrap()
        .store(u64::MAX, Relaxed);
    assert_eq!(
        TreeWriter::resume(&window, layout).unwrap_err(),
        TreeError::Root { root: u64::MAX }
    );
}

#[test]
fn a_reader_follows_its_writer_to_new_memory() {
    let layout = TreeLayout::new(70).unwrap();
    let (_, mut writer, mut reader) = tree(layout);
    writer.mark(3, 1);
    reader.changed(|_, _| ());
    let (window, mut writer, _) = tree(layout);
    // The same generation and the same stamp as in the old memory are news all the same.
    writer.mark(3, 1);
    reader.rebind(&window).unwrap();
    assert_eq!(reported(&mut reader), [(3, 1)]);
}

#[test]
fn a_root_that_falls_hides_nothing() {
    let layout = TreeLayout::new(300).unwrap();
    let (window, mut writer, mut reader) = tree(layout);
    for generation in 1..=5 {
        writer.mark(200, generation);
    }
    assert_eq!(reported(&mut reader), [(200, 5)]);
    // A writer that formats memory which is being read is not honest, but it is found out.
    let mut writer = TreeWriter::create(&window, layout).unwrap();
    writer.mark(9, 1);
    assert_eq!(reported(&mut reader), [(9, 1)]);
    writer.mark(200, 6);
    assert_eq!(reported(&mut reader), [(200, 6)]);
}

/// Whatever memory holds, a scan makes at most a load a word and reports each leaf at most once.
#[test]
fn a_hostile_tree_costs_a_bounded_scan() {
    let scans = if cfg!(miri) { 10 } else { 2_000 };
    for leaves in [1, 16, 17, 300, 4_097] {
        if cfg!(miri) && leaves > 300 {
            continue;
        }
        let layout = TreeLayout::new(leaves).unwrap();
        let words = layout.bytes() as u64 / 8;
        let counting = Counting::default();
        let hostile = Probed::new(heap(layout.bytes()), Hostile::new(u64::from(leaves), 200));
        let mut reader = reader(&Probed::new(hostile, counting.clone()), layout);
        let mut total = 0;
        for _ in 0..scans {
            let before = counting.loads();
            let mut next = 0;
            reader.changed(|leaf, _| {
                assert!(leaf >= next && leaf < leaves);
                next = leaf + 1;
                total += 1;
            });
            assert!(counting.loads() - before <= words);
        }
        assert!(total > 0);
    }
}

#[derive(Clone, Debug)]
enum Step {
    Mark(u32),
    Scan,
    /// Stops after so many reports.
    ScanSome(usize),
    Resume,
}

fn steps(leaves: u32) -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        8 => (0..leaves).prop_map(Step::Mark),
        2 => Just(Step::Scan),
        2 => (1..4_usize).prop_map(Step::ScanSome),
        1 => Just(Step::Resume),
    ];
    prop::collection::vec(step, 1..if cfg!(miri) { 30 } else { 200 })
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, cases: if cfg!(miri) { 4 } else { 256 }, ..ProptestConfig::default() })]

    /// A finished scan reports exactly what changed; a paused one a part of it, in its place.
    #[test]
    fn scans_agree_with_a_map(
        (leaves, bits, steps) in (1..=256_u32, 2..=6_u32).prop_flat_map(|(leaves, bits)| {
            let most = leaves.min(1 << (4 * bits));
            (Just(most), Just(bits), steps(most))
        })
    ) {
        let layout = TreeLayout::for_model(leaves, bits).unwrap();
        let (window, mut writer, mut reader) = tree(layout);
        let mut latest = vec![0_u64; leaves as usize];
        let mut dirty = BTreeMap::new();
        // A scan that was paused need not report what changes behind it; the one after it does.
        let mut is_paused = false;
        for step in steps {
            match step {
                Step::Mark(leaf) => {
                    latest[leaf as usize] += 1;
                    writer.mark(leaf, latest[leaf as usize]);
                    dirty.insert(leaf, latest[leaf as usize]);
                }
                Step::Resume => writer = TreeWriter::resume(&window, layout).unwrap(),
                Step::Scan | Step::ScanSome(_) => {
                    let mut left = if let Step::ScanSome(most) = step { most } else { usize::MAX };
                    let mut news = Vec::new();
                    let end = reader.scan(|leaf, generation| {
                        news.push((leaf, generation));
                        left -= 1;
                        if left == 0 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
                    });
                    for (leaf, generation) in news {
                        prop_assert_eq!(dirty.remove(&leaf), Some(generation));
                    }
                    if end != Scan::Paused && !is_paused {
                        prop_assert!(dirty.is_empty(), "{:?} was missed", dirty);
                        prop_assert!(reader.is_unchanged());
                    }
                    is_paused = end == Scan::Paused;
                }
            }
        }
        reader.changed(|leaf, _| { dirty.remove(&leaf); });
        reader.changed(|leaf, _| { dirty.remove(&leaf); });
        prop_assert!(dirty.is_empty(), "{:?} was missed", dirty);
    }
}
