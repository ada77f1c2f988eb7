//! A table that is shown in other memory: against a model, with a source that dies or lies, and what it costs.

use std::num::NonZeroU32;

use proptest::prelude::*;
use shmbus_shm::slot::{ReadError as SlotError, max_loads};
use shmbus_shm::testing::{Counting, Dying, Hostile, Probed};
use shmbus_shm::{TreeWriter, heap};

use super::*;
use crate::writer::tree_area;
use crate::{Age, Header, Mirror, MirrorFault, TableError, TableFlags, TableOptions, Value};

type Shown<F, T> = Mirror<F, T, Vec<u64>>;

fn header(layout: TableLayout) -> Header {
    Header {
        layout,
        type_id: TYPE_ID,
        epoch: Epoch::FIRST,
    }
}

fn mirror<F: Window, T: Window>(source: &F, target: &T, layout: TableLayout) -> Shown<F, T> {
    let storage = || vec![0; layout.slots() as usize];
    let storage = [storage(), storage(), storage()];
    Mirror::create(source.clone(), target.clone(), header(layout), storage).unwrap()
}

/// Passes everything on, so many slots at a time, and returns how many there were.
fn settle<F: Window, T: Window>(mirror: &mut Shown<F, T>, budget: u32) -> u32 {
    let mut published = 0;
    loop {
        let done = mirror.update(budget);
        assert!(done.published + done.kept <= budget);
        assert_eq!(done.fault, None);
        published += done.published;
        if !done.more && done.published == 0 {
            return published;
        }
    }
}

/// Reads from the target. A restart may be reported first.
fn read_shown<W: Window>(reader: &mut Reader<W>, slot: u32) -> Option<(Generation, u64)> {
    let outcome = match read(reader, slot) {
        Err(ReadError::Slot(SlotError::Restarted { from, to })) => {
            assert!(to > from);
            read(reader, slot)
        }
        outcome => outcome,
    };
    match outcome {
        Ok(shown) => Some(shown),
        Err(error) => {
            assert_eq!(error, ReadError::Slot(SlotError::NeverWritten));
            None
        }
    }
}

const SLOTS: u32 = 40;

#[derive(Clone, Debug)]
enum Step {
    Publish { slot: u32, times: u8 },
    Update { budget: NonZeroU32 },
    RestartInPlace,
    RestartInNewMemory,
    SetUpAnew,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        12 => (0..SLOTS, 1..11u8).prop_map(|(slot, times)| Step::Publish { slot, times }),
        6 => (1..30u32).prop_map(|budget| Step::Update { budget: NonZeroU32::new(budget).unwrap() }),
        1 => Just(Step::RestartInPlace),
        1 => Just(Step::RestartInNewMemory),
        1 => Just(Step::SetUpAnew),
    ];
    prop::collection::vec(step, 1..if cfg!(miri) { 20 } else { 150 })
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: if cfg!(miri) { 2 } else { 256 },
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    /// The reader of the target, once everything is passed on, finds what the source holds; and before that, in each
    /// slot, what the source holds or what the target held.
    #[test]
    fn a_mirror_agrees_with_its_model(
        slot_bytes in prop::sample::select(SIZE_CLASSES.to_vec()),
        copies in prop::sample::select(vec![2u32, 4, 8]),
        ages in any::<bool>(),
        steps in steps(),
    ) {
        let options = TableOptions::new().copies(copies);
        let options = if ages { options.ages(1) } else { options };
        let layout = TableLayout::with_options(SLOTS, slot_bytes, options).unwrap();
        let (mut window, mut writer, _) = table(layout);
        let target = heap(layout.bytes());
        let mut mirror = mirror(&window, &target, layout);
        let mut reader = reader(&target, layout);
        let mut source: Vec<Option<(u64, u64)>> = vec![None; SLOTS as usize];
        let mut shown = source.clone();
        let mut epoch = mirror.epoch();
        let mut number = 0;
        for step in steps {
            match step {
                Step::Publish { slot, times } => for _ in 0..times {
                    number += 1;
                    let generation = publish(&mut writer, slot, number);
                    source[slot as usize] = Some((generation.count(), number));
                    writer.beat();
                },
                Step::Update { budget } => {
                    let done = mirror.update(budget.get());
                    prop_assert!(done.published <= budget.get());
                    prop_assert_eq!((done.kept, done.fault), (0, None));
                    for slot in 0..SLOTS {
                        let found = read_shown(&mut reader, slot)
                            .map(|(generation, number)| (generation.count(), number));
                        let before = shown[slot as usize];
                        prop_assert!(found == before || found == source[slot as usize]);
                        shown[slot as usize] = found;
                    }
                }
                Step::RestartInPlace => {
                    let storage = vec![0; SLOTS as usize];
                    (writer, _) = TableWriter::resume_in_place(window.clone(), storage).unwrap();
                    for (slot, value) in source.iter_mut().enumerate() {
                        let generation = writer.generation(slot as u32);
                        *value = value.map(|(_, number)| (generation.unwrap().count(), number));
                    }
                }
                Step::RestartInNewMemory => {
                    let (storage, new) = (vec![0; SLOTS as usize], heap(layout.bytes()));
                    (writer, _) = TableWriter::resume(&window, new.clone(), storage).unwrap();
                    window = new;
                    mirror.renew(window.clone()).unwrap();
                    for value in &mut source {
                        *value = value.map(|(_, number)| (1, number));
                    }
                }
                Step::SetUpAnew => {
                    writer = super::writer(&window, layout);
                    mirror.renew(window.clone()).unwrap();
                    source.fill(None);
                }
            }
            prop_assert!(mirror.epoch() >= epoch);
            epoch = mirror.epoch();
        }
        settle(&mut mirror, 7);
        for slot in 0..SLOTS {
            let found = read_shown(&mut reader, slot);
            prop_assert_eq!(mirror.generation(slot), found.map(|(generation, _)| generation));
            let found = found.map(|(generation, number)| (generation.count(), number));
            let expected = source[slot as usize].or(shown[slot as usize]);
            prop_assert_eq!(found, expected);
            if ages && source[slot as usize].is_some() {
                prop_assert_eq!(reader.age(slot), super::reader(&window, layout).age(slot));
            }
        }
        prop_assert_eq!(reader.heartbeat(), super::reader(&window, layout).heartbeat());
    }
}

