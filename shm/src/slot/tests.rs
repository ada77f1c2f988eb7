use core::sync::atomic::Ordering;

use proptest::prelude::*;

use super::*;
use crate::field::{Entries, Field, Records};
use crate::testing::{Counting, Dying, Hostile, Probe, Probed};
use crate::window::Window;
use crate::{Mapped, heap};

const EPOCH: Epoch = Epoch::FIRST;

/// A slot on a window: the head at 0, the copies from the second line on.
struct Slot<W> {
    window: W,
    head: Field<u64, W>,
    copies: usize,
    words: usize,
}

impl<W: Window> Slot<W> {
    fn new(window: W, copies: usize, words: usize) -> Self {
        let head = Field::new(&window, 0).unwrap();
        Self {
            window,
            head,
            copies,
            words,
        }
    }

    fn records(&self) -> Records<'_, W> {
        Records::new(
            &self.window,
            64,
            self.copies,
            copy_stride(self.words),
            self.words,
        )
        .unwrap()
    }

    fn writer(&self) -> SlotWriter<'_, W, &Field<u64, W>> {
        SlotWriter::new(self.records(), &self.head)
    }

    fn reader(&self) -> SlotReader<'_, W, &Field<u64, W>> {
        SlotReader::new(self.records(), &self.head)
    }
}

fn slot(copies: usize, words: usize) -> Slot<Mapped> {
    Slot::new(heap(64 + copies * copy_stride(words)), copies, words)
}

/// A value whose words show which write they are from.
fn stamped(words: usize, number: u64) -> Vec<u64> {
    (0..words as u64).map(|word| number << 16 | word).collect()
}

#[test]
fn a_poll_costs_a_load_and_tells_of_each_new_value() {
    for words in [7, 512] {
        let loads = Counting::default();
        let slot = slot(4, words);
        let probed = Slot::new(Probed::new(slot.window.clone(), loads.clone()), 4, words);
        let (mut written, mut cursor) = (WriteCursor::new(EPOCH), ReadCursor::default());
        let mut value = vec![0; words];
        assert!(!probed.reader().is_unchanged(cursor), "never read");
        // As many as there are copies, so that a poll sees a copy written anew as well.
        for lag in [1, 1, 3, 4, 5] {
            for number in 0..lag {
                let value = stamped(words, number);
                slot.writer().publish(&mut written, &value).unwrap();
            }
            assert!(!probed.reader().is_unchanged(cursor));
            probed.reader().read(&mut cursor, &mut value).unwrap();
            let before = loads.loads();
            assert!(probed.reader().is_unchanged(cursor));
            assert_eq!(loads.loads() - before, 1);
        }
    }
}

#[test]
fn a_read_returns_the_newest_value_and_its_generation() {
    let slot = slot(4, 7);
    let (mut written, mut cursor) = (WriteCursor::new(EPOCH), ReadCursor::default());
    let mut value = [0; 7];
    assert_eq!(
        slot.reader().read(&mut cursor, &mut value),
        Err(ReadError::NeverWritten)
    );
    // Lags of none, within the walk, beyond the walk, and beyond the number of copies.
    for (round, lag) in [1u64, 0, 1, 2, 3, 4, 5, 9, 0].into_iter().enumerate() {
        for _ in 0..lag {
            let number = written.generation().map_or(0, |last| last.count()) + 1;
            slot.writer()
                .publish(&mut written, &stamped(7, number))
                .unwrap();
        }
        let generation = slot.reader().read(&mut cursor, &mut value).unwrap();
        assert_eq!(Some(generation), written.generation(), "round {round}");
        assert_eq!(value.to_vec(), stamped(7, generation.count()));
    }
}

