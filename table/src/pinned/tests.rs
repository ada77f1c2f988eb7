use core::mem::ManuallyDrop;
use std::cell::Cell;

use proptest::prelude::*;
use shmbus_shm::slot::ReadError as SlotError;
use shmbus_shm::testing::{Counting, Dying, Hostile, Probed};
use shmbus_shm::{Entries, Mapped, Window, heap};

use super::*;
use crate::{
    Epoch, Generation, Header, ReadError, TableError, TableFlags, TableLayout, TableOptions,
    TableReader, TableWriter,
};

const TYPE_ID: u32 = 0x7069_6e73;

type Writer<W, A = Mapped> = PinnedTableWriter<W, A, Vec<u64>>;
type Reader<W = Mapped> = PinnedTableReader<W, Mapped, Vec<Cell<u64>>, Vec<u64>>;

fn layout(slots: u32, slot_bytes: u32, copies: u32) -> TableLayout {
    let options = TableOptions::new().copies(copies).pinned();
    TableLayout::with_options(slots, slot_bytes, options).unwrap()
}

fn writer<W: Window, A: Window>(window: &W, layout: TableLayout) -> Writer<W, A> {
    let storage = vec![0; layout.slots() as usize];
    PinnedTableWriter::create(
        window.clone(),
        layout,
        TYPE_ID,
        Epoch::FIRST,
        storage.clone(),
        storage,
    )
    .unwrap()
}

fn reader<W: Window>(window: &W, layout: TableLayout) -> Reader<W> {
    let slots = layout.slots() as usize;
    PinnedTableReader::attach(window.clone(), vec![Cell::new(0); slots], vec![0; slots]).unwrap()
}

fn subscribe<W: Window>(writer: &mut Writer<W>, reader: &mut Reader) -> Seat {
    let own = heap(reader.layout().announcements_bytes());
    let seat = writer.subscribe(own.clone()).unwrap();
    reader.take_seat(own, seat).unwrap();
    seat
}

fn publish<W: Window, A: Window>(writer: &mut Writer<W, A>, slot: u32, number: u64) -> Generation {
    let value = vec![number; writer.layout().slot_words()];
    writer.publish(slot, &value).unwrap().0
}

/// Reads a value and returns which publication it is from, after checking that it is whole.
fn read<W: Window>(reader: &Reader<W>, slot: u32) -> Result<(Generation, u64), ReadError> {
    let mut value = vec![0; reader.layout().slot_words()];
    let generation = reader.read(slot, &mut value)?;
    assert!(value.iter().all(|word| *word == value[0]), "torn");
    Ok((generation, value[0]))
}

#[test]
fn only_who_is_subscribed_pins() {
    let layout = layout(3, 24, 2);
    let window = heap(layout.bytes());
    let mut writer: Writer<_> = writer(&window, layout);
    let mut readers: Vec<Reader> = (0..3).map(|_| reader(&window, layout)).collect();
    publish(&mut writer, 1, 10);
    assert_eq!(readers[0].pin(1).unwrap_err(), PinError::NotSubscribed);
    assert_eq!(read(&readers[0], 1).unwrap().1, 10);

    let first = subscribe(&mut writer, &mut readers[0]);
    subscribe(&mut writer, &mut readers[1]);
    let own = heap(layout.announcements_bytes());
    assert_eq!(
        writer.subscribe(own.clone()),
        Err(TableError::SeatsTaken { seats: 2 })
    );
    let pinned = readers[0].pin(1).unwrap();
    assert_eq!(
        readers[0].pin(1).unwrap_err(),
        PinError::AlreadyPinned { slot: 1 }
    );
    assert_eq!(
        readers[0].pin(2).unwrap_err(),
        PinError::Read(ReadError::Slot(SlotError::NeverWritten))
    );
    let beyond = ReadError::NoSuchSlot { slot: 3, slots: 3 };
    assert_eq!(readers[0].pin(3).unwrap_err(), PinError::Read(beyond));

    // The seat goes to another reader, and the first one notices.
    assert!(writer.unsubscribe(first) && !writer.unsubscribe(first));
    let second = writer.subscribe(own.clone()).unwrap();
    assert_ne!(first, second);
    assert!(pinned.check());
    for number in 11..15 {
        publish(&mut writer, 1, number);
    }
    assert!(!pinned.check());
    drop(pinned);
    assert_eq!(readers[0].pin(1).unwrap_err(), PinError::NotSubscribed);
    readers[2].take_seat(own, second).unwrap();
    assert_eq!(readers[2].pin(1).unwrap().word(0), Some(14));
    assert_eq!(writer.subscribed(), 2);

    let small = heap(8);
    assert!(matches!(
        readers[0].take_seat(small, second),
        Err(TableError::Window(_))
    ));
}