#[test]
fn what_is_idle_costs_two_loads_and_what_changed_its_own() {
    for slot_bytes in SIZE_CLASSES {
        let slots = if cfg!(miri) { 65 } else { 4_096 };
        let layout = TableLayout::new(slots, slot_bytes).unwrap();
        let (window, mut writer, _) = table(layout);
        let (counting, stored) = (Counting::default(), Counting::default());
        let target = Probed::new(heap(layout.bytes()), stored.clone());
        let source = Probed::new(window, counting.clone());
        let mut mirror = mirror(&source, &target, layout);
        publish(&mut writer, 7, 1);
        settle(&mut mirror, 10);

        let before = (counting.loads(), stored.stores());
        assert_eq!(mirror.update(u32::MAX), crate::Mirrored::default());
        let idle = (counting.loads() - before.0, stored.stores() - before.1);
        assert_eq!(idle, (2, 0));

        for slot in [7, 8, slots - 1] {
            publish(&mut writer, slot, 2);
        }
        let before = counting.loads();
        let done = mirror.update(u32::MAX);
        assert_eq!((done.published, done.more), (3, false));
        assert!(done.notify().is_needed());
        let rows = 16 * (1 + 2 * layout.tree().levels() as u64);
        let reads = 3 * (3 + layout.slot_words() as u64);
        assert!(counting.loads() - before <= 2 + rows + reads);
        assert_eq!((counting.stores(), stored.loads()), (0, 0));
    }
}

/// Whatever the source holds and however it changes: bounded work, and a target that any reader can read.
#[test]
fn a_lying_source_costs_a_bounded_update_and_leaves_a_whole_table() {
    let rounds = if cfg!(miri) { 5 } else { 3_000 };
    const BUDGET: u32 = 9;
    for slot_bytes in [8, 40] {
        let layout = TableLayout::with_options(70, slot_bytes, TableOptions::new().ages(1));
        let layout = layout.unwrap();
        let tree = layout.tree();
        let scan: usize = (0..=tree.levels()).map(|level| tree.nodes(level)).sum();
        // A read, or two where a restart is reported, and the age.
        let slot = 1 + 2 * max_loads(layout.slot_words()) as u64;
        for lies in [3, 60, 255] {
            let (window, mut writer, _) = table(layout);
            let hostile = Hostile::new(u64::from(lies), 0);
            let counting = Counting::default();
            let lying = Probed::new(Probed::new(window, hostile.clone()), counting.clone());
            let target = heap(layout.bytes());
            let mut mirror = mirror(&lying, &target, layout);
            let mut reader = reader(&target, layout);
            hostile.lie_in(lies);
            let (mut published, mut kept) = (0, 0);
            for round in 0..rounds {
                publish(&mut writer, round as u32 % 70, round);
                let before = counting.loads();
                let done = mirror.update(BUDGET);
                assert!(
                    counting.loads() - before <= 1 + 2 * scan as u64 + u64::from(BUDGET) * slot
                );
                assert!(done.published + done.kept <= BUDGET);
                assert_eq!(done.kept > 0, done.fault.is_some());
                published += done.published;
                kept += done.kept;
                for slot in 0..70 {
                    let mut value = vec![0; layout.slot_words()];
                    let outcome = reader.read(slot, &mut value);
                    let outcome = match outcome {
                        Err(ReadError::Slot(SlotError::Restarted { .. })) => {
                            reader.read(slot, &mut value)
                        }
                        outcome => outcome,
                    };
                    assert_eq!(outcome.ok(), mirror.generation(slot));
                }
            }
            // So few rounds as under Miri may be all lies.
            assert!(
                cfg!(miri) || published > 0 && kept > 0,
                "{published} and {kept}"
            );
        }
    }
}

