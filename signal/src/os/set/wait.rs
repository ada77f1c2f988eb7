//! Waiting: how a set notices, sleeps, and defends itself against rings without cause.

use std::io;
use std::mem::MaybeUninit;
use std::time::{Duration, Instant};

use rustix::event::epoll::{self, EventData};
use rustix::io::Errno;
use rustix::time::{Itimerspec, TimerfdTimerFlags, Timespec, timerfd_settime};
use shmbus_shm::Window;

use super::source::{Kind, Readiness, State, Token};
use super::{
    DOORBELL, NOTICE_BOUND, POLL_PERIOD, STORM_PERIOD, STORM_STRIKES, SignalSet, TICK, doorbell,
};
use crate::os::doorbell::timespec;
use crate::suppress::Arm;

/// As so many events counts a wait that finds work by polling and does not ask the kernel.
const UNLOOKED_WAIT: u32 = NOTICE_BOUND / 8;

/// How many descriptors one look at the kernel reports. The others keep their place there.
const EVENTS: usize = 64;

/// Rounds of spinning between two looks at the clock.
const ROUNDS_PER_CLOCK: u32 = 8;

impl<W: Window> SignalSet<W> {
    /// Waits until something is due: polls, spins for a while, arms, blocks (in whole milliseconds). Returns false if time is up (`None`:
    /// never) or a signal handler ran. With no time it only looks. After true, [`SignalSet::next_event`] may still find
    /// nothing: a dishonest peer can pretend that something was raised.
    ///
    /// # Errors
    ///
    /// Of `epoll_wait(2)`; none is expected.
    pub fn wait(&mut self, timeout: Option<Duration>) -> io::Result<bool> {
        self.is_promised = false;
        self.handed_out = 0;
        self.poll_awake();
        if self.is_pending() {
            return self.found();
        }
        if timeout == Some(Duration::ZERO) {
            self.collect(timeout)?;
            return Ok(self.is_pending());
        }
        let began = Instant::now();
        let deadline = timeout.and_then(|timeout| began.checked_add(timeout));
        if self.spin(began, deadline) {
            return self.found();
        }
        loop {
            if self.arm() == Arm::Moved {
                return self.found();
            }
            let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
            self.counts.blocked += 1;
            let was_interrupted = self.collect(left)?;
            self.poll_awake();
            if self.is_pending() {
                self.is_promised = false;
                self.spin.slept(began.elapsed());
                return Ok(true);
            }
            if was_interrupted || left == Some(Duration::ZERO) {
                self.is_promised = false;
                return Ok(false);
            }
        }
    }

    /// Something is due, of which the kernel need not have told. It is asked all the same, now and then.
    fn found(&mut self) -> io::Result<bool> {
        self.unlooked += UNLOOKED_WAIT;
        if self.unlooked >= NOTICE_BOUND {
            self.collect(Some(Duration::ZERO))?;
        }
        Ok(true)
    }

    /// Gets ready to sleep on [`SignalSet::as_fd`](std::os::fd::AsFd::as_fd), for a set that is nested in another poll. After [`Arm::Armed`] the
    /// descriptor becomes readable when something is due: call [`SignalSet::wait`] with no time then. Whatever is added
    /// meanwhile makes it readable too.
    ///
    /// ```text
    /// loop {
    ///     while set.wait(Some(Duration::ZERO))? { while let Some(event) = set.next_event() { .. } }
    ///     if set.arm() == Arm::Armed { poll on set.as_fd() and others }
    /// }
    /// ```
    pub fn arm(&mut self) -> Arm {
        self.handed_out = 0;
        let mut index = 0;
        while let Some(&key) = self.awake.get(index) {
            match doorbell(&mut self.sources, key) {
                Some(doorbell) if doorbell.state == State::Awake => {
                    if doorbell.receiver.arm() == Arm::Armed {
                        doorbell.state = State::Asleep;
                        self.awake.swap_remove(index);
                        continue;
                    }
                    self.queue(key);
                }
                // A muted one cannot ring. The tick wakes us in time to poll it.
                Some(doorbell) if !doorbell.receiver.is_idle() => self.queue(key),
                _ => {}
            }
            index += 1;
        }
        if self.is_pending() {
            return Arm::Moved;
        }
        if self.polled > 0 && !self.is_ticking {
            self.tick_after(POLL_PERIOD);
        }
        self.is_promised = true;
        Arm::Armed
    }