#[test]
fn a_value_fills_its_slot() {
    let slot = slot(2, 3);
    let mut written = WriteCursor::new(EPOCH);
    assert_eq!(
        slot.writer().publish(&mut written, &[1, 2]),
        Err(PublishError::WrongLength {
            expected: 3,
            found: 2
        })
    );
    let mut last = WriteCursor::after(
        Generation::new(EPOCH, Generation::MAX_COUNT - 1).unwrap(),
        EPOCH,
    );
    slot.writer().publish(&mut last, &[1, 2, 3]).unwrap();
    assert_eq!(
        slot.writer().publish(&mut last, &[1, 2, 3]),
        Err(PublishError::Exhausted)
    );
    let (mut cursor, mut prefix) = (ReadCursor::default(), [0; 2]);
    let generation = slot.reader().read(&mut cursor, &mut prefix).unwrap();
    assert_eq!(
        (generation.count(), prefix),
        (Generation::MAX_COUNT, [1, 2])
    );
    // At the last generation there is no following copy to look at.
    assert_eq!(slot.reader().read(&mut cursor, &mut prefix), Ok(generation));
}

/// From each generation to each later one, readers of every age notice, and only later generations are taken.
#[test]
fn generations_can_be_passed_over() {
    for copies in [2, 4, 8] {
        for skip in 1..=2 * copies as u64 + 1 {
            let slot = slot(copies, 1);
            let mut written = WriteCursor::new(EPOCH);
            let mut readers = vec![];
            let mut count = 0;
            for step in [1, 1, skip, 1, skip, skip] {
                count += step;
                let generation = Generation::new(EPOCH, count).unwrap();
                slot.writer()
                    .publish_as(&mut written, generation, &[count])
                    .unwrap();
                readers.push(ReadCursor::default());
                let mut value = [0];
                for reader in &readers {
                    let mut reader = *reader;
                    assert_eq!(slot.reader().read(&mut reader, &mut value), Ok(generation));
                    assert_eq!(value, [count]);
                }
                let newest = readers.last_mut().unwrap();
                slot.reader().read(newest, &mut value).unwrap();
                assert!(slot.reader().still_holds(*newest));
                let again = slot.writer().publish_as(&mut written, generation, &[0]);
                assert!(matches!(again, Err(PublishError::NotLater { .. })));
            }
        }
    }
    let slot = slot(4, 1);
    let last = Generation::new(EPOCH, Generation::MAX_COUNT).unwrap();
    let mut written = WriteCursor::new(EPOCH);
    assert_eq!(
        slot.writer().publish_as(&mut written, last, &[0]),
        Err(PublishError::Exhausted)
    );
}

#[test]
fn a_small_slot_is_two_words() {
    let window = heap(128);
    let values = Entries::new(&window, 64, 4).unwrap();
    let heads = Entries::new(&window, 0, 4).unwrap();
    let mut cursor = ReadCursor::default();
    let mut written = WriteCursor::new(EPOCH);
    let read = |cursor: &mut ReadCursor| {
        SmallSlotReader::new(&values, 3, HeadAt::new(&heads, 3)).read(cursor)
    };
    assert_eq!(read(&mut cursor), Err(ReadError::NeverWritten));
    for value in [9, 0, 7] {
        let generation = SmallSlotWriter::new(&values, 3, HeadAt::new(&heads, 3))
            .publish(&mut written, value)
            .unwrap();
        assert_eq!(read(&mut cursor), Ok((value, generation)));
    }
    heads.store(3, WriteCursor::new(EPOCH).word() + 1, Ordering::Relaxed);
    assert!(matches!(
        read(&mut cursor),
        Err(ReadError::Backwards { .. })
    ));
}

#[test]
fn lies_have_names() {
    let slot = slot(2, 1);
    let mut written = WriteCursor::new(EPOCH);
    let mut value = [0];
    for number in 1..=3 {
        slot.writer().publish(&mut written, &[number]).unwrap();
    }
    let mut cursor = ReadCursor::default();
    let third = slot.reader().read(&mut cursor, &mut value).unwrap();
    let outcome = |head: u64, mut cursor: ReadCursor| {
        slot.head.store(head, Ordering::Relaxed);
        slot.reader().read(&mut cursor, &mut [0])
    };
    let cold = ReadCursor::default();
    assert_eq!(outcome(3, cold), Err(ReadError::NoGeneration { word: 3 }));
    let fifth = Generation::new(EPOCH, 5).unwrap();
    assert_eq!(
        outcome(fifth.word(), cold),
        Err(ReadError::Inconsistent {
            head: fifth,
            sequence: 2 * third.word()
        })
    );
    // A head stuck below what the copies hold: each try finds the copy gone.
    let first = Generation::new(EPOCH, 1).unwrap();
    assert_eq!(outcome(first.word(), cold), Err(ReadError::Lapped));
    // A reader that has seen more than the head says, and whose copy is gone.
    slot.records()
        .store_header(third.word(), u64::MAX, Ordering::Relaxed);
    assert_eq!(
        outcome(first.word(), cursor),
        Err(ReadError::Backwards {
            last: third,
            found: first
        })
    );
}

