//! timer
mod alarm;
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
pub use schedule::GuestId;
