//! A guest's driver of a clock device: the clocks, what the host says of the guest's counter, and what the guest finds
//! out where the host does not know.

use shmbus_shm::{Notify, Window};
use shmbus_table::{TableError, TypedReadError, TypedReader, TypedWriter};

use super::counter::{Counter, CounterDomain, Ticks};
use super::estimate::{EstimateError, EstimateLimits, Estimator, Exchange};
use super::exchange::{Answer, Question, attach, newest, set_up};
use super::reader::{ClockError, ClockReader};
use super::sample::{ClockKind, Reading};
use super::transform::{CounterTransform, TransformSource};

/// A driver cannot relate the guest's counter to the host's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DriverError {
    /// The clocks, or the host's word on the counter, cannot be read.
    #[error(transparent)]
    Clock(#[from] ClockError),
    /// The host's table of answers, or the guest's own of questions, cannot be used.
    #[error("the tables of questions and answers: {0}")]
    Table(#[from] TableError),
    /// An answer cannot be read.
    #[error("the answer: {0}")]
    Answer(TypedReadError),
    /// The answers of a burst do not make an estimate.
    #[error(transparent)]
    Estimate(#[from] EstimateError),
    /// None of a burst's questions was answered.
    #[error("the host answered none of the questions")]
    NoAnswer,
    /// There are estimates, but none as good as is asked for.
    #[error("the counter can be estimated to {error_ns} ns, and {max_error_ns} ns were asked for")]
    Bound {
        /// The bound that was reached, in nanoseconds either way.
        error_ns: u64,
        /// The largest one that is accepted.
        max_error_ns: u64,
    },
}

/// Reads the clocks, asks the host, and notices disruptions. `C` is the guest's counter.
#[derive(Debug)]
pub struct ClockDriver<W: Window, C = Counter> {
    reader: ClockReader<W, C>,
    questions: TypedWriter<Question, W, Vec<u64>>,
    answers: TypedReader<Answer, W, Vec<u64>>,
    asked: Option<Question>,
    /// The exchange that was answered last.
    exchange: Option<Exchange>,
    /// The narrowest exchange of the burst that is under way.
    narrowest: Option<Exchange>,
    estimator: Estimator,
    /// The counter's disruption marker under which it estimates.
    estimating: u64,
    /// How many disruptions were noticed.
    noticed: u64,
}

/// What a driver needs, and its table of questions, which must be there before the host is told that the driver is
/// ready.
#[derive(Debug)]
pub struct ClockTables<W: Window> {
    /// The clocks.
    pub clocks: W,
    /// The host's word on this guest's counter, and its answers: set up when it is told that the driver is ready.
    pub notices: W,
    /// See there.
    pub answers: W,
    questions: TypedWriter<Question, W, Vec<u64>>,
}

impl<W: Window> ClockTables<W> {
    /// Sets up the table of questions, in this guest's memory.
    ///
    /// # Errors
    ///
    /// [`TableError`].
    pub fn new(clocks: W, notices: W, answers: W, questions: W) -> Result<Self, TableError> {
        Ok(Self {
            clocks,
            notices,
            answers,
            questions: set_up(questions)?,
        })
    }
}

impl<W: Window> ClockTables<W> {
    /// The driver, once the host knows of it, over a counter of this machine: the one that the clocks count with, if it
    /// is there.
    ///
    /// # Errors
    ///
    /// [`DriverError`].
    pub fn attach(self, limits: EstimateLimits) -> Result<ClockDriver<W>, DriverError> {
        let transform = CounterTransform::identity(CounterDomain::Invalid);
        let mut probe = ClockReader::new(self.clocks.clone(), Counter::monotonic_raw(), transform)?;
        let domain = probe.sample(ClockKind::Monotonic)?.domain;
        let counter = Counter::of(domain).unwrap_or_else(Counter::detect);
        self.attach_with(counter, limits)
    }

    /// The same over any counter.
    ///
    /// # Errors
    ///
    /// [`DriverError`].
    pub fn attach_with<C: Ticks>(
        self,
        counter: C,
        limits: EstimateLimits,
    ) -> Result<ClockDriver<W, C>, DriverError> {
        let mut reader = ClockReader::noticing(self.clocks, self.notices, counter)?;
        let noticed = reader.notice()?.map_or(0, |notice| notice.disruptions);
        Ok(ClockDriver {
            reader,
            questions: self.questions,
            answers: attach(self.answers)?,
            asked: None,
            exchange: None,
            narrowest: None,
            estimator: Estimator::new(limits),
            estimating: 0,
            noticed,
        })
    }
}

impl<W: Window, C: Ticks> ClockDriver<W, C> {
    /// What a clock shows now, as [`ClockReader::now`] tells it.
    ///
    /// # Errors
    ///
    /// [`ClockError`].
    #[inline]
    pub fn now(&mut self, clock: ClockKind) -> Result<Reading, ClockError> {
        self.reader.now(clock)
    }

    /// The clocks' reader.
    pub fn reader(&mut self) -> &mut ClockReader<W, C> {
        &mut self.reader
    }

    /// How many disruptions, of this guest's counter or of a clock, the host has told of since the last call: each is
    /// counted once. The host signals the region of the notices with each.
    ///
    /// # Errors
    ///
    /// [`ClockError::Notice`].
    pub fn disruptions(&mut self) -> Result<u64, ClockError> {
        let Some(notice) = self.reader.notice()? else {
            return Ok(0);
        };
        let news = notice.disruptions.wrapping_sub(self.noticed);
        self.noticed = notice.disruptions;
        Ok(news)
    }

    /// Whether the host leaves it to this guest to find out how its counter relates to the host's.
    ///
    /// # Errors
    ///
    /// [`ClockError::Notice`].
    pub fn must_estimate(&mut self) -> Result<bool, ClockError> {
        let source = self.reader.notice()?.map(|notice| notice.transform.source);
        Ok(source == Some(TransformSource::Invalid))
    }

    /// Asks the host for its counter. The host must be signalled of the region of questions if the decision says so;
    /// then look for the [answer](ClockDriver::answered) until it is there.
    ///
    /// # Errors
    ///
    /// [`TableError`].
    pub fn ask(&mut self) -> Result<Notify, TableError> {
        // The question is what the counter said: the store cannot be made before that is known.
        let question = Question {
            sent: self.reader.counter().now(),
        };
        let (_, notify) = self.questions.publish(0, &question)?;
        self.asked = Some(question);
        Ok(notify)
    }

    /// Whether the question was answered. Answers to older ones are passed over.
    ///
    /// # Errors
    ///
    /// [`DriverError::Answer`].
    pub fn answered(&mut self) -> Result<bool, DriverError> {
        let Some(asked) = self.asked else {
            return Ok(false);
        };
        let answer = newest(&mut self.answers).map_err(DriverError::Answer)?;
        let Some(answer) = answer.filter(|answer| answer.to == asked) else {
            return Ok(false);
        };
        // Behind the load of the answer, as all readings of a counter are.
        let received = self.reader.counter().now();
        self.asked = None;
        let exchange = Exchange {
            sent: asked.sent,
            host: answer.host,
            received,
        };
        self.exchange = Some(exchange);
        if self
            .narrowest
            .is_none_or(|narrowest| exchange.width() < narrowest.width())
        {
            self.narrowest = Some(exchange);
        }
        Ok(true)
    }

    /// The exchange that was answered last: what the host's counter showed between two counts of this guest's. A check of an
    /// estimate wants one that was made after it.
    pub fn exchange(&self) -> Option<Exchange> {
        self.exchange
    }

    /// Ends a burst of exchanges: its narrowest one improves the estimate. Returns the bound that it has now, in
    /// nanoseconds either way. The first burst of all has nothing to be compared with, and gives
    /// [`EstimateError::TooFew`]; the second should follow some milliseconds later.
    ///
    /// # Errors
    ///
    /// [`DriverError`]. After [`DriverError::Bound`] another burst may do better; until then no time is told.
    pub fn conclude(&mut self) -> Result<u64, DriverError> {
        let marker = self.reader.notice()?.map_or(0, |notice| notice.disruption);
        if marker != self.estimating {
            self.estimator.forget();
            self.estimating = marker;
        }
        let exchange = self.narrowest.take().ok_or(DriverError::NoAnswer)?;
        let estimate = match self.estimator.observe(exchange) {
            Ok(estimate) => *estimate,
            Err(error) => {
                if matches!(error, EstimateError::Jumped { .. }) {
                    self.reader.counter_jumped();
                }
                return Err(error.into());
            }
        };
        let max_error_ns = self.estimator.limits().max_error_ns;
        self.reader.set_estimate(estimate, max_error_ns, marker);
        let rate = self.reader.sample(ClockKind::Monotonic)?.rate;
        let (_, ticks) = estimate.to_host(self.reader.counter().now());
        let error_ns = u64::try_from(rate.elapsed_ns(ticks) + 1).unwrap_or(u64::MAX);
        if error_ns > max_error_ns {
            return Err(DriverError::Bound {
                error_ns,
                max_error_ns,
            });
        }
        Ok(error_ns)
    }
}
