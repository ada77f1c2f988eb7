//! A clock device: "when the counter showed this, the time was that", in a table that every guest reads.
//!
//! The host measures its clocks against the processor's counter and publishes a [`ClockSample`] for each some twenty
//! times a second ([`ClockPublisher`]). A guest ([`ClockReader`]) reads the newest sample and its own counter, and
//! extrapolates: no exit, no system call, and no older sample can ever be seen after a newer one. Every time comes with
//! a bound on its error, with the sample's age, and with a marker that changes when time jumped.
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
//! # A guest's counter
//!
//! Where a guest's counter is not the host's, a [`CounterTransform`] leads from one to the other. The host tells each
//! guest whose driver is ready ([`ClockDriver`]) in a [`CounterNotice`]: that it is the same counter, what the VMM
//! programmed into the processor, or that it is unknown. In the last case the guest finds out by timed exchanges with a
//! bound that [`Estimator`] derives, and refuses to tell the time where that is larger than it was asked for.
//!
//! A reader keeps sample and transform as a line over its own counter, so any transform costs what none costs. It reads
//! its counter first, and looks *then* whether both are the newest: so a guest that was moved to another host in
//! between does not take the one's counter for the other's.
//!
//! # Disruptions
//!
//! [`Reading::disruption`] changes when a clock was set, when the host was restarted, and when the VMM says that this
//! guest was restored or migrated ([`ClockControl::disrupt`]). Each is signalled to guests whose driver is ready, on
//! the channel of the region [`device::role::NOTICES`], and counted once by [`ClockDriver::disruptions`]; samples are
//! not. That a clock was set is found by the next measurement, up to a twentieth of a second later.
//!
//! # Layout
//!
//! Tables and payloads are described in `docs/abi.md`: one table of clocks for all guests, with a slot of 56 bytes for
//! each [`ClockKind`] at its number, so that a copy with its sequence word fills one line; and for each guest a notice,
//! a question and an answer. A [`VmclockPage`] is a projection of one clock for readers of that ABI, with the
//! weaknesses of a plain sequence count.
//!
//! # What the bound covers
//!
//! The bound is against the host's own clock: the bracket in which it was read, the rate's uncertainty, what is being
//! slewed, and a wander of the clock's rate of up to 500 ppm, which is what Linux lets a time daemon correct. A daemon
//! that steers harder (by changing the kernel's tick) breaks the assumption; the next measurement finds that, and says
//! so by the disruption marker. Where the guest's counter was estimated, the estimate's bound is added, which assumes
//! that the two counters' ratio stays within [`EstimateLimits::wander_ppb`] of its average. A local guest in another
//! time namespace reads the host's monotonic clock, not its own.

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
pub mod twin;
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
