//! The one host timer behind all deadlines.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::io::Errno;
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create,
    timerfd_settime,
};

/// A timer of the kernel on `CLOCK_MONOTONIC`; its descriptor becomes readable when the deadline has passed.
#[derive(Debug)]
pub struct Alarm {
    timer: OwnedFd,
    /// What the kernel's timer is set to: setting it to the same again costs nothing.
    armed_ns: Option<u64>,
}

impl Alarm {
    /// An alarm that is not set; nonblocking, and closed on exec.
    ///
    /// # Errors
    ///
    /// What the kernel answers: no descriptors or memory left.
    pub fn new() -> io::Result<Self> {
        Ok(Self {
            timer: timerfd_create(
                TimerfdClockId::Monotonic,
                TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC,
            )?,
            armed_ns: None,
        })
    }

    /// Sets the alarm to `deadline_ns` of `CLOCK_MONOTONIC`, or switches it off. A deadline that has passed fires at
    /// once.
    ///
    /// # Errors
    ///
    /// What the kernel answers; none is expected for a valid descriptor.
    pub fn set(&mut self, deadline_ns: Option<u64>) -> io::Result<()> {
        if self.armed_ns == deadline_ns {
            return Ok(());
        }
        const ZERO: Timespec = Timespec {
            tv_sec: 0,
            tv_nsec: 0,
        };
        // Zero would switch the kernel's timer off.
        let at = deadline_ns.map_or(ZERO, |ns| timespec(ns.max(1)));
        timerfd_settime(
            &self.timer,
            TimerfdTimerFlags::ABSTIME,
            &Itimerspec {
                it_interval: ZERO,
                it_value: at,
            },
        )?;
        self.armed_ns = deadline_ns;
        Ok(())
    }

    /// Takes the expiration off the descriptor, and returns whether there was one. The alarm is off then.
    ///
    /// # Errors
    ///
    /// What the kernel answers; none is expected for a valid descriptor.
    pub fn acknowledge(&mut self) -> io::Result<bool> {
        match rustix::io::read(&self.timer, &mut [0; 8]) {
            Ok(_) => {
                self.armed_ns = None;
                Ok(true)
            }
            Err(Errno::AGAIN) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }
}

impl AsFd for Alarm {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.timer.as_fd()
    }
}

/// The largest deadline is 584 years off, which fits.
fn timespec(ns: u64) -> Timespec {
    Timespec {
        tv_sec: (ns / 1_000_000_000) as i64,
        tv_nsec: (ns % 1_000_000_000) as _,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::monotonic_ns;

    fn readable(alarm: &Alarm, milliseconds: i64) -> bool {
        let mut poll = [rustix::event::PollFd::new(
            alarm,
            rustix::event::PollFlags::IN,
        )];
        let timeout = timespec(milliseconds as u64 * 1_000_000);
        rustix::event::poll(&mut poll, Some(&timeout)).unwrap() == 1
    }

    #[test]
    #[cfg_attr(miri, ignore = "timerfd")]
    fn fires_for_the_newest_deadline_only() {
        let mut alarm = Alarm::new().unwrap();
        assert!(!alarm.acknowledge().unwrap());

        alarm.set(Some(0)).unwrap();
        assert!(readable(&alarm, 10_000), "a deadline long past fires");
        assert!(alarm.acknowledge().unwrap());

        alarm.set(Some(u64::MAX)).unwrap();
        let soon = monotonic_ns() + 1_000_000;
        alarm.set(Some(soon)).unwrap();
        assert!(readable(&alarm, 10_000));
        assert!(monotonic_ns() >= soon, "not early");

        // Switched off, the expiration that nobody took is gone too.
        alarm.set(None).unwrap();
        assert!(!alarm.acknowledge().unwrap());
    }
}