/// The source's writer dies after each of its stores in turn: the target shows its last complete value, or the one
/// before; and goes on with the next writer.
#[test]
#[cfg_attr(miri, ignore = "many lives, each of the same accesses")]
fn a_dead_source_leaves_its_last_complete_values() {
    for layout in [
        TableLayout::new(2, 8).unwrap(),
        TableLayout::with_copies(2, 24, 2).unwrap(),
    ] {
        for stores in 0.. {
            let (window, mut writer, _) = table(layout);
            let target = heap(layout.bytes());
            let mut mirror = mirror(&window, &target, layout);
            let mut reader = reader(&target, layout);
            publish(&mut writer, 1, 1);
            settle(&mut mirror, 1);
            let dying = Dying::after(u64::MAX - 1);
            let storage = vec![0; 2];
            let probed = Probed::new(window.clone(), dying.clone());
            let (mut writer, _) = TableWriter::resume_in_place(probed, storage).unwrap();
            dying.dies_after(stores);
            let mut completed = 1;
            for number in 2..=6 {
                publish(&mut writer, 1, number);
                if dying.is_dead() {
                    break;
                }
                completed = number;
            }
            settle(&mut mirror, 1);
            let (_, number) = read_shown(&mut reader, 1).unwrap();
            assert!(number == completed || number == completed + 1);

            let storage = vec![0; 2];
            let (mut writer, _) = TableWriter::resume_in_place(window, storage).unwrap();
            settle(&mut mirror, 1);
            assert!(read_shown(&mut reader, 1).unwrap().1 >= number);
            publish(&mut writer, 1, 100);
            settle(&mut mirror, 1);
            assert_eq!(read_shown(&mut reader, 1).unwrap().1, 100);
            if !dying.is_dead() {
                break;
            }
        }
    }
}

/// The mirror dies after each of its stores in turn. Its reader keeps a whole value, whatever was passed over.
#[test]
#[cfg_attr(miri, ignore = "many lives, each of the same accesses")]
fn a_dead_mirror_leaves_whole_values() {
    for copies in [2, 4] {
        let layout = TableLayout::with_copies(1, 24, copies).unwrap();
        for lag in 1..10 {
            for stores in 0.. {
                let (window, mut writer, _) = table(layout);
                let target = heap(layout.bytes());
                let dying = Dying::after(u64::MAX - 1);
                let mut mirror =
                    mirror(&window, &Probed::new(target.clone(), dying.clone()), layout);
                let mut reader = reader(&target, layout);
                for number in 1..=3 {
                    publish(&mut writer, 0, number);
                    settle(&mut mirror, 1);
                    assert_eq!(read_shown(&mut reader, 0).unwrap().1, number);
                }
                for number in 4..4 + lag {
                    publish(&mut writer, 0, number);
                }
                dying.dies_after(stores);
                settle(&mut mirror, 1);
                let last = 3 + lag;
                let mut cold = super::reader(&target, layout);
                for reader in [&mut reader, &mut cold] {
                    let (generation, number) = read_shown(reader, 0).unwrap();
                    assert!(number == 3 || number == last);
                    assert!(generation.count() <= number);
                }
                if !dying.is_dead() {
                    assert_eq!(read_shown(&mut reader, 0).unwrap().0.count(), last);
                    break;
                }
            }
        }
    }
}

/// No honest writer enters an earlier epoch, nor counts anew in one.
#[test]
fn a_source_that_goes_back_is_another_life_of_the_target() {
    let layout = TableLayout::new(1, 8).unwrap();
    let (window, mut writer, _) = table(layout);
    let target = heap(layout.bytes());
    let mut mirror = mirror(&window, &target, layout);
    let mut reader = reader(&target, layout);
    for number in 1..=3 {
        publish(&mut writer, 0, number);
    }
    let (mut writer, _) = TableWriter::resume_in_place(window.clone(), vec![0]).unwrap();
    publish(&mut writer, 0, 4);
    settle(&mut mirror, 1);
    let before = read_shown(&mut reader, 0).unwrap().0;
    let back = TreeWriter::resume(&tree_area(&window, layout).unwrap(), layout.tree());
    back.unwrap().mark(0, 1 << 48 | 2);
    settle(&mut mirror, 1);
    let (generation, number) = read_shown(&mut reader, 0).unwrap();
    assert_eq!((generation.count(), number), (2, 4));
    assert!(generation > before);
}

