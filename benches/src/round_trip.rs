//! A line of memory from one processor to the other and back: what the machine gives all who use two.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::{Acquire, Release};

use crate::{Comparison, Contender, Partner, SetUpError};

/// Its name among the benchmarks of a program.
pub(crate) const ROUND_TRIP: &str = "line/round-trip";

/// Far enough from the next for prefetchers of neighbouring lines.
#[derive(Default)]
#[repr(align(256))]
struct Word(AtomicU64);

/// The comparison, with nobody. Every program has it, for [`Measure::say_round_trip`](crate::Measure::say_round_trip).
pub fn round_trip() -> Comparison {
    Comparison::new(ROUND_TRIP, "two threads: a line there and back", || {
        Ok(vec![contender()?])
    })
}

fn contender() -> Result<Contender, SetUpError> {
    let words: Arc<[Word; 2]> = Arc::default();
    let theirs = words.clone();
    let mut answered = 0;
    let partner = Partner::spawn(move |operations| {
        for _ in 0..operations {
            answered += 1;
            while theirs[0].0.load(Acquire) != answered {}
            theirs[1].0.store(answered, Release);
        }
    })?;
    let mut sent = 0;
    Ok(Contender::new("line", move |operations| {
        partner.beside(operations, || {
            for _ in 0..operations {
                sent += 1;
                words[0].0.store(sent, Release);
                while words[1].0.load(Acquire) != sent {}
            }
        })
    }))
}