#[test]
fn a_restart_is_reported_once() {
    let slot = slot(2, 1);
    let mut value = [0];
    let mut cursor = ReadCursor::default();
    let mut written = WriteCursor::new(EPOCH);
    let last = slot.writer().publish(&mut written, &[1]).unwrap();
    slot.reader().read(&mut cursor, &mut value).unwrap();

    let second = EPOCH.next().unwrap();
    let mut written = WriteCursor::after(last, second);
    let generation = slot.writer().publish(&mut written, &[2]).unwrap();
    assert_eq!((generation.epoch(), generation.count()), (second, 2));
    assert_eq!(
        slot.reader().read(&mut cursor, &mut value),
        Err(ReadError::Restarted {
            from: EPOCH,
            to: second
        })
    );
    assert_eq!(slot.reader().read(&mut cursor, &mut value), Ok(generation));
    assert_eq!(value, [2]);
}

/// The writer dies after each of its stores in turn, in each position among the copies. A reader that has kept up and
/// one that starts afterwards keep a complete value; a restarted writer goes on, and dies again.
#[test]
fn a_dead_writer_leaves_a_complete_value() {
    const WORDS: usize = 3;
    for copies in if cfg!(miri) { 2..3 } else { 2..5 }.step_by(2) {
        for before in 0..5 {
            for stores in 0..WORDS as u64 + 3 {
                dies_and_restarts(copies, before, stores);
            }
        }
    }

    fn dies_and_restarts(copies: usize, before: u64, stores: u64) {
        let slot = slot(copies, WORDS);
        let mut written = WriteCursor::new(EPOCH);
        let (mut follower, mut value) = (ReadCursor::default(), vec![0; WORDS]);
        for number in 1..=before {
            slot.writer()
                .publish(&mut written, &stamped(WORDS, number))
                .unwrap();
            slot.reader().read(&mut follower, &mut value).unwrap();
        }
        let dying = Dying::after(stores);
        let lost = Slot::new(
            Probed::new(slot.window.clone(), dying.clone()),
            copies,
            WORDS,
        );
        lost.writer()
            .publish(&mut written, &stamped(WORDS, before + 1))
            .unwrap();
        assert!(dying.is_dead());

        // Complete after the sequence; cold readers find it after the head only.
        let completed = stores >= WORDS as u64 + 2;
        for (cursor, visible) in [
            (&mut follower, before + u64::from(completed && before > 0)),
            (&mut ReadCursor::default(), before),
        ] {
            match slot.reader().read(cursor, &mut value) {
                Ok(generation) => {
                    assert_eq!(generation.count(), visible);
                    assert_eq!(value, stamped(WORDS, visible));
                }
                Err(error) => {
                    assert_eq!((error, before), (ReadError::NeverWritten, 0));
                }
            }
        }

        // The next life.
        let second = EPOCH.next().unwrap();
        let mut written = match slot.reader().recover(EPOCH, &mut value) {
            Ok(last) => {
                assert_eq!(last.count(), before + u64::from(completed));
                slot.writer().finish(last);
                WriteCursor::after(last, second)
            }
            Err(error) => {
                assert_eq!((error, before), (ReadError::NeverWritten, 0));
                WriteCursor::new(second)
            }
        };
        let kept = value.clone();
        for stores in 0..WORDS as u64 + 3 {
            let lost = Slot::new(
                Probed::new(slot.window.clone(), Dying::after(stores)),
                copies,
                WORDS,
            );
            lost.writer().publish(&mut { written }, &kept).unwrap();
            if before > 0 {
                let seen = slot.reader().read(&mut { follower }, &mut value);
                assert!(seen.is_ok(), "{seen:?}");
                assert_eq!(value, kept);
            }
        }
        let generation = slot.writer().publish(&mut written, &kept).unwrap();
        if before > 0 {
            assert!(matches!(
                slot.reader().read(&mut follower, &mut value),
                Err(ReadError::Restarted { .. })
            ));
        }
        assert_eq!(
            slot.reader().read(&mut follower, &mut value),
            Ok(generation)
        );
        assert_eq!(value, kept);
    }
}

