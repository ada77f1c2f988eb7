//! What is compared, and the order in which it runs.

use std::error::Error;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

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
}

impl Contender {
    /// A contender by its name.
    pub fn new(name: &'static str, run: impl FnMut(u64) -> Duration + 'static) -> Self {
        Self {
            name,
            run: Box::new(run),
            notifications: Arc::default(),
        }
    }

    /// Nanoseconds per operation.
    fn measure(&mut self, operations: u64) -> f64 {
        (self.run)(operations).as_nanos() as f64 / operations as f64
    }

    /// How many operations fill a repetition; running them warms caches and branch predictors up.
    fn calibrate(&mut self) -> u64 {
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
    pub set_up: Box<dyn Fn() -> Result<Vec<Contender>, SetUpError>>,
}

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
        }
    }
}

/// Long enough for the clock and for waking a partner, short enough that a machine's drift hits all contenders alike.
const REPETITION: Duration = Duration::from_millis(1);

/// Nanoseconds per operation of each contender in turn, `repetitions` times. The order rotates, so that nobody always
/// runs behind the same other.
pub fn interleave(contenders: &mut [Contender], repetitions: usize) -> Vec<Vec<f64>> {
    let operations: Vec<u64> = contenders.iter_mut().map(Contender::calibrate).collect();
    let mut rows = Vec::with_capacity(repetitions);
    for repetition in 0..repetitions {
        let mut row = vec![0.0; contenders.len()];
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
        assert_eq!(rows, vec![vec![10.0, 30.0]; 3]);
    }
}
