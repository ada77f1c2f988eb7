//! A clock device: "when the counter showed this, the time was that", in a table that every guest reads.
//!
//! The host measures its clocks against the processor's counter and publishes a [`ClockSample`] for each some twenty
//! times a second ([`ClockPublisher`]). A guest ([`ClockReader`]) reads the newest sample and its own counter, and
//! extrapolates: no exit, no system call, and no older sample can ever be seen after a newer one. Every time comes with
//! a bound on its error, with the sample's age, and with a marker that changes when time jumped. Where a guest's
//! counter is not the host's, a [`CounterTransform`] leads from one to the other.
//!
//! ```
//! use shmbus_devices::clock::{
//!     ClockKind, ClockPublisher, ClockReader, Counter, DisciplineLimits, HostClocks, clock_table,
//! };
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let window = shmbus_shm::heap(clock_table()?.bytes()); // a mapping, between processes
//! let clocks = HostClocks::calibrate(Counter::detect(), DisciplineLimits::default())?;
//! let mut host = ClockPublisher::new(window.clone(), clocks)?;
//! let mut guest = ClockReader::local(window)?;
//!
//! let first = guest.now(ClockKind::Monotonic)?;
//! let _ = host.publish()?; // from time to time
//! let second = guest.now(ClockKind::Monotonic)?;
//! assert!(second.time_ns >= first.time_ns);
//! println!("{} ns, give or take {} ns", second.time_ns, second.error_ns);
//! # Ok(())
//! # }
//! ```
//!
//! # Layout
//!
//! The table has three slots of 56 bytes, type id [`ClockSample::TYPE_ID`](shmbus_table::Value::TYPE_ID) (the bytes
//! `CLCK`), one for each [`ClockKind`] at its number: 0 UTC, 1 TAI, 2 monotonic. With its sequence word a copy fills one
//! line of 64 bytes. Words are 64 bits, little-endian:
//!
//! | word | bits | meaning |
//! |---|---|---|
//! | 0 | 0-7 | counter domain: 0 `CNTVCT_EL0`, 1 TSC, 0x80 `CLOCK_MONOTONIC_RAW`, 0xff none |
//! | 0 | 8-15 | clock: 0 UTC, 1 TAI, 2 monotonic |
//! | 0 | 16-23 | status: 0 unknown, 1 initializing, 2 synchronized, 3 free running, 4 unreliable |
//! | 0 | 24-31 | leap second: 0 none, 1 to 5 as in the VMClock ABI, 0xff unknown |
//! | 0 | 32-63 | growth of the bound in nanoseconds per second |
//! | 1 | | the counter's value, in the host's count |
//! | 2 | | the time at that value, in nanoseconds of the clock's epoch |
//! | 3 | | rate in nanoseconds per tick, 48 fractional bits; not zero |
//! | 4 | | bound on the error at that value, in nanoseconds either way |
//! | 5 | | disruption marker |
//! | 6 | | how far from that value the sample is valid, in nanoseconds |
//!
//! A counter transform is a slot of 32 bytes, type id [`CounterTransform::TYPE_ID`](shmbus_table::Value::TYPE_ID) (the
//! bytes `CTRF`), in a table of its own, because it belongs to a guest and the clocks belong to all:
//!
//! | word | bits | meaning |
//! |---|---|---|
//! | 0 | 0-7 | source: 0 invalid, 1 identity, 2 supplied, 3 estimated |
//! | 0 | 8-15 | the guest's counter domain |
//! | 0 | 16-23 | the host's counter domain |
//! | 1 | | scale, 48 fractional bits; not zero |
//! | 2 | | offset in ticks of the host's counter; wraps |
//! | 3 | | bound on the transform's error in nanoseconds either way |
//!
//! # What the bound covers
//!
//! The bound is against the host's own clock: the bracket in which it was read, the rate's uncertainty, what is being
//! slewed, and a wander of the clock's rate of up to 500 ppm, which is what Linux lets a time daemon correct. A daemon
//! that steers harder (by changing the kernel's tick) breaks the assumption; the next measurement finds that, and says
//! so by the disruption marker. A local guest in another time namespace reads the host's monotonic clock, not its own.

mod control;
mod counter;
pub mod device;
mod discipline;
mod driver;
mod estimate;
mod exchange;
mod host;
mod injected;
mod line;
mod reader;
mod sample;
mod table;
#[cfg(test)]
mod tests;
mod transform;
mod vmclock;

pub use control::ClockControl;
pub use counter::{Counter, CounterDomain, Ticks};
pub use discipline::{CalibrationError, CounterPair, Discipline, DisciplineLimits};
pub use driver::{ClockDriver, ClockTables, DriverError};
pub use estimate::{Estimate, EstimateError, EstimateLimits, Estimator, Exchange};
pub use exchange::{Answer, Question};
pub use host::{HostClocks, Samples, monotonic_ns, realtime_ns};
pub use injected::InjectedCounter;
pub use line::TimelineError;
pub use reader::{ClockError, ClockReader};
pub use sample::{ClockKind, ClockSample, ClockStatus, ExtrapolationError, Leap, Rate, Reading};
pub use table::{ClockPublisher, clock_table};
pub use transform::{CounterNotice, CounterTransform, TransformSource};
pub use vmclock::{VMCLOCK_BYTES, VmclockPage};
