//! A timer inside an epoll set: whoever waits for the set is woken in time for what is due.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::event::Timespec;
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, timerfd_create, timerfd_settime,
};

use super::socket::timespec;

/// A timer that is set to the earliest of what is due.
#[derive(Debug)]
pub(crate) struct Timer {
    fd: OwnedFd,
    due: Option<Instant>,
}

impl Timer {
    /// A timer that is not set.
    pub(crate) fn new() -> io::Result<Self> {
        let flags = TimerfdFlags::CLOEXEC | TimerfdFlags::NONBLOCK;
        let fd = timerfd_create(TimerfdClockId::Monotonic, flags)?;
        Ok(Self { fd, due: None })
    }

    /// Makes the descriptor readable at `due` at the latest.
    pub(crate) fn wake_by(&mut self, due: Instant, now: Instant) {
        if self.due.is_none_or(|earlier| due < earlier) {
            self.due = Some(due);
            // Zero would disarm.
            let left = due.saturating_duration_since(now);
            self.set(left.max(Duration::from_nanos(1)));
        }
    }

    /// The timer rang: it is set anew to what is due next, or silenced. There is nothing to read.
    pub(crate) fn restart(&mut self, due: Option<Instant>, now: Instant) {
        self.due = None;
        match due {
            Some(due) => self.wake_by(due, now),
            None => self.set(Duration::ZERO),
        }
    }

    fn set(&self, left: Duration) {
        let once = Itimerspec {
            it_interval: Timespec::default(),
            it_value: timespec(left),
        };
        if let Err(errno) = timerfd_settime(&self.fd, TimerfdTimerFlags::empty(), &once) {
            tracing::error!(%errno, "timerfd");
        }
    }
}

impl AsFd for Timer {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}
