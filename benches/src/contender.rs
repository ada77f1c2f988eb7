//! What is compared, and the order in which it runs.

use std::error::Error;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::Session;

/// Why a comparison cannot be set up on this machine.
pub type SetUpError = Box<dyn Error>;

/// Something that does an operation many times.
pub struct Contender {
    /// `shmbus`, or the peer's crate.
    pub name: &'static str,
    /// Does that many operations and says how long they took.
    pub run: Box<dyn FnMut(u64) -> Duration>,
    /// How often its sides have notified each other so far.
    pub notifications: Arc<AtomicU64>,
    /// How many of its reads have given no value so far: the writer was faster, or starved it.
    pub misses: Arc<AtomicU64>,
    /// How many operations a repetition has. If nothing is said, as many as fill a millisecond.
    pub operations: Option<u64>,
}

/// What one operation costs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Deserialize, Serialize)]
pub struct Cost {
    /// Nanoseconds.
    pub ns: f64,
    /// Notifications between the two sides.
    pub notifications: f64,
    /// Reads that gave no value.
    pub misses: f64,
}

impl Contender {
    /// A contender by its name.
    pub fn new(name: &'static str, run: impl FnMut(u64) -> Duration + 'static) -> Self {
        Self {
            name,
            run: Box::new(run),
            notifications: Arc::default(),
            misses: Arc::default(),
            operations: None,
        }
    }

    /// The cost of one operation, over so many.
    fn measure(&mut self, operations: u64) -> Cost {
        let so_far = |contender: &Self| {
            [&contender.notifications, &contender.misses].map(|count| count.load(Relaxed))
        };
        let before = so_far(self);
        let took = (self.run)(operations);
        let [notifications, misses] = so_far(self);
        let each = |count: u64| count as f64 / operations as f64;
        Cost {
            ns: took.as_nanos() as f64 / operations as f64,
            notifications: each(notifications - before[0]),
            misses: each(misses - before[1]),
        }
    }

    /// How many operations fill a repetition; running them warms caches and branch predictors up.
    fn calibrate(&mut self) -> u64 {
        if let Some(operations) = self.operations {
            let _ = (self.run)(operations);
            return operations;
        }
        let mut operations = 64;
        while (self.run)(operations) < REPETITION && operations < 1 << 32 {
            operations *= 2;
        }
        operations
    }
}

/// Contenders for the same work: ours first, then its peers.
pub struct Comparison {
    /// Such as `split/device`.
    pub name: String,
    /// What one operation is, and where the contenders differ.
    pub about: &'static str,
    /// Sets the contenders up; the calling thread is the one that runs them.
    pub set_up: SetUp,
    /// The part of a process of its own beside a contender, by that one's name.
    pub companion: Option<CompanionWork>,
}

type SetUp = Box<dyn Fn() -> Result<Vec<Contender>, SetUpError>>;
type CompanionWork = Box<dyn Fn(Session) -> Result<(), SetUpError>>;

impl Comparison {
    /// A comparison by its name.
    pub fn new(
        name: impl Into<String>,
        about: &'static str,
        set_up: impl Fn() -> Result<Vec<Contender>, SetUpError> + 'static,
    ) -> Self {
        Self {
            name: name.into(),
            about,
            set_up: Box::new(set_up),
            companion: None,
        }
    }

    /// The same, with contenders that have a [`Companion`](crate::Companion): what that process does.
    pub fn with_companions(
        self,
        work: impl Fn(Session) -> Result<(), SetUpError> + 'static,
    ) -> Self {
        Self {
            companion: Some(Box::new(work)),
            ..self
        }
    }
}

/// Long enough for the clock and for waking a partner, short enough that a machine's drift hits all contenders alike.
const REPETITION: Duration = Duration::from_millis(1);

/// The cost of an operation of each contender in turn, `repetitions` times. The order rotates, so that nobody always
/// runs behind the same other.
pub fn interleave(contenders: &mut [Contender], repetitions: usize) -> Vec<Vec<Cost>> {
    let operations: Vec<u64> = contenders.iter_mut().map(Contender::calibrate).collect();
    let mut rows = Vec::with_capacity(repetitions);
    for repetition in 0..repetitions {
        let mut row = vec![Cost::default(); contenders.len()];
        for place in 0..contenders.len() {
            let index = (place + repetition) % contenders.len();
            row[index] = contenders[index].measure(operations[index]);
        }
        rows.push(row);
    }
    rows
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everybody_runs_in_each_repetition() {
        let fixed = |ns: u64| move |operations| Duration::from_nanos(ns * operations);
        let mut contenders = [
            Contender::new("fast", fixed(10)),
            Contender::new("slow", fixed(30)),
        ];
        let rows = interleave(&mut contenders, 3);
        let ns = |row: &Vec<Cost>| row.iter().map(|cost| cost.ns).collect::<Vec<_>>();
        let rows: Vec<_> = rows.iter().map(ns).collect();
        assert_eq!(rows, vec![vec![10.0, 30.0]; 3]);
    }

    #[test]
    fn what_is_counted_while_calibrating_is_not_counted() {
        let mut contender = Contender::new("reader", |_| Duration::from_millis(2));
        let misses = contender.misses.clone();
        contender.operations = Some(8);
        contender.run = Box::new(move |operations| {
            misses.fetch_add(operations / 2, Relaxed);
            Duration::from_nanos(operations)
        });
        let rows = interleave(&mut [contender], 1);
        let cost = Cost {
            ns: 1.0,
            notifications: 0.0,
            misses: 0.5,
        };
        assert_eq!(rows, vec![vec![cost]]);
    }
}
