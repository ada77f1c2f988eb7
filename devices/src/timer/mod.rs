//! A timer device: "my deadline is X", then "my deadline is Y", and X is gone.
//!
//! A guest ([`TimerDriver`]) writes each timer's deadline into a slot of its own table; setting it again supersedes it,
//! and nothing is queued. The host ([`Timers`]) looks for deadlines that changed, keeps the armed ones in order, and has
//! one timer of the kernel ([`Alarm`]) for the earliest. When one is due it writes into a slot of *its* table that the
//! timer fired, and which generation of the deadline that answers; the guest discards an answer to an older deadline
//! than its last. Deadlines are in nanoseconds of the host's `CLOCK_MONOTONIC`, which the [`clock`](crate::clock) device
//! tells the guest.
//!
//! ```
//! use shmbus_devices::SessionId;
//! use shmbus_devices::timer::{Deadline, Expiration, TimerDriver, Timers};
//! use shmbus_shm::heap;
//! use shmbus_table::layout_of;
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let deadlines = heap(layout_of::<Deadline>(4)?.bytes()); // the guest's memory
//! let expirations = heap(layout_of::<Expiration>(4)?.bytes()); // the host's memory
//! let mut guest = TimerDriver::new(deadlines.clone(), expirations.clone(), 4)?;
//! let mut host = Timers::default();
//! host.add_guest(SessionId(1), deadlines, expirations, 4)?;
//!
//! let _ = guest.set(0, 100)?;
//! let _ = guest.set(0, 250)?; // only this one counts
//! host.look(SessionId(1), 50, 64); // at 50 ns the host hears of it
//! assert_eq!(host.next_deadline_ns(), Some(250));
//!
//! host.expire(251, 64, |fired| assert!(fired.notify.is_needed()));
//! guest.poll(|fired| assert_eq!((fired.deadline_ns, fired.fired_ns), (250, 251)))?;
//! assert_eq!(guest.deadline_ns(0), None);
//! # Ok(())
//! # }
//! ```
//!
//! # As the clock of a network stack
//!
//! A stack says after every poll when it wants the next one, mostly the same time as before:
//! [`TimerDriver::set`] then costs a comparison, and writes and signals nothing.
//!
//! # Layout
//!
//! Both tables have a slot for each timer. The table of deadlines is in the guest's memory: slots of 16 bytes, type id
//! the bytes `dead`. That of expirations is in the host's: slots of 24 bytes, type id the bytes `expi`. Words are 64
//! bits, little-endian:
//!
//! | deadline | meaning |
//! |---|---|
//! | 0 | 0 cancelled, 1 armed |
//! | 1 | the deadline in nanoseconds, when armed; else ignored |
//!
//! | expiration | meaning |
//! |---|---|
//! | 0 | generation of the deadline that is answered, as the slot's head has it |
//! | 1 | that deadline in nanoseconds |
//! | 2 | when it fired, in nanoseconds |
//!
//! Whoever sets a table up anew in the same memory does so under the next epoch, so that a generation never stands for
//! two deadlines. A driver sets up its table before it says that it is ready, the host its own after that; what the
//! driver finds in the host's memory before is an earlier life's.
//!
//! # Bounds
//!
//! Setting and firing cost O(log n) in the number of armed timers. A guest's timer is scheduled at most once, so memory
//! is bounded by the number of timers; a deadline that has passed is due when it is *seen*, so no guest overtakes another
//! by dating its deadlines back. A deadline or an expiration that breaks the rules cuts off its guest, or its host, until
//! the tables are set up anew.

mod alarm;
pub mod device;
mod driver;
mod host;
mod lateness;
mod payload;
mod schedule;
mod tables;
#[cfg(test)]
mod tests;

pub use alarm::Alarm;
pub use driver::{DriverCounters, Fired, TimerDriver, TimerFault};
pub use host::{FiredFor, GuestFault, TimerCounters, Timers};
pub use lateness::LatenessHistogram;
pub use payload::{Deadline, Expiration};