    /// Looks at the trees of the doorbells that do not ring: one load each.
    pub(super) fn poll_awake(&mut self) {
        for index in 0..self.awake.len() {
            let key = self.awake[index];
            if doorbell(&mut self.sources, key).is_some_and(|bell| !bell.receiver.is_idle()) {
                self.queue(key);
            }
        }
    }

    /// Looks at all doorbells' trees, also those that would ring, until one has moved or the budget is spent.
    fn spin(&mut self, began: Instant, deadline: Option<Instant>) -> bool {
        let mut until = began + self.spin.now();
        if let Some(deadline) = deadline {
            until = until.min(deadline);
        }
        if until <= began || self.sources.is_empty() {
            return false;
        }
        loop {
            for _ in 0..ROUNDS_PER_CLOCK {
                let moved = self.sources.iter().find(|(_, source)| {
                    matches!(&source.kind, Kind::Doorbell(bell) if !bell.receiver.is_idle())
                });
                if let Some((key, _)) = moved {
                    self.queue(key);
                    self.spin.paid();
                    self.counts.spun += 1;
                    return true;
                }
                std::hint::spin_loop();
            }
            if Instant::now() >= until {
                return false;
            }
        }
    }

    /// Asks the kernel what rang and what is ready, and queues it. Returns whether a signal handler interrupted it.
    pub(super) fn collect(&mut self, timeout: Option<Duration>) -> io::Result<bool> {
        self.unlooked = 0;
        let mut events = [const { MaybeUninit::uninit() }; EVENTS];
        let timeout = timespec(timeout);
        let events = match epoll::wait(&self.epoll, &mut events, timeout.as_ref()) {
            Ok((events, _)) => events,
            Err(Errno::INTR) => return Ok(true),
            Err(error) => return Err(error.into()),
        };
        for &mut epoll::Event { flags, data, .. } in events {
            if data.u64() == TICK {
                self.tick();
                continue;
            }
            let token = Token::from_u64(data.u64());
            let key = token.key as usize;
            let Some(source) = self.sources.get_mut(key) else {
                continue;
            };
            if source.serial != token.serial {
                continue;
            }
            match &mut source.kind {
                Kind::Descriptor(descriptor) => {
                    descriptor.readiness = descriptor.readiness.or(Readiness::from_flags(flags));
                    self.queue(key);
                }
                Kind::Doorbell(doorbell) if doorbell.receiver.is_idle() => self.strike(key),
                Kind::Doorbell(_) => self.queue(key),
            }
        }
        Ok(false)
    }

    /// A doorbell rang without cause. An armed one stays armed: its sender has not answered that.
    fn strike(&mut self, key: usize) {
        self.counts.spurious += 1;
        let Some(doorbell) = doorbell(&mut self.sources, key) else {
            return;
        };
        doorbell.strikes += 1;
        if doorbell.strikes < STORM_STRIKES {
            return;
        }
        // A failure leaves it as loud as it was; it is tried again at the next strike.
        let rung = doorbell.rung.as_ref();
        if rung.is_none_or(|rung| epoll::delete(&self.epoll, rung).is_err()) {
            return;
        }
        self.counts.muted += 1;
        if doorbell.state == State::Asleep {
            self.awake.push(key);
        }
        doorbell.state = State::Muted;
        if !self.is_ticking {
            self.tick_after(STORM_PERIOD);
        }
    }

    /// Listens to the muted doorbells again.
    fn tick(&mut self) {
        self.is_ticking = false;
        for index in 0..self.awake.len() {
            let key = self.awake[index];
            let Some(source) = self.sources.get_mut(key) else {
                continue;
            };
            let token = source.token(key);
            let Kind::Doorbell(doorbell) = &mut source.kind else {
                continue;
            };
            let Some(rung) = &doorbell.rung else {
                continue;
            };
            if doorbell.state != State::Muted {
                continue;
            }
            let data = EventData::new_u64(token.to_u64());
            if epoll::add(&self.epoll, rung, data, DOORBELL).is_ok() {
                doorbell.state = State::Awake;
                doorbell.strikes = 0;
            } else {
                self.tick_after(STORM_PERIOD);
            }
        }
    }

    pub(super) fn tick_after(&mut self, time: Duration) {
        let once = Itimerspec {
            it_interval: Timespec::default(),
            it_value: Timespec {
                tv_sec: 0,
                tv_nsec: i64::from(time.subsec_nanos()),
            },
        };
        // It fails for a bad descriptor or time only, and these are ours.
        let set = timerfd_settime(&self.timer, TimerfdTimerFlags::empty(), &once);
        self.is_ticking = set.is_ok();
    }
}