#[test]
fn a_reader_pins_a_value_of_each_slot() {
    let layout = layout(4, 8, 2);
    let window = heap(layout.bytes());
    let mut writer: Writer<_> = writer(&window, layout);
    let mut reader = reader(&window, layout);
    subscribe(&mut writer, &mut reader);
    for slot in 0..4 {
        publish(&mut writer, slot, 10 + u64::from(slot));
    }
    let pins: Vec<_> = (0..4).map(|slot| reader.pin(slot).unwrap()).collect();
    for number in 20..40 {
        publish(&mut writer, number as u32 % 4, number);
    }
    for (slot, pinned) in (0..4).zip(pins) {
        assert_eq!(pinned.word(0), Some(10 + u64::from(slot)));
        assert_eq!(read(&reader, slot).unwrap().1, 36 + u64::from(slot));
    }
    let mut changed = Vec::new();
    reader.changed(|slot, _| changed.push(slot));
    assert_eq!(changed, [0, 1, 2, 3]);

    // A leaked pin is the reader's own loss, until it takes a seat again.
    let _leaked = ManuallyDrop::new(reader.pin(0).unwrap());
    assert_eq!(
        reader.pin(0).unwrap_err(),
        PinError::AlreadyPinned { slot: 0 }
    );
    for number in 0..20 {
        publish(&mut writer, 0, number);
    }
    assert_eq!(read(&reader, 0).unwrap().1, 19);
    subscribe(&mut writer, &mut reader);
    assert_eq!(reader.pin(0).unwrap().word(0), Some(19));
}

#[test]
fn tables_with_pins_and_without_are_told_apart() {
    let pinned = layout(2, 16, 2);
    let plain = TableLayout::new(2, 16).unwrap();
    let window = heap(pinned.bytes().max(plain.bytes()));
    let refused = TableWriter::create(window.clone(), pinned, TYPE_ID, Epoch::FIRST, [0; 2]);
    assert!(matches!(
        refused,
        Err(TableError::Kind {
            found: TableFlags::PINNED,
            ..
        })
    ));
    writer::<_, Mapped>(&window, pinned);
    assert!(matches!(
        TableReader::attach(window.clone(), [0; 2], [0; 2]),
        Err(TableError::Kind {
            found: TableFlags::PINNED,
            ..
        })
    ));
    let no_pins = Err(TableError::Kind {
        expected: TableFlags::PINNED,
        found: TableFlags::NONE,
    });
    let storage = || vec![0; 2];
    let other = Writer::<_>::create(
        window.clone(),
        plain,
        TYPE_ID,
        Epoch::FIRST,
        storage(),
        storage(),
    );
    assert_eq!(other.map(|_| ()), no_pins);
    TableWriter::create(window.clone(), plain, TYPE_ID, Epoch::FIRST, [0; 2]).unwrap();
    let other = Reader::attach(window.clone(), vec![Cell::new(0); 2], storage());
    assert_eq!(other.map(|_| ()), no_pins);
    let other = Writer::<_>::resume(&window, heap(pinned.bytes()), storage(), storage());
    assert_eq!(other.map(|_| ()), no_pins);
}

/// The writer dies after each of its stores in turn; another one goes on in new memory, and dies too, or not.
#[test]
#[cfg_attr(miri, ignore = "hundreds of lives, each of the same accesses")]
fn every_death_leaves_what_was_published_and_pinned() {
    let layout = layout(2, 16, 2);
    for stores in 0.. {
        let window = heap(layout.bytes());
        let dying = Dying::after(stores);
        let mut first: Writer<_> = writer(&Probed::new(window.clone(), dying.clone()), layout);
        if dying.is_dead() {
            assert!(matches!(
                Header::read(&window),
                Err(TableError::Magic { .. })
            ));
            continue;
        }
        let mut follower = reader(&window, layout);
        subscribe(&mut first, &mut follower);
        let (mut completed, mut attempted) = ([0; 2], 0);
        let mut pinned = None;
        let mut reached = |number: u64, writer: &mut Writer<_>| {
            publish(writer, number as u32 % 2, number);
            attempted = number;
        };
        for number in 1..10 {
            if dying.is_dead() {
                break;
            }
            reached(number, &mut first);
            if !dying.is_dead() {
                completed[number as usize % 2] = number;
                pinned = pinned.or_else(|| follower.pin(1).ok());
            }
        }
        let is_kept = |reader: &Reader, slot: u32| {
            let completed = completed[slot as usize];
            match read(reader, slot) {
                Ok((_, number)) => assert!(number == completed || number == attempted),
                Err(error) => {
                    assert_eq!(
                        (error, completed),
                        (ReadError::Slot(SlotError::NeverWritten), 0)
                    );
                }
            }
        };
        (0..2).for_each(|slot| is_kept(&follower, slot));

        let new = heap(layout.bytes());
        let seeding = Dying::after(stores % 90);
        let storage = || vec![0; 2];
        let probed = Probed::new(new.clone(), seeding.clone());
        Writer::<_>::resume(&window, probed, storage(), storage()).unwrap();
        assert_eq!(Header::read(&new).is_err(), seeding.is_dead());
        let (mut second, recovered) =
            Writer::<_>::resume(&window, new.clone(), storage(), storage()).unwrap();
        assert_eq!((recovered.lost, second.epoch().get()), (0, 2));
        for number in 20..40 {
            publish(&mut second, number as u32 % 2, number);
        }
        let is_kept = |pinned: &PinnedValue<_, _>| pinned.check() && pinned.words().eq([1; 2]);
        assert!(pinned.as_ref().is_none_or(is_kept));
        drop(pinned);
        let had_read: Vec<_> = (0..2)
            .map(|slot| follower.generation(slot).is_some())
            .collect();
        assert_eq!(follower.rebind(new.clone()).unwrap(), second.epoch());
        assert_eq!(follower.pin(1).unwrap_err(), PinError::NotSubscribed);
        subscribe(&mut second, &mut follower);
        for (slot, had_read) in (0..2).zip(had_read) {
            if had_read {
                let outcome = follower.pin(slot);
                assert!(matches!(
                    outcome,
                    Err(PinError::Read(ReadError::Slot(SlotError::Restarted { .. })))
                ));
            }
            assert_eq!(
                follower.pin(slot).unwrap().word(1),
                Some(38 + u64::from(slot))
            );
        }
        if !dying.is_dead() {
            break;
        }
    }
}

