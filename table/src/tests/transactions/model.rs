//! Transactions against a model: a list of what each committed, and where each reader is.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

const SLOTS: u32 = 4;
const READERS: usize = 2;

#[derive(Clone, Debug)]
enum Step {
    /// Stages these slots in this order, and commits the transaction or drops it.
    Transaction {
        slots: Vec<u32>,
        is_committed: bool,
    },
    Publish {
        slot: u32,
    },
    Look {
        reader: usize,
        slots: Vec<u32>,
    },
    Read {
        reader: usize,
        slot: u32,
    },
    Scan {
        reader: usize,
    },
    Restart,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let slots = || prop::collection::vec(0..SLOTS, 0..6);
    let step = prop_oneof![
        8 => (slots(), prop::bool::weighted(0.7))
            .prop_map(|(slots, is_committed)| Step::Transaction { slots, is_committed }),
        4 => (0..SLOTS).prop_map(|slot| Step::Publish { slot }),
        6 => (0..READERS, slots()).prop_map(|(reader, slots)| Step::Look { reader, slots }),
        2 => (0..READERS, 0..SLOTS).prop_map(|(reader, slot)| Step::Read { reader, slot }),
        2 => (0..READERS).prop_map(|reader| Step::Scan { reader }),
        1 => Just(Step::Restart),
    ];
    prop::collection::vec(step, 1..if cfg!(miri) { 12 } else { 80 })
}

/// What there must be: each slot's committed value, and the epoch.
#[derive(Default)]
struct Model {
    values: BTreeMap<u32, u64>,
    /// Whether anything was committed in this epoch, or taken over.
    has_history: bool,
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: if cfg!(miri) { 2 } else { 256 },
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn transactions_agree_with_their_model(
        slot_bytes in prop::sample::select(vec![8u32, 16, 64, 600]),
        copies in prop::sample::select(vec![2u32, 4, 8]),
        steps in steps(),
    ) {
        let layout = layout(SLOTS, slot_bytes, copies);
        let (mut window, mut writer, _) = table(layout);
        let mut readers: Vec<_> = (0..READERS).map(|_| reader(&window, layout)).collect();
        // Of each reader, the epoch of the last snapshot, and what the next scan must report.
        let mut known = [None; READERS];
        let mut unseen = vec![BTreeMap::<u32, ()>::new(); READERS];
        let mut model = Model::default();
        let mut number = 0;
        for step in steps {
            let expected = |slots: &[u32], model: &Model| -> Vec<u64> {
                let value = |slot| model.values.get(slot).copied().unwrap_or(0);
                slots.iter().map(value).collect()
            };
            match step {
                Step::Transaction { slots, is_committed } => {
                    let mut transaction = writer.begin();
                    let mut staged = BTreeMap::new();
                    for slot in slots {
                        number += 1;
                        transaction.stage(slot, &stamped(layout, number)).unwrap();
                        staged.insert(slot, number);
                    }
                    prop_assert_eq!(transaction.len(), staged.len());
                    if is_committed {
                        let (committed, notify) = transaction.commit().unwrap();
                        prop_assert_eq!(notify.is_needed(), !staged.is_empty());
                        prop_assert_eq!(Some(committed), writer.committed());
                        for unseen in &mut unseen {
                            unseen.extend(staged.keys().map(|slot| (*slot, ())));
                        }
                        model.values.extend(staged);
                        model.has_history = true;
                    }
                }
                Step::Publish { slot } => {
                    number += 1;
                    let (generation, _) = writer.publish(slot, &stamped(layout, number)).unwrap();
                    prop_assert_eq!(writer.generation(slot), Some(generation));
                    unseen.iter_mut().for_each(|unseen| { unseen.insert(slot, ()); });
                    model.values.insert(slot, number);
                    model.has_history = true;
                }
                Step::Look { reader, slots } => {
                    let found = look(&mut readers[reader], &slots);
                    match known[reader] {
                        Some(epoch) if model.has_history && epoch != writer.epoch() => {
                            prop_assert_eq!(found, Err(SnapshotError::Restarted { from: epoch, to: writer.epoch() }));
                            known[reader] = Some(writer.epoch());
                        }
                        _ => {
                            prop_assert_eq!(found, Ok(expected(&slots, &model)));
                            if model.has_history {
                                known[reader] = Some(writer.epoch());
                                prop_assert_eq!(readers[reader].committed(), writer.committed());
                            }
                        }
                    }
                }
                Step::Read { reader, slot } => {
                    let mut value = vec![0; layout.slot_words()];
                    let found = readers[reader].read(slot, &mut value);
                    match known[reader] {
                        Some(epoch) if model.has_history && epoch != writer.epoch() => {
                            prop_assert_eq!(found, Err(SnapshotError::Restarted { from: epoch, to: writer.epoch() }));
                        }
                        _ => match model.values.get(&slot) {
                            None => prop_assert_eq!(found, Err(SnapshotError::NeverWritten)),
                            Some(number) => {
                                prop_assert_eq!(found.ok(), writer.generation(slot));
                                prop_assert_eq!(value, stamped(layout, *number));
                            }
                        }
                    }
                    if model.has_history {
                        known[reader] = Some(writer.epoch());
                    }
                }
                Step::Scan { reader } => {
                    let mut found = BTreeMap::new();
                    readers[reader].changed(|slot, _| { found.insert(slot, ()); });
                    prop_assert_eq!(&found, &unseen[reader]);
                    unseen[reader].clear();
                }
                Step::Restart => {
                    let new = heap(layout.bytes());
                    writer = resume(&window, &new, layout);
                    window = new;
                    for (reader, unseen) in readers.iter_mut().zip(&mut unseen) {
                        prop_assert_eq!(reader.rebind(window.clone()).unwrap(), writer.epoch());
                        *unseen = model.values.keys().map(|slot| (*slot, ())).collect();
                    }
                    model.has_history = !model.values.is_empty();
                }
            }
        }
    }
}
