//! The clocks in their table: the host's publishing, a guest's reading.

use core::fmt;

use shmbus_shm::slot::ReadError as SlotError;
use shmbus_shm::{Notify, Window};
use shmbus_table::{
    Epoch, LayoutError, ReadError, TableError, TableLayout, TypedReadError, TypedReader,
    TypedWriter, layout_of,
};

use super::counter::{Counter, CounterDomain, Ticks};
use super::host::HostClocks;
use super::sample::{ClockKind, ClockSample, Reading};
use super::timeline::{Timeline, TimelineError};
use super::transform::CounterTransform;

const SLOTS: u32 = ClockKind::ALL.len() as u32;

/// The layout of a table of clocks: a slot for each [`ClockKind`], at its number.
///
/// # Errors
///
/// [`LayoutError`]; none is expected, as the size is fixed.
pub fn clock_table() -> Result<TableLayout, LayoutError> {
    layout_of::<ClockSample>(SLOTS)
}

/// The host's side: its clocks, and the table that tells them to every guest.
#[derive(Debug)]
pub struct ClockPublisher<W: Window, C = Counter> {
    clocks: HostClocks<C>,
    table: TypedWriter<ClockSample, W, Vec<u64>>,
}

impl<W: Window, C: Ticks> ClockPublisher<W, C> {
    /// Sets up the table in `window`, and publishes each clock for the first time.
    ///
    /// # Errors
    ///
    /// [`TableError`]: the memory does not fit.
    pub fn new(window: W, clocks: HostClocks<C>) -> Result<Self, TableError> {
        let table = TypedWriter::create(window, SLOTS, Epoch::FIRST, vec![0; SLOTS as usize])?;
        let mut publisher = Self { clocks, table };
        let _ = publisher.publish()?;
        Ok(publisher)
    }

    /// Measures the clocks and publishes them. Ten to twenty times a second keep the bound small; a call costs a few
    /// microseconds.
    ///
    /// # Errors
    ///
    /// [`TableError::Publish`] once 2^48 samples have been published.
    pub fn publish(&mut self) -> Result<Notify, TableError> {
        let mut notify = Notify::No;
        for sample in self.clocks.measure() {
            let (_, decision) = self.table.publish(sample.clock.slot(), &sample)?;
            notify = notify.or(decision);
        }
        Ok(notify)
    }

    /// The clocks that are published.
    pub fn clocks(&self) -> &HostClocks<C> {
        &self.clocks
    }
}

/// The time could not be told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ClockError {
    /// The memory holds no table of clocks.
    #[error("no table of clocks: {0}")]
    Table(#[from] TableError),
    /// The slot gave no sample: the clock is not served, or its host broke the rules.
    #[error("the {clock} clock: {error}")]
    Slot {
        /// Which clock.
        clock: ClockKind,
        /// Why.
        error: TypedReadError,
    },
    /// The sample does not tell this reader the time.
    #[error("the {clock} clock: {error}")]
    Sample {
        /// Which clock.
        clock: ClockKind,
        /// Why.
        error: TimelineError,
    },
    /// The clocks count with a counter that this machine does not have.
    #[error("the clocks count with {0:?}, which this machine cannot read")]
    NoCounter(CounterDomain),
}

impl fmt::Display for ClockKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Utc => "UTC",
            Self::Tai => "TAI",
            Self::Monotonic => "monotonic",
        })
    }
}

/// A guest's side: tells the time from the last sample and the counter, without a system call or an exit.
#[derive(Debug)]
pub struct ClockReader<W: Window, C = Counter> {
    table: TypedReader<ClockSample, W, Vec<u64>>,
    counter: C,
    transform: CounterTransform,
    timelines: [Timeline; ClockKind::ALL.len()],
}

impl<W: Window> ClockReader<W> {
    /// A reader on the host's own processors, with the counter that the samples are taken with.
    ///
    /// # Errors
    ///
    /// [`ClockError`]; among them that no sample was published yet.
    pub fn local(window: W) -> Result<Self, ClockError> {
        // The counter is not known before the first sample: until then none is as good as any.
        let counter = Counter::monotonic_raw();
        let transform = CounterTransform::identity(CounterDomain::Invalid);
        let mut reader = Self::new(window, counter, transform)?;
        let domain = reader.sample(ClockKind::Monotonic)?.domain;
        reader.counter = Counter::of(domain).ok_or(ClockError::NoCounter(domain))?;
        reader.transform = CounterTransform::identity(domain);
        Ok(reader)
    }
}

impl<W: Window, C: Ticks> ClockReader<W, C> {
    /// A reader whose counter relates to the host's by `transform`.
    ///
    /// # Errors
    ///
    /// [`ClockError::Table`].
    pub fn new(window: W, counter: C, transform: CounterTransform) -> Result<Self, ClockError> {
        let storage = || vec![0; SLOTS as usize];
        Ok(Self {
            table: TypedReader::attach(window, storage(), storage())?,
            counter,
            transform,
            timelines: ClockKind::ALL.map(Timeline::new),
        })
    }

    /// What a clock shows now. Never less than at an earlier call, unless there was a disruption since.
    ///
    /// # Errors
    ///
    /// [`ClockError`]; a later call may succeed.
    #[inline]
    pub fn now(&mut self, clock: ClockKind) -> Result<Reading, ClockError> {
        let sample = self.sample(clock)?;
        // After the sample: the counter is read after every load before it.
        let counter = self.counter.now();
        self.timelines[clock.slot() as usize]
            .tell(&sample, &self.transform, counter)
            .map_err(|error| ClockError::Sample { clock, error })
    }

    /// The newest sample of a clock.
    ///
    /// # Errors
    ///
    /// [`ClockError::Slot`].
    #[inline]
    pub fn sample(&mut self, clock: ClockKind) -> Result<ClockSample, ClockError> {
        let outcome = match self.table.read(clock.slot()) {
            // Reported once; the new life's samples have a disruption marker of their own.
            Err(TypedReadError::Read(ReadError::Slot(SlotError::Restarted { .. }))) => {
                self.table.read(clock.slot())
            }
            outcome => outcome,
        };
        match outcome {
            Ok((sample, _)) => Ok(sample),
            Err(error) => Err(ClockError::Slot { clock, error }),
        }
    }

    /// Goes on with another transform: the VMM said so, or a better one was estimated.
    pub fn set_transform(&mut self, transform: CounterTransform) {
        self.transform = transform;
    }

    /// Goes over to a restarted host's memory.
    ///
    /// # Errors
    ///
    /// [`ClockError::Table`]; the reader then stays with the old memory.
    pub fn rebind(&mut self, window: W) -> Result<(), ClockError> {
        self.table.rebind(window)?;
        Ok(())
    }
}
