//! A sender and a receiver in two threads, over memory on the heap: for Miri and ThreadSanitizer. There is no
//! operating system in it; who sleeps waits for a word that stands for the doorbell.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::thread;

use shmbus_shm::{Entries, heap};
use shmbus_signal::suppress::{Arm, Broadcast, DoorbellLayout, Receiver, Sender};

const CHANNELS: u32 = 100;

/// The sender writes a channel's word and raises it; the receiver, told of the channel, finds that word or a newer one,
/// sleeps when it has nothing to do, and in the end has seen all.
#[test]
fn a_receiver_that_sleeps_sees_everything() {
    let raises = if cfg!(miri) { 200 } else { 200_000_u64 };
    let layout = DoorbellLayout::new(CHANNELS).unwrap();
    let tree = heap(layout.tree_bytes());
    let armed = heap(DoorbellLayout::ARMED_BYTES);
    let words = heap(128 * 8);
    let words = Entries::<u64, _>::new(&words, 0, 128).unwrap();
    let kicks = Arc::new(AtomicU64::new(0));

    let mut sender = Sender::new(&tree, &armed, layout).unwrap();
    let mut receiver = Receiver::new(&tree, &armed, layout, vec![0; CHANNELS as usize]).unwrap();

    assert_eq!(receiver.arm(), Arm::Armed);
    let mut armings = 1;

    let raising = thread::spawn({
        let (words, kicks) = (words.clone(), kicks.clone());
        move || {
            for count in 1..=raises {
                let channel = (count * 37 % u64::from(CHANNELS)) as u32;
                words.store(channel as usize, count, Relaxed);
                if sender.raise(channel).unwrap().is_needed() {
                    kicks.fetch_add(1, Release);
                }
                if count % 64 == 0 {
                    thread::yield_now();
                }
            }
            sender.counts()
        }
    });

    let mut generations = [0; CHANNELS as usize];
    let (mut heard, mut last) = (0, 0);
    loop {
        receiver.poll(|channel, generation| {
            let channel = channel as usize;
            assert!(generation > generations[channel]);
            generations[channel] = generation;
            // The sender raises one channel for each word: its generation is the word's number.
            let word = words.load(channel, Relaxed);
            assert!(
                word >= generation,
                "told of {generation} before its word: {word}"
            );
            last = last.max(generation);
        });
        if last == raises {
            break;
        }
        armings += 1;
        if receiver.arm() == Arm::Armed {
            // A lost wake-up is a test that does not end.
            while kicks.load(Acquire) == heard {
                thread::yield_now();
            }
            heard = kicks.load(Acquire);
        }
    }
    let counts = raising.join().unwrap();
    assert_eq!(counts.sent + counts.suppressed, raises);
    assert_eq!(counts.sent, kicks.load(Acquire));
    assert!(counts.sent > 0);
    assert!(counts.sent <= armings, "two kicks for one arming");
}

/// Two receivers of one sender, each with an armed word of its own, one of which sleeps through three raises at a time.
#[test]
fn two_receivers_of_one_sender_see_everything() {
    let raises = if cfg!(miri) { 100 } else { 100_000_u64 };
    let layout = DoorbellLayout::new(1).unwrap();
    let tree = heap(layout.tree_bytes());
    let mut sender = Broadcast::<_, _, 2>::new(&tree, layout).unwrap();
    let mut hearing = Vec::new();
    let mut kicks = Vec::new();
    for ahead in [1, 3] {
        let armed = heap(DoorbellLayout::ARMED_BYTES);
        let _ = sender.subscribe(&armed).unwrap();
        let mut receiver = Receiver::new(&tree, &armed, layout, [0]).unwrap();
        let rung = Arc::new(AtomicU64::new(0));
        kicks.push(rung.clone());
        hearing.push(thread::spawn(move || {
            let (mut last, mut heard, mut armings) = (0, 0, 0);
            while last < raises {
                armings += 1;
                // The last raises may be fewer than it likes to sleep through.
                if receiver.arm_after(ahead.min(raises - receiver.stamp())) == Arm::Armed {
                    while rung.load(Acquire) == heard {
                        thread::yield_now();
                    }
                    heard = rung.load(Acquire);
                }
                receiver.poll(|_, generation| {
                    assert!(generation > last);
                    last = generation;
                });
            }
            armings
        }));
    }
    for count in 1..=raises {
        for subscriber in sender.raise(0).unwrap() {
            kicks[subscriber.index()].fetch_add(1, Release);
        }
        if count % 8 == 0 {
            thread::yield_now();
        }
    }
    for (hearing, kicks) in hearing.into_iter().zip(kicks) {
        let (armings, kicks) = (hearing.join().unwrap(), kicks.load(Acquire));
        assert!(kicks <= armings, "{kicks} kicks for {armings} armings");
    }
}
