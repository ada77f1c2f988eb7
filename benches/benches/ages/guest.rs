//! The guest: sets a timer at an offered rate.

use std::io;
use std::time::Duration;

use shmbus_devices::clock::monotonic_ns;
use shmbus_devices::lane::OutletError;
use shmbus_devices::timer::TimerDriver;
use shmbus_shm::Mapped;

use super::bell::{Bell, Ear};

/// How far ahead each deadline is: none comes while the benchmark runs, and it tells when it was set.
pub(crate) const AHEAD_NS: u64 = 3_600_000_000_000;

/// Below this a guest that waits spins: a sleep is not that exact.
const SHORTEST_SLEEP_NS: u64 = 200_000;

/// What a guest has done.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct GuestWork {
    /// Deadlines set.
    pub(crate) set: u64,
    /// Deadlines that were due to be set while a full ring held the guest back, and were left out.
    pub(crate) held_back: u64,
    /// Nanoseconds in the driver and in signalling; waiting for room is not among them.
    pub(crate) busy_ns: u64,
    /// Signals to the host.
    pub(crate) signals: u64,
}

/// Sets deadlines `interval_ns` apart for `run`.
pub(crate) fn work(
    driver: &mut TimerDriver<Mapped>,
    bell: &mut Bell,
    ear: &mut Ear,
    interval_ns: f64,
    run: Duration,
) -> io::Result<GuestWork> {
    let mut work = GuestWork::default();
    let start = monotonic_ns();
    let end = start + run.as_nanos() as u64;
    let mut turn = 0_u64;
    loop {
        turn += 1;
        let due = start + (turn as f64 * interval_ns) as u64;
        if due >= end {
            break;
        }
        wait_until(due, driver, bell)?;
        // What a deadline would be computed from: its age counts from here, also while the ring is full.
        let called_ns = monotonic_ns();
        let mut since = called_ns;
        let mut refused = false;
        loop {
            match driver.set(0, called_ns + AHEAD_NS) {
                Ok(notify) => {
                    bell.ring(notify)?;
                    break;
                }
                Err(OutletError::Full) => {
                    refused = true;
                    work.busy_ns += monotonic_ns() - since;
                    ear.wait(Some(Duration::from_millis(100)))?;
                    while ear.next_event().is_some() {}
                    since = monotonic_ns();
                    let notify = driver.poll(|_| {}).map_err(io::Error::other)?;
                    bell.ring(notify)?;
                }
                Err(error) => return Err(io::Error::other(error)),
            }
        }
        work.set += 1;
        let now = monotonic_ns();
        work.busy_ns += now - since;
        // A guest that was held back, or did not get to run, does not make up for it.
        let now_turn = ((now - start) as f64 / interval_ns) as u64;
        if now_turn > turn + 1 {
            work.held_back += u64::from(refused) * (now_turn - turn - 1);
            turn = now_turn - 1;
        }
    }
    work.signals = bell.rung();
    Ok(work)
}

/// Until then a guest that has a deadline to post looks for room by itself, which is the soonest that it can be found.
fn wait_until(due: u64, driver: &mut TimerDriver<Mapped>, bell: &mut Bell) -> io::Result<()> {
    loop {
        let left = due.saturating_sub(monotonic_ns());
        if left == 0 {
            return Ok(());
        }
        if driver.waiting() > 0 {
            let notify = driver.poll(|_| {}).map_err(io::Error::other)?;
            bell.ring(notify)?;
        } else if left > SHORTEST_SLEEP_NS {
            std::thread::sleep(Duration::from_nanos(left - SHORTEST_SLEEP_NS / 2));
        } else {
            std::hint::spin_loop();
        }
    }
}
