//! Waiting in a task of a tokio runtime, which must have its I/O driver enabled.
//!
//! A task awaits [`AsyncSignalSet::wait`] where a thread blocks in [`SignalSet::wait`], or [`AsyncWaiter::wait`] for a
//! single doorbell. Both may be cancelled at any point (in a `select!`, by a time limit): what was raised or rung meanwhile is
//! found by the next wait. Neither spins.
//!
//! ```
//! use shmbus_shm::heap;
//! use shmbus_signal::Priority;
//! use shmbus_signal::os::tokio::AsyncSignalSet;
//! use shmbus_signal::os::{self, Event, SignalSet};
//! use shmbus_signal::suppress::{DoorbellLayout, Receiver, Sender};
//!
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let layout = DoorbellLayout::new(2_000)?;
//! let senders = heap(layout.tree_bytes());
//! let receivers = heap(DoorbellLayout::ARMED_BYTES);
//! let mut sender = Sender::new(&senders, &receivers, layout)?;
//! let receiver = Receiver::new(&senders, &receivers, layout, vec![0; 2_000])?;
//! let (notifier, waiter) = os::doorbell()?;
//! let mut set = SignalSet::new()?;
//! set.add_doorbell(receiver, waiter, Priority::HIGHEST)?;
//! let mut set = AsyncSignalSet::new(set)?;
//!
//! tokio::spawn(async move {
//!     if sender.raise(1_234).unwrap().is_needed() {
//!         notifier.notify().unwrap();
//!     }
//! });
//! set.wait().await?;
//! let event = set.get_mut().next_event();
//! assert!(matches!(event, Some(Event::Raised { channel: 1_234, .. })));
//! # Ok(())
//! # }
//! # if cfg!(miri) { return } // it knows none of these system calls
//! # let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build().unwrap();
//! # runtime.block_on(example()).unwrap();
//! ```

use std::io;
use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::retry_on_intr;
use shmbus_shm::{Mapped, Window};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::task::consume_budget;

use super::{SignalSet, Waiter};
use crate::suppress::Arm;

/// tokio asks for descriptors by number. What is in here owns its descriptor and keeps it for as long as it lives.
#[derive(Debug)]
struct Numbered<T>(T);

impl<T: AsFd> AsRawFd for Numbered<T> {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_fd().as_raw_fd()
    }
}

#[allow(
    deprecated,
    reason = "its successor is unsafe, lest a type exchange its descriptor; `Numbered` does not"
)]
fn register<T: AsFd>(inner: T) -> io::Result<AsyncFd<Numbered<T>>> {
    AsyncFd::with_interest(Numbered(inner), Interest::READABLE)
}

/// A doorbell that a task waits for.
#[derive(Debug)]
pub struct AsyncWaiter {
    waiter: AsyncFd<Numbered<Waiter>>,
}

impl AsyncWaiter {
    /// Registers the doorbell with the current runtime.
    ///
    /// # Errors
    ///
    /// Of `epoll_ctl(2)`.
    ///
    /// # Panics
    ///
    /// Outside a runtime, or in one without an I/O driver, as [`AsyncFd::new`] does.
    pub fn new(waiter: Waiter) -> io::Result<Self> {
        let waiter = register(waiter)?;
        Ok(Self { waiter })
    }

    /// Waits until the doorbell is rung, and silences it.
    ///
    /// # Errors
    ///
    /// Those of [`Waiter::drain`]; that the runtime is shutting down.
    pub async fn wait(&self) -> io::Result<()> {
        // Who rings without pause does not keep this task from giving way to others.
        consume_budget().await;
        while !self.waiter.get_ref().0.drain()? {
            // Cleared before the next look: a ring that comes in between is found by one or the other.
            self.waiter.readable().await?.clear_ready();
        }
        Ok(())
    }

    /// The doorbell alone, for a thread to wait for.
    pub fn into_inner(self) -> Waiter {
        self.waiter.into_inner().0
    }
}

/// A set that a task waits for.
#[derive(Debug)]
pub struct AsyncSignalSet<W = Mapped> {
    set: AsyncFd<Numbered<SignalSet<W>>>,
}

impl<W: Window> AsyncSignalSet<W> {
    /// Registers the set with the current runtime.
    ///
    /// # Errors
    ///
    /// Of `epoll_ctl(2)`.
    ///
    /// # Panics
    ///
    /// Outside a runtime, or in one without an I/O driver, as [`AsyncFd::new`] does.
    pub fn new(set: SignalSet<W>) -> io::Result<Self> {
        let set = register(set)?;
        Ok(Self { set })
    }

    /// Waits until something is due, for [`SignalSet::next_event`] to hand out; as with [`SignalSet::wait`], it may
    /// find nothing then.
    ///
    /// # Errors
    ///
    /// Those of [`SignalSet::wait`]; that the runtime is shutting down.
    pub async fn wait(&mut self) -> io::Result<()> {
        // Who raises without pause does not keep this task from giving way to others.
        consume_budget().await;
        loop {
            let set = self.get_mut();
            if set.wait(Some(Duration::ZERO))? || set.arm() == Arm::Moved {
                return Ok(());
            }
            // The runtime is told of edges only. Of more than one look reports, it was told already.
            if !is_readable(set)? {
                self.set.readable_mut().await?.clear_ready();
            }
        }
    }

    /// The set, to take events out of, and to add and remove doorbells and descriptors.
    pub fn get_mut(&mut self) -> &mut SignalSet<W> {
        &mut self.set.get_mut().0
    }

    /// The set alone, for a thread to wait for.
    pub fn into_inner(self) -> SignalSet<W> {
        self.set.into_inner().0
    }
}

fn is_readable(fd: impl AsFd) -> io::Result<bool> {
    let mut fds = [PollFd::new(&fd, PollFlags::IN)];
    Ok(retry_on_intr(|| poll(&mut fds, Some(&Timespec::default())))? > 0)
}