/// What changes behind a scan that was carried over is found by the update that ends the scan.
#[test]
fn a_carried_over_update_looks_again() {
    let layout = TableLayout::new(40, 16).unwrap();
    let (window, mut writer, _) = table(layout);
    let mut mirror = mirror(&window, &heap(layout.bytes()), layout);
    for slot in [30, 31] {
        publish(&mut writer, slot, 1);
    }
    let done = mirror.update(1);
    assert_eq!((done.published, done.more), (1, true));
    publish(&mut writer, 2, 1);
    let done = mirror.update(9);
    assert_eq!((done.published, done.more), (2, false));
}

#[test]
fn a_value_is_as_old_as_it_is_in_the_source() {
    let layout = TableLayout::with_options(2, 16, TableOptions::new().ages(1_000)).unwrap();
    let (window, mut writer, _) = table(layout);
    let target = heap(layout.bytes());
    let mut mirror = mirror(&window, &target, layout);
    publish(&mut writer, 1, 1);
    for _ in 0..5 {
        writer.beat();
    }
    settle(&mut mirror, 1);
    writer.beat();
    let reader = reader(&target, layout);
    let age = |beats| {
        Ok(Age {
            beats,
            beat_ns: 1_000,
        })
    };
    assert_eq!(reader.age(1), age(5));
    settle(&mut mirror, 1);
    assert_eq!(reader.age(1), age(6));
}

#[test]
fn tables_that_are_not_served_or_not_the_one_meant_are_refused() {
    let layout = TableLayout::new(4, 16).unwrap();
    let (window, ..) = table(layout);
    let create = |source: &Mapped, layout: TableLayout| {
        let target = heap(layout.bytes());
        let storage = [vec![0; 4], vec![0; 4], vec![0; 4]];
        Mirror::create(source.clone(), target, header(layout), storage).map(|_| ())
    };
    assert_eq!(create(&window, layout), Ok(()));
    let other = TableLayout::new(4, 24).unwrap();
    let geometry = TableError::Geometry {
        expected: other,
        found: layout,
    };
    assert_eq!(create(&window, other), Err(geometry));
    let nothing = heap(layout.bytes());
    assert_eq!(
        create(&nothing, layout),
        Err(TableError::Magic { found: 0 })
    );
    for options in [
        TableOptions::new().transactions(),
        TableOptions::new().pinned(),
    ] {
        let layout = TableLayout::with_options(4, 16, options).unwrap();
        let window = heap(layout.bytes());
        header(layout).announce(&window, 1).unwrap();
        let kind = TableError::Kind {
            expected: TableFlags::NONE,
            found: layout.flags(),
        };
        assert_eq!(create(&window, layout), Err(kind));
    }
}

/// A value of which half of the words are padding, and odd numbers are nonsense.
struct Even(u64);

impl Value for Even {
    const TYPE_ID: u32 = TYPE_ID;
    const WORDS: usize = 2;

    fn encode(&self, words: &mut [u64]) {
        words[0] = self.0;
    }

    fn decode(words: &[u64]) -> Result<Self, crate::InvalidValue> {
        if words[0] % 2 == 1 {
            return Err(crate::InvalidValue {
                word: 0,
                found: words[0],
                expected: "even",
            });
        }
        Ok(Self(words[0]))
    }
}

#[test]
fn of_a_type_only_its_values_are_shown() {
    let layout = TableLayout::new(1, 16).unwrap();
    let (window, mut writer, _) = table(layout);
    let target = heap(layout.bytes());
    let mut mirror = mirror(&window, &target, layout)
        .of_values::<Even>()
        .unwrap();
    let mut reader = reader(&target, layout);
    let mut value = [0; 2];
    let _ = writer.publish(0, &[2, 0xbad]).unwrap();
    assert_eq!(mirror.update(1).published, 1);
    reader.read(0, &mut value).unwrap();
    assert_eq!(value, [2, 0]);

    let _ = writer.publish(0, &[3, 0]).unwrap();
    let done = mirror.update(1);
    assert_eq!((done.published, done.kept), (0, 1));
    assert!(matches!(
        done.fault,
        Some(MirrorFault::Invalid { slot: 0, .. })
    ));
    reader.read(0, &mut value).unwrap();
    assert_eq!(value, [2, 0]);
}
