use core::num::NonZeroUsize;
use core::sync::atomic::Ordering::Relaxed;

use super::*;
use crate::field::{Entries, Field, Records, Rows};
use crate::slot::{Epoch, Generation, ReadCursor, ReadError, TRIES, WriteCursor, copy_stride};
use crate::testing::{Counting, Dying, Hostile, Probed};
use crate::window::Window;
use crate::{Mapped, heap};

/// The head on the first line, the place on the second, then the copies.
struct Slot<W> {
    window: W,
    head: Field<u64, W>,
    lines: Rows<u64, W, 8>,
    copies: usize,
    words: usize,
}

impl<W: Window> Slot<W> {
    fn new(window: W, copies: usize, words: usize) -> Self {
        Self {
            head: Field::new(&window, 0).unwrap(),
            lines: Rows::new(&window, 64, NonZeroUsize::MIN).unwrap(),
            window,
            copies,
            words,
        }
    }

    fn records(&self) -> Records<'_, W> {
        let stride = copy_stride(self.words);
        Records::new(&self.window, 128, self.copies, stride, self.words).unwrap()
    }

    fn reader(&self) -> PinnableReader<'_, W> {
        PinnableReader::new(self.records(), PlaceAt::new(&self.lines, 0))
    }

    fn probed<P: crate::testing::Probe>(&self, probe: P) -> Slot<Probed<W, P>> {
        Slot::new(
            Probed::new(self.window.clone(), probe),
            self.copies,
            self.words,
        )
    }

    fn publish<A: Window>(&self, writer: &mut Writer, heard: &[Entries<u64, A>]) -> Generation {
        let number = (writer.cursor.word() & 0xffff_ffff) + 1;
        let value = vec![number; self.words];
        let announced = heard.iter().map(|words| AnnouncementAt::new(words, 0));
        PinnableWriter::new(self.records(), PlaceAt::new(&self.lines, 0), &self.head)
            .publish(&mut writer.cursor, &mut writer.order, &value, announced)
            .unwrap()
    }

    /// Reads, and checks that the value is whole.
    fn read(&self, cursor: &mut ReadCursor) -> Result<u64, ReadError> {
        let mut value = vec![0; self.words];
        let generation = self.reader().read(cursor, &mut value)?;
        assert!(value.iter().all(|word| *word == generation.count()), "torn");
        Ok(generation.count())
    }
}

/// What a writer keeps of a slot.
#[derive(Clone)]
struct Writer {
    cursor: WriteCursor,
    order: CopyOrder,
}

fn slot(copies: usize, words: usize) -> (Slot<Mapped>, Writer) {
    let window = heap(128 + copies * copy_stride(words));
    let slot = Slot::new(window, copies, words);
    let writer = Writer {
        cursor: WriteCursor::new(Epoch::FIRST),
        order: CopyOrder::FIRST,
    };
    PlaceAt::new(&slot.lines, 0).reset(writer.order, copies);
    (slot, writer)
}

fn readers(count: usize) -> Vec<Entries<u64, Mapped>> {
    (0..count)
        .map(|_| Entries::new(&heap(8), 0, 1).unwrap())
        .collect()
}

const NOBODY: &[Entries<u64, Mapped>] = &[];

#[test]
fn a_pinned_value_stays_while_others_read_on() {
    for copies in if cfg!(miri) { &[4][..] } else { &[4, 8, 16] } {
        let copies = *copies;
        let (slot, mut writer) = slot(copies, 3);
        let heard = readers(max_subscribed(copies));
        let mut cursors = vec![ReadCursor::default(); heard.len()];
        let pin = |words, cursor: &mut ReadCursor| {
            slot.reader().pin(cursor, AnnouncementAt::new(words, 0))
        };
        assert_eq!(
            pin(&heard[0], &mut cursors[0]).unwrap_err(),
            ReadError::NeverWritten
        );
        assert_eq!(heard[0].load(0, Relaxed), 0, "nothing is pinned");

        // Every reader pins another value.
        let mut pins = Vec::new();
        for (words, cursor) in heard.iter().zip(&mut cursors) {
            slot.publish(&mut writer, &heard);
            pins.push(pin(words, cursor).unwrap());
        }
        let mut other = ReadCursor::default();
        for _ in 0..5 * copies {
            let count = slot.publish(&mut writer, &heard).count();
            assert_eq!(slot.read(&mut other), Ok(count));
            for (number, pinned) in (1..).zip(&pins) {
                assert_eq!(pinned.generation().count(), number);
                assert!(pinned.words().eq([number; 3]) && pinned.check());
            }
        }
        let mut rest = [0; 3];
        assert_eq!((pins[0].copy_to(1, &mut rest), rest), (2, [1, 1, 0]));
        assert_eq!((pins[0].len(), pins[0].word(3)), (3, None));
        drop(pins);
        assert!(heard.iter().all(|words| words.load(0, Relaxed) == 0));
    }
}

