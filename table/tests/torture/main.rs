//! Processes over one memory: a writer, and readers with read-only mappings. No value is torn, none goes backwards, none
//! is older than what was complete when the call began; also when the writer is killed at any moment and another goes
//! on.
//!
//! `SHMBUS_READS` says how many values are read in all, `SHMBUS_KILLS` how many writers are killed. `cargo xtask torture`
//! runs this with large numbers, in both builds of the copies.
#![cfg(not(miri))] // no processes there

mod counts;
mod kills;
mod observer;
mod process;
mod reads;
mod stamped;
mod transactions;

use std::env;

/// Sizes of slots in bytes, with their copies and their shares of the reads in percent. Slots of 16 and of 256 bytes have
/// two copies only: their readers are overtaken most easily.
const SIZE_CLASSES: [(u32, u32, u64); 8] = [
    (8, 4, 20),
    (16, 2, 20),
    (56, 4, 20),
    (64, 4, 20),
    (256, 2, 10),
    (1024, 4, 6),
    (2048, 8, 2),
    (4096, 4, 2),
];

/// How often a test does what it counts.
fn count_from(variable: &str, default: u64) -> u64 {
    match env::var(variable) {
        Ok(text) => text
            .parse()
            .unwrap_or_else(|_| panic!("{variable}={text} is not a number")),
        Err(_) => default,
    }
}
