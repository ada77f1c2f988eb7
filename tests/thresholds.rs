//! "Wake me when this slot's generation reaches G": several readers of one table, which sleep on doorbells of their own.
#![cfg(not(miri))] // it knows no doorbells

use std::thread;
use std::time::Duration;

use shmbus_shm::slot::{Epoch, Generation};
use shmbus_shm::{Mapped, Notify, heap};
use shmbus_signal::os::{Notifier, Waiter, doorbell};
use shmbus_signal::suppress::{Alarm, Arm, DoorbellLayout, Subscribers};
use shmbus_table::{TableLayout, TableReader, TableWriter};

const LOST: Option<Duration> = Some(Duration::from_secs(20));
const SLOT: u32 = 5;
const READERS: usize = 3;
const GENERATIONS: u64 = 3_000;

/// A generation is a count under an epoch; what is armed is the word of both.
fn word(count: u64) -> u64 {
    Generation::new(Epoch::FIRST, count).map_or(0, Generation::word)
}

/// Sleeps through `step` generations of the slot at a time. Returns how often it armed.
fn sleep_through(step: u64, table: Mapped, alarm: Alarm<Mapped>, waiter: Waiter) -> u64 {
    let mut reader = TableReader::attach(table, vec![0; 8], vec![0; 8]).unwrap();
    let mut generation = || {
        let mut value = [0];
        match reader.read(SLOT, &mut value) {
            Ok(generation) => {
                // A slot of 8 bytes has a lower bound for its generation.
                assert!(value[0] >= generation.count(), "{value:?} at {generation}");
                generation.count()
            }
            Err(_) => 0, // never written
        }
    };
    let mut armings = 0;
    let mut wanted = step;
    while wanted <= GENERATIONS {
        let mut seen = generation();
        if seen < wanted {
            armings += 1;
            if alarm.arm_at(word(wanted), || word(generation())) == Arm::Armed {
                let woken = waiter.wait(LOST).unwrap();
                assert!(woken, "nobody woke who waits for generation {wanted}");
            }
            seen = generation();
        }
        // Early is who was kicked for what it had armed for before, and found by itself.
        if seen >= wanted {
            wanted = seen + step;
        }
    }
    armings
}

#[test]
fn readers_of_a_slot_are_woken_at_the_generations_that_they_named() {
    let layout = TableLayout::new(8, 8).unwrap();
    let table = heap(layout.bytes());
    let mut writer =
        TableWriter::create(table.clone(), layout, 1, Epoch::FIRST, vec![0; 8]).unwrap();
    let mut subscribers = Subscribers::<Mapped, READERS>::new();
    let mut notifiers: Vec<Notifier> = Vec::new();
    let mut readers = Vec::new();
    for step in [1, 10, 100] {
        let armed = heap(DoorbellLayout::ARMED_BYTES);
        let (subscriber, notify) = subscribers.subscribe(&armed, 0).unwrap();
        assert_eq!((subscriber.index(), notify), (notifiers.len(), Notify::No));
        let alarm = Alarm::new(&armed).unwrap();
        let (notifier, waiter) = doorbell().unwrap();
        notifiers.push(notifier);
        let table = table.clone();
        readers.push(thread::spawn(move || {
            sleep_through(step, table, alarm, waiter)
        }));
    }
    let mut kicks = [0; READERS];
    for count in 1..=GENERATIONS {
        let (generation, notify) = writer.publish(SLOT, &[count]).unwrap();
        assert_eq!(notify, Notify::Yes, "who is woken is decided below");
        for subscriber in subscribers.due(generation.word()) {
            kicks[subscriber.index()] += 1;
            notifiers[subscriber.index()].notify().unwrap();
        }
        if count % 7 == 0 {
            thread::yield_now();
        }
    }
    let armings: Vec<u64> = readers
        .into_iter()
        .map(|reader| reader.join().unwrap())
        .collect();
    for (kicks, armings) in kicks.iter().zip(&armings) {
        assert!(kicks <= armings, "{kicks} kicks for {armings} armings");
    }
    assert!(kicks[2] <= GENERATIONS / 100, "woken early: {kicks:?}");
}