#[test]
fn a_leaked_pin_costs_its_reader_a_copy_until_it_pins_again() {
    let (slot, mut writer) = slot(4, 1);
    let heard = readers(2);
    let mut cursor = ReadCursor::default();
    slot.publish(&mut writer, &heard);
    let announcement = AnnouncementAt::new(&heard[0], 0);
    let leaked =
        core::mem::ManuallyDrop::new(slot.reader().pin(&mut cursor, announcement).unwrap());
    for _ in 0..20 {
        slot.publish(&mut writer, &heard);
        assert_eq!(leaked.word(0), Some(1));
    }
    let again = slot.reader().pin(&mut cursor, announcement).unwrap();
    for _ in 0..20 {
        slot.publish(&mut writer, &heard);
    }
    assert!(again.check() && !leaked.check());
    assert_eq!(again.word(0), Some(21));
}

#[test]
fn a_reader_that_is_not_heard_learns_it_from_the_check() {
    let (slot, mut writer) = slot(4, 1);
    let heard = readers(1);
    let mut cursor = ReadCursor::default();
    slot.publish(&mut writer, &heard);
    let pinned = slot
        .reader()
        .pin(&mut cursor, AnnouncementAt::new(&heard[0], 0))
        .unwrap();
    for _ in 0..3 {
        slot.publish(&mut writer, NOBODY);
        assert!(pinned.check());
    }
    slot.publish(&mut writer, NOBODY);
    assert!(!pinned.check());
}

/// Whatever announcements hold, and however they change: a publication costs the same, and a value stays for everybody else
/// for as many publications as are promised.
#[test]
fn announcements_cost_nobody_else_anything() {
    let rounds = if cfg!(miri) { 40 } else { 20_000 };
    for copies in [4, 8, 16] {
        for lies in [0, 40, 255] {
            let (slot, mut writer) = slot(copies, 2);
            let subscribed = max_subscribed(copies);
            let (loads, accesses) = (Counting::default(), Counting::default());
            let counted = slot.probed(accesses.clone());
            let heard: Vec<_> = (0..subscribed as u64 + 2)
                .map(|reader| {
                    let hostile = Hostile::new(reader + u64::from(lies), lies);
                    let window = Probed::new(Probed::new(heap(8), hostile), loads.clone());
                    Entries::new(&window, 0, 1).unwrap()
                })
                .collect();
            let mut history: Vec<(u64, u64)> = Vec::new();
            for round in 0..rounds {
                // Not all lies: the readers also name copies, those written longest ago before all.
                for (reader, words) in heard.iter().enumerate() {
                    words.store(
                        0,
                        1 + (round + reader as u64 * 3) % (copies as u64 + 1),
                        Relaxed,
                    );
                }
                let before = (loads.loads(), accesses.loads(), accesses.stores());
                let generation = counted.publish(&mut writer, &heard);
                assert_eq!(loads.loads() - before.0, subscribed as u64);
                assert_eq!(accesses.loads() - before.1, 0);
                assert_eq!(accesses.stores() - before.2, 2 + 5);
                let copy = PlaceAt::new(&slot.lines, 0).load().copy();
                history.push((copy, 2 * generation.word()));
                for (copy, sequence) in history.iter().rev().take(copies - subscribed) {
                    assert_eq!(slot.records().load_header(*copy, Relaxed), *sequence);
                }
            }
        }
    }
}

/// The writer dies after each of its stores: readers find the last value, copied and pinned, and what is pinned stays.
#[test]
fn a_dead_writer_leaves_a_complete_value() {
    const WORDS: usize = 2;
    for copies in if cfg!(miri) { &[4][..] } else { &[4, 8] } {
        let copies = *copies;
        for before in (0..copies as u64 + 3).step_by(if cfg!(miri) { 3 } else { 1 }) {
            for stores in 0..=WORDS as u64 + 5 {
                let (slot, mut writer) = slot(copies, WORDS);
                let heard = readers(2);
                let (mut holding, mut follower) = (ReadCursor::default(), ReadCursor::default());
                let mut pinned = None;
                for number in 1..=before {
                    slot.publish(&mut writer, &heard);
                    assert_eq!(slot.read(&mut follower), Ok(number));
                    let mut pin = || {
                        slot.reader()
                            .pin(&mut holding, AnnouncementAt::new(&heard[0], 0))
                    };
                    pinned.get_or_insert_with(|| pin().unwrap());
                }
                let dying = Dying::after(stores);
                slot.probed(dying.clone()).publish(&mut writer, &heard);
                assert_eq!(dying.is_dead(), stores < WORDS as u64 + 5);
                // Complete when it is named in the place, before the head.
                let visible = before + u64::from(stores >= WORDS as u64 + 4);
                for cursor in [follower, ReadCursor::default()] {
                    let read = slot.read(&mut { cursor });
                    let announcement = AnnouncementAt::new(&heard[1], 0);
                    let other = slot.reader().pin(&mut { cursor }, announcement);
                    if visible == 0 {
                        assert_eq!(read, Err(ReadError::NeverWritten));
                        assert_eq!(other.unwrap_err(), ReadError::NeverWritten);
                        continue;
                    }
                    assert_eq!(read, Ok(visible));
                    let other = other.unwrap();
                    assert!(other.check() && other.words().eq([visible; WORDS]));
                }
                let last = slot.reader().recover(Epoch::FIRST, &mut [0; WORDS]);
                assert_eq!(last.ok().map_or(0, Generation::count), visible);
                assert!(
                    pinned.is_none_or(|pinned| pinned.check() && pinned.words().eq([1; WORDS]))
                );
            }
        }
    }
}