/// Announcements and a table that lie: every call within its bound, and nobody else is disturbed.
#[test]
fn lies_of_either_side_cost_a_bounded_amount() {
    let (rounds, attempts) = if cfg!(miri) {
        (30, 300)
    } else {
        (20_000, 1_000_000)
    };
    for lies in [10, 100, 255] {
        let layout = layout(5, 40, 2);
        let honest = heap(layout.bytes());
        let heard = Counting::default();
        let mut writer: Writer<_, _> = writer(&honest, layout);
        for seed in 0..2 {
            let hostile = (Hostile::new(seed, lies), heard.clone());
            let window = Probed::new(heap(layout.announcements_bytes()), hostile);
            writer.subscribe(window).unwrap();
        }
        let other = reader(&honest, layout);
        let probe = (Hostile::new(u64::from(lies), lies), Counting::default());
        let lying = Probed::new(honest.clone(), probe.clone());
        let slots = layout.slots() as usize;
        let mut deceived = (0..attempts).find_map(|_| {
            let cells = vec![Cell::new(0); slots];
            let attached = PinnedTableReader::attach(lying.clone(), cells, vec![0; slots]);
            attached
                .ok()
                .filter(|reader: &Reader<_>| reader.layout() == layout)
        });
        let own = heap(layout.announcements_bytes());
        let announced = Entries::<u64, _>::new(&own, 0, 8).unwrap();
        if let Some(reader) = &mut deceived {
            let seat = Seat::new(Epoch::FIRST, 0, 0);
            reader.take_seat(own, seat).unwrap();
        }
        for round in 0..rounds {
            let slot = round as u32 % 5;
            let before = heard.loads();
            let generation = publish(&mut writer, slot, round);
            assert_eq!(heard.loads() - before, 2);
            assert_eq!(read(&other, slot), Ok((generation, round)));

            let Some(reader) = &deceived else { continue };
            let before = probe.1.loads();
            let pinned = reader.pin(slot);
            assert!(probe.1.loads() - before <= 1 + MAX_PIN_LOADS as u64);
            if let Ok(pinned) = pinned {
                assert_eq!(pinned.words().count(), 5);
            }
            assert_eq!(
                announced.load(slot as usize, core::sync::atomic::Ordering::Relaxed),
                0
            );
            let before = probe.1.loads();
            let _ = reader.read(slot, &mut [0; 5]);
            assert!(probe.1.loads() - before <= max_read_loads(5) as u64);
        }
    }
}

const SLOTS: u32 = 2;
const READERS: usize = 3;

