//! A table against its model: for each slot the last value, for each reader what it has been told.

use proptest::prelude::*;
use shmbus_shm::heap;
use shmbus_shm::slot::ReadError as SlotError;

use super::*;

const SLOTS: u32 = 5;
const READERS: usize = 2;

#[derive(Clone, Debug)]
enum Step {
    Publish { slot: u32, times: u8 },
    Read { reader: usize, slot: u32 },
    Scan { reader: usize },
    RestartInPlace,
    RestartInNewMemory,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        6 => (0..SLOTS, 1..7u8).prop_map(|(slot, times)| Step::Publish { slot, times }),
        6 => (0..READERS, 0..SLOTS).prop_map(|(reader, slot)| Step::Read { reader, slot }),
        3 => (0..READERS).prop_map(|reader| Step::Scan { reader }),
        1 => Just(Step::RestartInPlace),
        1 => Just(Step::RestartInNewMemory),
    ];
    prop::collection::vec(step, 1..if cfg!(miri) { 30 } else { 120 })
}

/// What one reader knows.
struct Known {
    reader: Reader<Mapped>,
    /// For each slot, the epoch that it has been told of.
    epochs: [Option<Epoch>; SLOTS as usize],
    /// For each slot, what the last scan reported.
    reported: [Option<Generation>; SLOTS as usize],
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: if cfg!(miri) { 2 } else { 256 },
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn a_table_agrees_with_its_model(
        slot_bytes in prop::sample::select(SIZE_CLASSES.to_vec()),
        copies in prop::sample::select(vec![2u32, 4, 8]),
        steps in steps(),
    ) {
        let layout = TableLayout::with_copies(SLOTS, slot_bytes, copies).unwrap();
        let (mut window, mut writer, _) = table(layout);
        let mut known: [Known; READERS] = core::array::from_fn(|_| Known {
            reader: reader(&window, layout),
            epochs: [None; SLOTS as usize],
            reported: [None; SLOTS as usize],
        });
        let mut model: [Option<(Generation, u64)>; SLOTS as usize] = [None; SLOTS as usize];
        let mut number = 0;
        for step in steps {
            match step {
                Step::Publish { slot, times } => for _ in 0..times {
                    number += 1;
                    let generation = publish(&mut writer, slot, number);
                    let last = &mut model[slot as usize];
                    prop_assert!(last.is_none_or(|(last, _)| generation > last));
                    *last = Some((generation, number));
                },
                Step::Read { reader, slot } => {
                    let known = &mut known[reader];
                    let outcome = read(&mut known.reader, slot);
                    let told = &mut known.epochs[slot as usize];
                    let expected = match model[slot as usize] {
                        None => Err(ReadError::Slot(SlotError::NeverWritten)),
                        Some((generation, _)) if told.is_some_and(|told| told != generation.epoch()) => {
                            let from = told.replace(generation.epoch()).unwrap();
                            Err(ReadError::Slot(SlotError::Restarted { from, to: generation.epoch() }))
                        }
                        Some(value) => {
                            *told = Some(value.0.epoch());
                            Ok(value)
                        }
                    };
                    prop_assert_eq!(outcome, expected);
                }
                Step::Scan { reader } => {
                    let known = &mut known[reader];
                    let expected: Vec<_> = (0..SLOTS)
                        .filter_map(|slot| Some((slot, model[slot as usize]?.0)))
                        .filter(|(slot, generation)| known.reported[*slot as usize] != Some(*generation))
                        .collect();
                    for (slot, generation) in &expected {
                        known.reported[*slot as usize] = Some(*generation);
                    }
                    prop_assert_eq!(changes(&mut known.reader), expected);
                }
                Step::RestartInPlace | Step::RestartInNewMemory => {
                    let storage = vec![0; SLOTS as usize];
                    let recovered;
                    if matches!(step, Step::RestartInPlace) {
                        (writer, recovered) = TableWriter::resume_in_place(window.clone(), storage).unwrap();
                    } else {
                        let new = heap(layout.bytes());
                        (writer, recovered) = TableWriter::resume(&window, new.clone(), storage).unwrap();
                        window = new;
                        for known in &mut known {
                            prop_assert_eq!(known.reader.rebind(window.clone()).unwrap(), writer.epoch());
                        }
                    }
                    prop_assert_eq!(recovered.values as usize, model.iter().flatten().count());
                    prop_assert_eq!(recovered.lost, 0);
                    for (slot, last) in model.iter_mut().enumerate() {
                        if let Some((generation, _)) = last {
                            *generation = writer.generation(slot as u32).unwrap();
                        }
                    }
                }
            }
        }
    }
}
