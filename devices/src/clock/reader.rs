//! A guest's reading of the clocks.

use core::fmt;

use shmbus_shm::Window;
use shmbus_shm::slot::ReadError as SlotError;
use shmbus_table::{ReadError, TableError, TypedReadError, TypedReader, Value};

use super::counter::{Counter, CounterDomain, Ticks};
use super::estimate::Estimate;
use super::line::{Mapping, Timeline, TimelineError};
use super::sample::{ClockKind, ClockSample, Reading};
use super::table::SLOTS;
use super::transform::{CounterNotice, CounterTransform, TransformSource};

/// How often a reading is begun anew because the sample or the transform changed meanwhile.
const TRIES: usize = 4;

/// The time could not be told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ClockError {
    /// The memory holds no table of clocks, or of notices.
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
    /// The host's word on this guest's counter cannot be read.
    #[error("the notice of the guest's counter: {0}")]
    Notice(TypedReadError),
    /// The sample does not tell this reader the time.
    #[error("the {clock} clock: {error}")]
    Sample {
        /// Which clock.
        clock: ClockKind,
        /// Why.
        error: TimelineError,
    },
    /// Sample or transform changed in each of several tries to read them beside the counter.
    #[error("the {clock} clock changed in each of {TRIES} tries to read it")]
    Unsettled {
        /// Which clock.
        clock: ClockKind,
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

/// A table of which the newest value is wanted.
type Table<V, W> = TypedReader<V, W, Vec<u64>>;

/// A slot's newest value. A writer that has restarted is reported once, and read on: what it publishes under its new
/// life has a disruption marker of its own.
#[inline]
fn newest<V: Value, W: Window>(table: &mut Table<V, W>, slot: u32) -> Result<V, TypedReadError> {
    let outcome = match table.read(slot) {
        Err(TypedReadError::Read(ReadError::Slot(SlotError::Restarted { .. }))) => table.read(slot),
        outcome => outcome,
    };
    outcome.map(|(value, _)| value)
}

/// What the host says of this guest's counter, from time to time.
#[derive(Debug)]
struct Notices<W: Window> {
    table: Table<CounterNotice, W>,
    newest: Option<CounterNotice>,
}

/// A guest's side: tells the time from the last sample and the counter, without a system call or an exit.
#[derive(Debug)]
pub struct ClockReader<W: Window, C = Counter> {
    table: Table<ClockSample, W>,
    counter: C,
    timelines: [Timeline; ClockKind::ALL.len()],
    /// What whoever made the reader said of its counter; with notices, the host says so.
    transform: CounterTransform,
    notices: Option<Notices<W>>,
    /// What the reader found out where the transform is invalid, with the largest bound that it accepts, and the
    /// counter's disruption marker when it did.
    estimate: Option<(Estimate, u64, u64)>,
    /// How often the reader found by itself that its counter had jumped.
    jumps: u64,
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
            timelines: ClockKind::ALL.map(Timeline::new),
            transform,
            notices: None,
            estimate: None,
            jumps: 0,
        })
    }

    /// A reader to whom the host says how its counter relates to the host's, in a table of one [`CounterNotice`].
    ///
    /// # Errors
    ///
    /// [`ClockError::Table`].
    pub fn noticing(window: W, notices: W, counter: C) -> Result<Self, ClockError> {
        let transform = CounterTransform::unknown(counter.domain(), CounterDomain::Invalid);
        let mut reader = Self::new(window, counter, transform)?;
        reader.notices = Some(Notices {
            table: TypedReader::attach(notices, vec![0], vec![0])?,
            newest: None,
        });
        Ok(reader)
    }

    /// What a clock shows now. Never less than at an earlier call, unless there was a disruption since.
    ///
    /// # Errors
    ///
    /// [`ClockError`]; a later call may succeed.
    #[inline]
    pub fn now(&mut self, clock: ClockKind) -> Result<Reading, ClockError> {
        // The counter first: what is found unchanged after that holds for it, also if the guest was moved to another
        // host in between, where the counter is another one.
        let counter = self.counter.now();
        if self.is_unchanged(clock)
            && let Some(reading) = self.timelines[clock.slot() as usize].glance(counter)
        {
            return Ok(reading);
        }
        self.now_exactly(clock)
    }

    /// Whether sample and notice are those that were read last: two loads each.
    #[inline(always)]
    fn is_unchanged(&self, clock: ClockKind) -> bool {
        self.table.is_unchanged(clock.slot())
            && match &self.notices {
                Some(notices) => notices.table.is_unchanged(0),
                None => true,
            }
    }

    #[inline(never)]
    fn now_exactly(&mut self, clock: ClockKind) -> Result<Reading, ClockError> {
        for _ in 0..TRIES {
            let (mapping, disruption) = self.mapping()?;
            let sample = self.sample(clock)?;
            // After both: the counter is read after every load before it.
            let counter = self.counter.now();
            if self.is_unchanged(clock) {
                return self.timelines[clock.slot() as usize]
                    .follow(&sample, &mapping, disruption, counter)
                    .map_err(|error| ClockError::Sample { clock, error });
            }
        }
        Err(ClockError::Unsettled { clock })
    }

    /// How the reader's counter relates to the host's, and the counter's disruption marker.
    fn mapping(&mut self) -> Result<(Mapping, u64), ClockError> {
        let (transform, disruption) = match self.notice()? {
            None => (self.transform, 0),
            Some(notice) => (notice.transform, notice.disruption),
        };
        let marker = disruption.wrapping_add(self.jumps);
        match self.estimate {
            Some((estimate, max_error_ns, under))
                if transform.source == TransformSource::Invalid && under == disruption =>
            {
                let transform = CounterTransform {
                    source: TransformSource::Estimated,
                    ..transform
                };
                let mapping = Mapping::Estimated {
                    estimate,
                    transform,
                    max_error_ns,
                };
                Ok((mapping, marker))
            }
            _ => Ok((Mapping::Told(transform), marker)),
        }
    }

    /// What the host says of this guest's counter; none if nobody is asked.
    ///
    /// # Errors
    ///
    /// [`ClockError::Notice`].
    pub fn notice(&mut self) -> Result<Option<CounterNotice>, ClockError> {
        let Some(notices) = &mut self.notices else {
            return Ok(None);
        };
        if let Some(notice) = notices.newest
            && notices.table.is_unchanged(0)
        {
            return Ok(Some(notice));
        }
        notices.newest = None;
        // Lines made with the old one do not hold, even where it cannot be read.
        for timeline in &mut self.timelines {
            timeline.begin_anew();
        }
        let notice = newest(&mut notices.table, 0).map_err(ClockError::Notice)?;
        notices.newest = Some(notice);
        Ok(Some(notice))
    }

    /// The newest sample of a clock.
    ///
    /// # Errors
    ///
    /// [`ClockError::Slot`].
    #[inline]
    pub fn sample(&mut self, clock: ClockKind) -> Result<ClockSample, ClockError> {
        let slot = clock.slot();
        let before = self.table.table().generation(slot);
        let outcome = newest(&mut self.table, slot);
        if self.table.table().generation(slot) != before {
            // A line made with the old one is not the newest any more.
            self.timelines[slot as usize].begin_anew();
        }
        outcome.map_err(|error| ClockError::Slot { clock, error })
    }

    /// The reader's counter.
    pub fn counter(&self) -> &C {
        &self.counter
    }

    /// Goes on with another transform: the VMM said so. Without effect on a reader to whom the host says so.
    pub fn set_transform(&mut self, transform: CounterTransform) {
        self.transform = transform;
        self.begin_lines_anew();
    }

    /// Goes on with what was estimated under the disruption marker `disruption`, as long as its bound is at most
    /// `max_error_ns`, the marker stays, and the host does not know better.
    pub fn set_estimate(&mut self, estimate: Estimate, max_error_ns: u64, disruption: u64) {
        self.estimate = Some((estimate, max_error_ns, disruption));
        self.begin_lines_anew();
    }

    /// The counter jumped, and nobody said so before the exchanges did: what was estimated is void, and the readings'
    /// disruption marker changes.
    pub(super) fn counter_jumped(&mut self) {
        self.estimate = None;
        self.jumps = self.jumps.wrapping_add(1);
        self.begin_lines_anew();
    }

    fn begin_lines_anew(&mut self) {
        for timeline in &mut self.timelines {
            timeline.begin_anew();
        }
    }

    /// Goes over to a restarted host's memory.
    ///
    /// # Errors
    ///
    /// [`ClockError::Table`]; the reader then stays with the old memory.
    pub fn rebind(&mut self, window: W) -> Result<(), ClockError> {
        self.table.rebind(window)?;
        self.begin_lines_anew();
        Ok(())
    }
}