/// However much the memory lies, a call ends with a value or a typed outcome within [`max_loads`].
#[test]
fn a_hostile_writer_costs_a_bounded_number_of_loads() {
    const WORDS: usize = 5;
    let rounds = if cfg!(miri) { 60 } else { 100_000 };
    let (mut values, mut errors, mut most) = (0, 0, 0);
    for lies in [16, 64, 200] {
        let honest = slot(4, WORDS);
        let counting = Counting::default();
        let hostile = Hostile::new(u64::from(lies), lies);
        let window = Probed::new(
            Probed::new(honest.window.clone(), hostile),
            counting.clone(),
        );
        let lying = Slot::new(window, 4, WORDS);
        let (mut written, mut cursor) = (WriteCursor::new(EPOCH), ReadCursor::default());
        for round in 0..rounds {
            honest
                .writer()
                .publish(&mut written, &stamped(WORDS, round))
                .unwrap();
            let before = counting.loads();
            match lying.reader().read(&mut cursor, &mut [0; WORDS]) {
                Ok(_) => values += 1,
                Err(_) => errors += 1,
            }
            let loads = counting.loads() - before;
            assert!(loads <= max_loads(WORDS) as u64, "{loads} loads");
            most = most.max(loads);
            // A reader is not stuck for ever behind one lie.
            if round % 64 == 0 {
                cursor = ReadCursor::default();
            }
        }
    }
    assert!(values > 0 && errors > 0, "{values} values, {errors} errors");
    eprintln!(
        "{values} values, {errors} errors, at most {most} loads of {}",
        max_loads(WORDS)
    );
}

/// After so many loads, which it leaves alone, every sequence that a reader looks at has moved on.
#[derive(Clone)]
struct AlwaysOverwritten {
    loads: Counting,
    alone: u64,
    stride: usize,
}

impl Probe for AlwaysOverwritten {
    fn load(&self, offset: usize, bytes: usize, value: u64) -> u64 {
        let is_sequence = offset >= 64 && (offset - 64).is_multiple_of(self.stride);
        let is_alone = self.loads.loads() < self.alone;
        self.loads.load(offset, bytes, value);
        if is_sequence && !is_alone {
            u64::MAX
        } else {
            value
        }
    }
}

#[test]
fn the_bound_on_loads_is_exact() {
    const WORDS: usize = 3;
    let mut most = 0;
    for lag in 0..=WALK_STEPS as u64 + 2 {
        let honest = slot(8, WORDS);
        let (mut written, mut cursor) = (WriteCursor::new(EPOCH), ReadCursor::default());
        for number in 0..=lag {
            let value = stamped(WORDS, number);
            honest.writer().publish(&mut written, &value).unwrap();
            if number == 0 {
                honest.reader().read(&mut cursor, &mut [0; WORDS]).unwrap();
            }
        }
        // Overtaken from some step of the walk on, or behind it.
        for alone in 0..WALK_STEPS as u64 + 3 {
            let probe = AlwaysOverwritten {
                loads: Counting::default(),
                alone,
                stride: copy_stride(WORDS),
            };
            let window = Probed::new(honest.window.clone(), probe.clone());
            let overwritten = Slot::new(window, 8, WORDS);
            let _ = overwritten.reader().read(&mut { cursor }, &mut [0; WORDS]);
            most = most.max(probe.loads.loads());
        }
    }
    assert_eq!(most, max_loads(WORDS) as u64);
}

