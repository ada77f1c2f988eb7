//! clock
mod counter;
mod discipline;
mod host;
mod sample;
mod table;
#[cfg(test)]
mod tests;
mod timeline;
mod transform;

pub use counter::{Counter, CounterDomain, Ticks};
pub use discipline::{CalibrationError, CounterPair, Discipline, DisciplineLimits};
pub use host::{HostClocks, SERVED, monotonic_ns, realtime_ns};
pub use sample::{ClockKind, ClockSample, ClockStatus, ExtrapolationError, Leap, Rate, Reading};
pub use table::{ClockError, ClockPublisher, ClockReader, clock_table};
pub use timeline::TimelineError;
pub use transform::{CounterTransform, TransformSource};
