//! Pairs of words between two processors: never halves of two stores. The same search finds halves where the words are loaded
//! one by one.
#![cfg(not(miri))] // no pairs there

use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::Relaxed;
use std::thread;

use shmbus_shm::{Entries, Mapped, Pairs, Window, WindowError, heap};

const READS: u64 = 2_000_000;

/// The window, if there are pairs in it and a processor for each side.
fn window() -> Option<Mapped> {
    let window = heap(64);
    if !window.has_pairs() {
        eprintln!("SKIPPED: {}", WindowError::NoPairs);
        return None;
    }
    if thread::available_parallelism().is_ok_and(|processors| processors.get() < 2) {
        eprintln!("SKIPPED: it takes two processors");
        return None;
    }
    Some(window)
}

/// One thread stores pairs of equal words, all bits of which change; returns how many of `reads` reads found a pair of
/// others, but no more than `enough`.
fn torn(window: &Mapped, reads: u64, enough: u64, read: impl Fn() -> [u64; 2]) -> u64 {
    let pairs = Pairs::new(window, 16, 1).unwrap();
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            while !is_over.load(Relaxed) {
                pairs.store(0, [0; 2]);
                pairs.store(0, [u64::MAX; 2]);
            }
        });
        let (mut torn, mut seen) = (0, [0; 2]);
        for _ in 0..reads {
            let [first, second] = read();
            torn += u64::from(first != second);
            seen[usize::from(first == 0)] += 1;
            if torn == enough {
                break;
            }
        }
        is_over.store(true, Relaxed);
        eprintln!("{torn} torn; zeroes and ones: {seen:?}");
        torn
    })
}

#[test]
fn a_pair_is_never_torn() {
    let Some(window) = window() else { return };
    let pairs = Pairs::new(&window, 16, 1).unwrap();
    assert_eq!(torn(&window, READS, u64::MAX, || pairs.load(0)), 0);
}

#[test]
fn two_words_are_torn() {
    let Some(window) = window() else { return };
    let words = Entries::<u64, _>::new(&window, 0, 8).unwrap();
    let halves = || [words.load(2, Relaxed), words.load(3, Relaxed)];
    assert_eq!(torn(&window, 1000 * READS, 1, halves), 1);
}
