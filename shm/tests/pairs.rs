//! Pairs of words between two processors: never halves of two stores, where two loads of a word each do find such halves.
#![cfg(not(miri))] // no pairs there

use std::hint;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::Relaxed;
use std::thread;

use shmbus_shm::{Entries, Pairs, Window, WindowError, heap};

/// How often a pair is read at least, and how often its words must have been torn by then.
const READS: u64 = 3_000_000;
const TORN: u64 = 1_000;

/// After so many reads in which words were not torn, the test is no good.
const MOST: u64 = 1000 * READS;

/// One thread stores pairs of equal words, all bits of which change. Another one looks at them both ways in turn, so that
/// what the first way does not find was there to be found.
#[test]
fn a_pair_is_never_torn_where_two_words_are() {
    let window = heap(64);
    if !window.has_pairs() {
        eprintln!("SKIPPED: {}", WindowError::NoPairs);
        return;
    }
    if thread::available_parallelism().is_ok_and(|processors| processors.get() < 2) {
        eprintln!("SKIPPED: it takes two processors");
        return;
    }
    let pairs = Pairs::new(&window, 16, 1).unwrap();
    let words = Entries::<u64, _>::new(&window, 0, 8).unwrap();
    let is_over = AtomicBool::new(false);
    let (mut reads, mut torn_words, mut torn_pairs) = (0_u64, 0_u64, 0_u64);
    thread::scope(|scope| {
        scope.spawn(|| {
            while !is_over.load(Relaxed) {
                pairs.store(0, [0; 2]);
                pairs.store(0, [u64::MAX; 2]);
            }
        });
        while reads < READS || torn_words < TORN && reads < MOST {
            reads += 1;
            let [first, second] = pairs.load(0);
            torn_pairs += u64::from(first != second);
            let first = words.load(2, Relaxed);
            hint::spin_loop();
            torn_words += u64::from(first != words.load(3, Relaxed));
        }
        is_over.store(true, Relaxed);
    });
    eprintln!("{reads} reads: {torn_words} times two words torn, {torn_pairs} times a pair");
    assert_eq!(torn_pairs, 0);
    assert!(torn_words >= TORN, "the search finds nothing");
}