#[derive(Clone, Debug)]
enum Step {
    Publish { slot: u32, times: u8 },
    Pin { reader: usize, slot: u32 },
    Unpin { reader: usize, slot: u32 },
    Read { reader: usize, slot: u32 },
    Unsubscribe { reader: usize },
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let (reader, slot) = (0..READERS, 0..SLOTS);
    let step = prop_oneof![
        6 => (slot.clone(), 1..7u8).prop_map(|(slot, times)| Step::Publish { slot, times }),
        4 => (reader.clone(), slot.clone()).prop_map(|(reader, slot)| Step::Pin { reader, slot }),
        2 => (reader.clone(), slot.clone()).prop_map(|(reader, slot)| Step::Unpin { reader, slot }),
        3 => (reader.clone(), slot).prop_map(|(reader, slot)| Step::Read { reader, slot }),
        1 => reader.prop_map(|reader| Step::Unsubscribe { reader }),
    ];
    prop::collection::vec(step, 1..if cfg!(miri) { 20 } else { 60 })
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: if cfg!(miri) { 2 } else { 256 },
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    /// Against the model: for each slot the last value, for each reader what it has been told and what it has pinned. Between
    /// lives of the writer all readers take seats, as many as there are.
    #[test]
    fn a_table_agrees_with_its_model(
        slot_bytes in prop::sample::select(vec![8u32, 64, if cfg!(miri) { 24 } else { 4096 }]),
        copies in prop::sample::select(vec![2u32, 4]),
        lives in prop::collection::vec(steps(), 1..4),
    ) {
        let layout = layout(SLOTS, slot_bytes, copies);
        let mut window = heap(layout.bytes());
        let mut writer: Writer<_> = writer(&window, layout);
        let mut readers: [Reader; READERS] = core::array::from_fn(|_| reader(&window, layout));
        let mut told = [[None::<Epoch>; SLOTS as usize]; READERS];
        let mut model: [Option<(Generation, u64)>; SLOTS as usize] = [None; SLOTS as usize];
        let mut number = 0;
        for steps in lives {
            let mut seats: [Option<Seat>; READERS] = core::array::from_fn(|reader| {
                let own = heap(layout.announcements_bytes());
                let seat = writer.subscribe(own.clone()).ok()?;
                readers[reader].take_seat(own, seat).unwrap();
                Some(seat)
            });
            prop_assert_eq!(writer.subscribed(), READERS.min(copies as usize));
            let mut pins: [[_; SLOTS as usize]; READERS] = Default::default();
            for step in steps {
                match step {
                    Step::Publish { slot, times } => for _ in 0..times {
                        number += 1;
                        model[slot as usize] = Some((publish(&mut writer, slot, number), number));
                    },
                    Step::Unsubscribe { reader } => if let Some(seat) = seats[reader].take() {
                        prop_assert!(writer.unsubscribe(seat));
                    },
                    Step::Unpin { reader, slot } => pins[reader][slot as usize] = None,
                    Step::Pin { reader, slot } | Step::Read { reader, slot } => {
                        let told = &mut told[reader][slot as usize];
                        let pin = &mut pins[reader][slot as usize];
                        let expected = match model[slot as usize] {
                            None => Err(ReadError::Slot(SlotError::NeverWritten)),
                            Some((to, _)) if told.is_some_and(|told| told != to.epoch()) => {
                                let (from, to) = (told.unwrap(), to.epoch());
                                Err(ReadError::Slot(SlotError::Restarted { from, to }))
                            }
                            Some(value) => Ok(value),
                        };
                        let outcome = if matches!(step, Step::Read { .. }) {
                            read(&readers[reader], slot)
                        } else {
                            match readers[reader].pin(slot) {
                                Ok(pinned) => {
                                    let value = (pinned.generation(), pinned.word(0).unwrap());
                                    prop_assert!(pinned.words().all(|word| word == value.1));
                                    prop_assert!(pin.is_none() && seats[reader].is_some());
                                    *pin = Some((pinned, value.1));
                                    Ok(value)
                                }
                                Err(PinError::AlreadyPinned { .. }) => {
                                    prop_assert!(pin.is_some());
                                    continue;
                                }
                                Err(PinError::NotSubscribed) => {
                                    prop_assert!(seats[reader].is_none());
                                    continue;
                                }
                                Err(PinError::Read(error)) => Err(error),
                            }
                        };
                        prop_assert_eq!(outcome, expected);
                        *told = model[slot as usize].map(|(last, _)| last.epoch());
                    }
                }
                for (reader, pins) in pins.iter().enumerate() {
                    for (pinned, number) in pins.iter().flatten() {
                        let is_whole = pinned.words().all(|word| word == *number);
                        prop_assert!(pinned.check() || seats[reader].is_none());
                        prop_assert!(is_whole || !pinned.check());
                    }
                }
            }
            let new = heap(layout.bytes());
            let storage = vec![0; SLOTS as usize];
            let (next, recovered) = Writer::<_>::resume(&window, new.clone(), storage.clone(), storage).unwrap();
            prop_assert_eq!(recovered.values as usize, model.iter().flatten().count());
            prop_assert_eq!(recovered.lost, 0);
            drop(pins);
            (writer, window) = (next, new);
            for reader in &mut readers {
                prop_assert_eq!(reader.rebind(window.clone()).unwrap(), writer.epoch());
            }
            for (slot, last) in model.iter_mut().enumerate() {
                if let Some((generation, _)) = last {
                    *generation = writer.generation(slot as u32).unwrap();
                }
            }
        }
    }
}
