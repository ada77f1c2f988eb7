//! timer
mod alarm;
mod lateness;
mod schedule;
pub use alarm::Alarm;
pub use lateness::LatenessHistogram;
