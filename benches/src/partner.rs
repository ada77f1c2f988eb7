//! A second thread on a processor of its own, for what goes from core to core.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock, mpsc};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

/// Two threads cannot run at the same time here.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("needs two processors, and this process may use {allowed}")]
pub struct TooFewProcessors {
    /// How many it may use.
    pub allowed: usize,
}

/// Keeps the calling thread on the first processor that this process may use.
///
/// # Errors
///
/// What the system call says.
pub fn pin_to_first_processor() -> io::Result<()> {
    match allowed_processors()?.first() {
        Some(first) => pin(*first),
        None => Ok(()),
    }
}

/// A thread that works beside the one that measures. It sleeps in between, so that the partners of several contenders
/// do not disturb each other.
pub struct Partner {
    orders: mpsc::Sender<u64>,
    ready: Arc<AtomicBool>,
    finished: mpsc::Receiver<()>,
    thread: JoinHandle<()>,
}

impl Partner {
    /// A partner on the second processor; the calling thread is kept on the first.
    ///
    /// # Errors
    ///
    /// [`TooFewProcessors`], or what the system calls say.
    pub fn spawn(
        mut work: impl FnMut(u64) + Send + 'static,
    ) -> Result<Self, Box<dyn std::error::Error>> {
        let [first, second] = two_processors()?;
        pin(first)?;
        let (orders, incoming) = mpsc::channel();
        let (outgoing, finished) = mpsc::channel();
        let ready = Arc::new(AtomicBool::new(false));
        let raise = ready.clone();
        let thread = thread::Builder::new()
            .name("partner".to_owned())
            .spawn(move || {
                // It starts where the calling thread is, which must not wait for it there without sleeping.
                if pin(second).is_err() || outgoing.send(()).is_err() {
                    return;
                }
                for operations in incoming {
                    raise.store(true, Ordering::Release);
                    work(operations);
                    if outgoing.send(()).is_err() {
                        return;
                    }
                }
            })?;
        finished.recv()?;
        Ok(Self {
            orders,
            ready,
            finished,
            thread,
        })
    }

    /// Lets the partner do its part of `operations` while `mine` runs here; how long `mine` took.
    ///
    /// # Panics
    ///
    /// If the partner panicked.
    pub fn beside(&self, operations: u64, mine: impl FnOnce()) -> Duration {
        self.ready.store(false, Ordering::Relaxed);
        assert!(self.orders.send(operations).is_ok(), "the partner is gone");
        while !self.ready.load(Ordering::Acquire) {
            assert!(!self.thread.is_finished(), "the partner is gone");
            std::hint::spin_loop();
        }
        let start = Instant::now();
        mine();
        let took = start.elapsed();
        assert!(self.finished.recv().is_ok(), "the partner is gone");
        took
    }
}

/// The processors that a measuring thread and its partner are kept on.
///
/// # Errors
///
/// [`TooFewProcessors`], or what the system call says.
pub fn two_processors() -> Result<[usize; 2], Box<dyn std::error::Error>> {
    match *allowed_processors()? {
        [first, second, ..] => Ok([first, second]),
        ref allowed => Err(Box::new(TooFewProcessors {
            allowed: allowed.len(),
        })),
    }
}

/// The processors that this process may use, as they were before the first thread was pinned.
fn allowed_processors() -> io::Result<&'static [usize]> {
    static ALLOWED: OnceLock<Vec<usize>> = OnceLock::new();
    let set = sched_getaffinity(None)?;
    Ok(ALLOWED.get_or_init(|| {
        (0..CpuSet::MAX_CPU)
            .filter(|cpu| set.is_set(*cpu))
            .collect()
    }))
}

pub(crate) fn pin(processor: usize) -> io::Result<()> {
    let mut set = CpuSet::new();
    set.set(processor);
    Ok(sched_setaffinity(None, &set)?)
}
