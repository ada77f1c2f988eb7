//! Tables and signals: who does what a line of `cargo xtask bench tables` compares.
//!
//! What shares memory between processes has its two sides in two processes: ours, iceoryx2's, eventfds. `triple_buffer`,
//! `seqlock` and `left-right` live in one process and have two threads there. A value counts when the reader has all of it
//! in memory of its own; a read that gives none is counted apart.

mod blackboard;
mod clock;
mod local;
mod notify;
mod one_way;
mod one_way_notify;
mod scan;
mod slot;
mod tail;
mod uncontended;
mod wakeup;

use std::thread;
use std::time::{Duration, Instant};

use shmbus_benches::Comparison;
use shmbus_devices::clock::{Counter, Ticks};

const OURS: &str = "shmbus";
const ICEORYX2: &str = "iceoryx2";
const TRIPLE_BUFFER: &str = "triple_buffer";
const SEQLOCK: &str = "seqlock";
const LEFT_RIGHT: &str = "left-right";

const HONEST: &str = "the other side makes no mistakes";

/// All that there is.
pub(crate) fn all() -> Vec<Comparison> {
    vec![
        one_way::comparison::<1>("oneway-8"),
        one_way::comparison::<8>("oneway-64"),
        one_way::comparison::<32>("oneway-256"),
        one_way::comparison::<512>("oneway-4096"),
        one_way_notify::comparison(),
        tail::comparison::<8>("p999-64"),
        tail::comparison::<32>("p999-256"),
        tail::comparison::<512>("p999-4096"),
        uncontended::writes(),
        uncontended::publications(),
        uncontended::reads(),
        notify::comparison(),
        wakeup::comparison(),
        scan::comparison("scan-clustered", scan::clustered),
        scan::comparison("scan-scattered", scan::scattered),
        clock::comparison(),
    ]
}

/// Writes values of one size.
trait Write {
    /// Publishes a value that begins with `first`.
    fn write(&mut self, first: u64);
}

/// Reads values of one size, all of it into memory of its own.
trait Read {
    /// The first word of the newest value; `None` if the read gave none.
    fn read(&mut self) -> Option<u64>;

    /// The same if there may be a newer value than the last: what to poll with.
    fn poll(&mut self) -> Option<u64> {
        self.read()
    }
}

/// What is too short for the clock is timed by the counter.
fn nanoseconds_of_a_tick(counter: &Counter) -> f64 {
    let (start, ticks) = (Instant::now(), counter.now());
    thread::sleep(Duration::from_millis(20));
    let ticks = counter.now() - ticks;
    start.elapsed().as_nanos() as f64 / ticks as f64
}