#[test]
fn nothing_is_recovered_of_a_later_epoch() {
    let slot = slot(2, 1);
    let second = EPOCH.next().unwrap();
    let mut written = WriteCursor::new(second);
    let last = slot.writer().publish(&mut written, &[7]).unwrap();
    let mut value = [0];
    assert_eq!(
        slot.reader().recover(EPOCH, &mut value),
        Err(ReadError::NoGeneration { word: last.word() })
    );
    for epoch in [Some(second), second.next()] {
        assert_eq!(slot.reader().recover(epoch.unwrap(), &mut value), Ok(last));
    }
}

#[test]
fn recovery_looks_at_its_contents_as_hostile() {
    let (mut recovered, mut refused) = (0, 0);
    for seed in 0..if cfg!(miri) { 20 } else { 20_000 } {
        let slot = slot(4, 2);
        let mut written = WriteCursor::new(EPOCH);
        for number in 1..=seed % 7 {
            slot.writer()
                .publish(&mut written, &[number, number])
                .unwrap();
        }
        let counting = Counting::default();
        let window = Probed::new(slot.window.clone(), Hostile::new(seed, 60));
        let lying = Slot::new(Probed::new(window, counting.clone()), 4, 2);
        match lying.reader().recover(EPOCH, &mut [0; 2]) {
            Ok(generation) => {
                assert_eq!(generation.epoch(), EPOCH);
                recovered += 1;
            }
            Err(_) => refused += 1,
        }
        assert!(counting.loads() <= 3 + 2 * 3);
    }
    assert!(recovered > 0 && refused > 0);
}

#[derive(Clone, Debug)]
enum Step {
    Publish(u8),
    Read(u8),
    Restart,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        4 => (1..12u8).prop_map(Step::Publish),
        4 => (0..3u8).prop_map(Step::Read),
        1 => Just(Step::Restart),
    ];
    prop::collection::vec(step, 1..60)
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: if cfg!(miri) { 2 } else { 256 },
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    /// Against the model of a slot: the last value, and for each reader the epoch it has been told of.
    #[test]
    fn behaves_as_a_single_value(
        copies in prop::sample::select(vec![2usize, 4, 8]),
        words in 1..20usize,
        steps in steps(),
    ) {
        let slot = slot(copies, words);
        let mut epoch = EPOCH;
        let mut written = WriteCursor::new(epoch);
        let mut model: Option<(Generation, u64)> = None;
        let mut readers = [(ReadCursor::default(), None::<Epoch>); 3];
        let mut number = 0;
        for step in steps {
            match step {
                Step::Publish(times) => for _ in 0..times {
                    number += 1;
                    let generation = slot.writer().publish(&mut written, &stamped(words, number)).unwrap();
                    prop_assert!(model.is_none_or(|(last, _)| generation > last));
                    model = Some((generation, number));
                },
                Step::Restart => {
                    let mut value = vec![0; words];
                    let last = slot.reader().recover(epoch, &mut value).ok();
                    prop_assert_eq!(last, model.map(|(generation, _)| generation));
                    epoch = epoch.next().unwrap();
                    written = last.map_or(WriteCursor::new(epoch), |last| WriteCursor::after(last, epoch));
                }
                Step::Read(reader) => {
                    let (cursor, known) = &mut readers[usize::from(reader)];
                    let mut value = vec![0; words];
                    let outcome = slot.reader().read(cursor, &mut value);
                    match model {
                        None => prop_assert_eq!(outcome, Err(ReadError::NeverWritten)),
                        Some((generation, _)) if known.is_some_and(|known| known != generation.epoch()) => {
                            prop_assert_eq!(
                                outcome,
                                Err(ReadError::Restarted { from: known.unwrap(), to: generation.epoch() })
                            );
                            *known = Some(generation.epoch());
                        }
                        Some((generation, number)) => {
                            prop_assert_eq!(outcome, Ok(generation));
                            prop_assert_eq!(value, stamped(words, number));
                            *known = Some(generation.epoch());
                        }
                    }
                }
            }
        }
    }
}
