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
//! use shmbus_devices::lane::Carrier;
//! use shmbus_devices::timer::{TimerDriver, TimerLanes, TimerOwner, Timers};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let lanes = TimerLanes::on_heap(Carrier::Table, 4)?; // the guest's memory and the host's, between processes
//! let mut guest = TimerDriver::new(lanes.clone(), 4)?;
//! let mut host = Timers::default();
//! let owner = TimerOwner { session: SessionId(1), vcpu: 0 };
//! host.add(owner, lanes, 4)?;
//!
//! let _ = guest.set(0, 100)?;
//! let _ = guest.set(0, 250)?; // only this one counts
//! host.look(owner, 50, 64); // at 50 ns the host hears of it
//! assert_eq!(host.next_deadline_ns(), Some(250));
//!
//! host.expire(251, 64, |_| {});
//! host.flush(|_, notify| assert!(notify.is_needed()));
//! let _ = guest.poll(|fired| assert_eq!((fired.deadline_ns, fired.fired_ns), (250, 251)))?;
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
//! # Virtual CPUs
//!
//! A table has one writer. So that the virtual CPUs of a guest set their timers without a lock between them, a device
//! has a pair of tables for each virtual CPU ([`device::TimerOptions::vcpus`]), with a channel each way of its own, and
//! the guest a [`TimerDriver`] for each: a driver is moved to the thread that runs the virtual CPU and stays there. All
//! of them are in one schedule behind one timer of the kernel, on the host's side.
//!
//! # Periodic timers and overruns
//!
//! A periodic timer fires again without being set again. Each expiration says how often the timer's time has come since
//! it was set, so one that supersedes another before the guest looked loses nothing: the driver reports how many times it
//! has not reported yet ([`Fired::overruns`]). The same count covers a host that is late by more than a period.
//!
//! # Over rings
//!
//! The device also comes as a twin over rings ([`lane`](crate::lane)), to be compared with. Its schedule, its checks and
//! its counters are this same code.
//!
//! # Layout
//!
//! Both tables have a slot for each timer. The table of deadlines is in the guest's memory: slots of 24 bytes, type id
//! the bytes `dead`. That of expirations is in the host's: slots of 32 bytes, type id the bytes `expi`. Words are 64
//! bits, little-endian:
//!
//! | deadline | meaning |
//! |---|---|
//! | 0 | 0 cancelled, 1 armed, 2 periodic |
//! | 1 | the (first) deadline in nanoseconds, unless cancelled; else ignored |
//! | 2 | the period in nanoseconds, when periodic; not zero |
//!
//! | expiration | meaning |
//! |---|---|
//! | 0 | generation of the deadline that is answered, as the slot's head has it |
//! | 1 | when it was due, in nanoseconds |
//! | 2 | when it fired, in nanoseconds |
//! | 3 | how often its time has come since it was set |
//!
//! Whoever sets a table up anew in the same memory does so under the next epoch, so that a generation never stands for
//! two deadlines. A driver sets up its table before it says that it is ready, the host its own after that; what the
//! driver finds in the host's memory before is an earlier life's.
//!
//! # Bounds
//!
//! Setting and firing cost O(log n) in the number of armed timers. A guest's timer is scheduled at most once, so memory
//! is bounded by the number of timers; a deadline that has passed is due when it is *seen*, so no guest overtakes another
//! by dating its deadlines back, and a periodic timer fires at most once in 50 us. A deadline or an expiration that breaks
//! the rules cuts off its guest, or its host, until the tables are set up anew.

mod alarm;
pub mod device;
mod driver;
mod host;
mod lanes;
mod lateness;
mod payload;
#[cfg(test)]
mod periodic_tests;
mod schedule;
#[cfg(test)]
mod tests;

pub use alarm::Alarm;
pub use driver::{DriverCounters, Fired, TimerDriver, TimerFault, TimerMoveError};
pub use host::{FiredFor, GuestFault, TimerCounters, Timers};
pub use lanes::TimerLanes;
pub use lateness::LatenessHistogram;
pub use payload::{Deadline, Expiration};
pub use schedule::TimerOwner;