/// However much the memory lies, calls end with a value or a typed outcome within their bounds, and pins are withdrawn.
#[test]
fn a_hostile_writer_costs_a_bounded_number_of_loads() {
    const WORDS: usize = 5;
    let rounds = if cfg!(miri) { 60 } else { 50_000 };
    let (mut values, mut errors, mut most) = (0, 0, (0, 0));
    for lies in [16, 64, 200] {
        let (honest, mut writer) = slot(8, WORDS);
        let heard = readers(1);
        let counting = Counting::default();
        let lying = honest.probed((Hostile::new(u64::from(lies), lies), counting.clone()));
        let mut cursor = ReadCursor::default();
        for round in 0..rounds {
            honest.publish(&mut writer, &heard);
            let before = counting.loads();
            let mut count = |is_ok| if is_ok { values += 1 } else { errors += 1 };
            count(lying.reader().read(&mut cursor, &mut [0; WORDS]).is_ok());
            let read = counting.loads() - before;
            assert!(read <= max_read_loads(WORDS) as u64, "{read} loads");

            let before = counting.loads();
            let pinned = lying
                .reader()
                .pin(&mut cursor, AnnouncementAt::new(&heard[0], 0));
            let pin = counting.loads() - before;
            assert!(pin <= MAX_PIN_LOADS as u64, "{pin} loads");
            most = (most.0.max(read), most.1.max(pin));
            count(pinned.is_ok());
            if let Ok(pinned) = pinned {
                assert!(pinned.words().count() == WORDS && pinned.copy_to(0, &mut [0; 9]) == WORDS);
                let _ = pinned.check();
            }
            assert_eq!(heard[0].load(0, Relaxed), 0);
            if round % 64 == 0 {
                cursor = ReadCursor::default();
            }
        }
    }
    assert!(values > 0 && errors > 0, "{values} values, {errors} errors");
    eprintln!("{values} values, {errors} errors, at most {most:?} loads");
}

/// A writer whose copies always carry something else when they are looked at again makes a read do all that it may; one whose
/// copies are never complete, a pin.
#[test]
fn the_bounds_on_loads_are_exact() {
    const WORDS: usize = 3;
    let (slot, mut writer) = slot(4, WORDS);
    let heard = readers(1);
    slot.publish(&mut writer, &heard);

    #[derive(Clone, Debug)]
    struct Contrary(Counting);
    impl crate::testing::Probe for Contrary {
        fn load(&self, offset: usize, bytes: usize, value: u64) -> u64 {
            self.0.load(offset, bytes, value);
            let nth = self.0.loads() as usize;
            let is_last_of_read = nth.is_multiple_of(WORDS + 3);
            let is_sequence = offset >= 128 && (offset - 128).is_multiple_of(copy_stride(WORDS));
            if is_sequence && is_last_of_read {
                value + 1
            } else {
                value
            }
        }
    }
    let probe = Contrary(Counting::default());
    let contrary = slot.probed(probe.clone());
    let mut cursor = ReadCursor::default();
    assert_eq!(
        contrary.reader().read(&mut cursor, &mut [0; WORDS]),
        Err(ReadError::Lapped)
    );
    assert_eq!(probe.0.loads(), max_read_loads(WORDS) as u64);

    #[derive(Clone, Debug)]
    struct Odd(Counting);
    impl crate::testing::Probe for Odd {
        fn load(&self, offset: usize, bytes: usize, value: u64) -> u64 {
            self.0.load(offset, bytes, value);
            if offset >= 128 { value | 1 } else { value }
        }
    }
    let probe = Odd(Counting::default());
    let odd = slot.probed(probe.clone());
    let outcome = odd
        .reader()
        .pin(&mut cursor, AnnouncementAt::new(&heard[0], 0));
    assert_eq!(outcome.unwrap_err(), ReadError::Lapped);
    assert_eq!(probe.0.loads(), MAX_PIN_LOADS as u64);
    assert_eq!(MAX_PIN_LOADS, 3 * TRIES);
}
