//! The guest's side of its timers.

use shmbus_shm::{Notify, Window};
use shmbus_table::{Epoch, Generation, Header, TableError, TypedReadError};

use super::payload::{Deadline, Expiration};
use super::tables::{Read, Written, attach, newest, set_up};

/// A timer of this guest that fired.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fired {
    /// Which timer.
    pub slot: u32,
    /// What it was set to, in nanoseconds of the bus's monotonic clock.
    pub deadline_ns: u64,
    /// When the host fired it, by the same clock.
    pub fired_ns: u64,
}

/// What a driver has done so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DriverCounters {
    /// Deadlines written.
    pub set: u64,
    /// Those of them that took the place of one that had not been seen to fire.
    pub superseded: u64,
    /// Calls that changed nothing, and wrote nothing.
    pub unchanged: u64,
    /// Timers switched off.
    pub cancelled: u64,
    /// Expirations that answered the newest deadline.
    pub fired: u64,
    /// Expirations that answered an older one.
    pub discarded: u64,
}

/// The device broke the rules. The driver reports it until it is moved to other tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TimerFault {
    /// The host's table of expirations is none, or not for as many timers.
    #[error("the table of expirations: {0}")]
    NoTable(TableError),
    /// An expiration could not be read.
    #[error("the expiration of timer {slot}: {error}")]
    Unreadable {
        /// Which timer.
        slot: u32,
        /// What was wrong.
        error: TypedReadError,
    },
    /// A timer fired before its time, or claims another deadline than the one it answers.
    #[error(
        "timer {slot} was set to {expected_ns} ns, but fired for {deadline_ns} ns at {fired_ns} ns"
    )]
    FalseExpiration {
        /// Which timer.
        slot: u32,
        /// What it was set to.
        expected_ns: u64,
        /// What the expiration claims.
        deadline_ns: u64,
        /// When it claims to have fired.
        fired_ns: u64,
    },
}

/// The guest's timers: a table of deadlines that it writes, a table of expirations that it reads.
///
/// A timer is a slot. Setting it again supersedes what it was set to; nothing is queued, and whatever the host answers
/// to the older deadline is discarded by its generation.
#[derive(Debug)]
pub struct TimerDriver<W: Window> {
    deadlines: Written<Deadline, W>,
    expirations: Expirations<W>,
    armed: Vec<Option<Armed>>,
    changed: Vec<u32>,
    counters: DriverCounters,
    fault: Option<TimerFault>,
}

/// The host's table, which is there once the device is activated.
#[derive(Debug)]
#[expect(
    clippy::large_enum_variant,
    reason = "a driver has one, and without it does nothing"
)]
enum Expirations<W: Window> {
    Awaited {
        window: W,
        /// The epoch of what an earlier life of the device left there.
        left_over: Option<Epoch>,
    },
    Attached(Read<Expiration, W>),
}

impl<W: Window> Expirations<W> {
    fn await_in(window: W) -> Self {
        let left_over = Header::read(&window).ok().map(|header| header.epoch);
        Self::Awaited { window, left_over }
    }

    /// The table, if it is there.
    fn attached(&mut self, timers: u32) -> Result<Option<&mut Read<Expiration, W>>, TableError> {
        if let Self::Awaited { window, left_over } = self {
            match Header::read(window) {
                Err(TableError::Magic { found: 0 }) => return Ok(None),
                Ok(header) if Some(header.epoch) == *left_over => return Ok(None),
                _ => *self = Self::Attached(attach(window.clone(), timers)?),
            }
        }
        match self {
            Self::Attached(table) => Ok(Some(table)),
            Self::Awaited { .. } => Ok(None),
        }
    }
}

#[derive(Clone, Copy, Debug)]
struct Armed {
    generation: Generation,
    deadline_ns: u64,
}

impl<W: Window> TimerDriver<W> {
    /// `timers` timers that are all off: sets up the table of deadlines in `deadlines`, this guest's memory. The host
    /// sets up the one in `expirations`, its own memory, when it is told that the driver is ready; what is there
    /// before is an earlier life's.
    ///
    /// # Errors
    ///
    /// [`TableError`]: the guest's memory does not hold so many timers.
    pub fn new(deadlines: W, expirations: W, timers: u32) -> Result<Self, TableError> {
        Ok(Self {
            expirations: Expirations::await_in(expirations),
            deadlines: set_up(deadlines, timers)?,
            armed: vec![None; timers as usize],
            changed: Vec::with_capacity(timers as usize),
            counters: DriverCounters::default(),
            fault: None,
        })
    }

    /// How many timers there are.
    pub fn timers(&self) -> u32 {
        self.deadlines.table().layout().slots()
    }

    /// What has been done so far.
    pub fn counters(&self) -> DriverCounters {
        self.counters
    }

    /// What timer `slot` is set to, if it is armed and has not been seen to fire.
    pub fn deadline_ns(&self, slot: u32) -> Option<u64> {
        Some(self.armed.get(slot as usize)?.as_ref()?.deadline_ns)
    }

    /// Arms timer `slot` for `deadline_ns` of the bus's monotonic clock, instead of what it was set to.
    ///
    /// Costs a comparison if it is set to that already, so that a network stack may say after every poll when it wants
    /// the next one.
    ///
    /// # Errors
    ///
    /// [`TableError`]; the timer keeps its deadline.
    #[inline]
    pub fn set(&mut self, slot: u32, deadline_ns: u64) -> Result<Notify, TableError> {
        let slots = self.timers();
        let armed = self
            .armed
            .get_mut(slot as usize)
            .ok_or(TableError::NoSuchSlot { slot, slots })?;
        if armed.is_some_and(|armed| armed.deadline_ns == deadline_ns) {
            self.counters.unchanged += 1;
            return Ok(Notify::No);
        }
        let (generation, notify) = self.deadlines.publish(slot, &Deadline::At(deadline_ns))?;
        self.counters.set += 1;
        self.counters.superseded += u64::from(armed.is_some());
        *armed = Some(Armed {
            generation,
            deadline_ns,
        });
        Ok(notify)
    }

    /// Switches timer `slot` off; an expiration that is under way will be discarded.
    ///
    /// # Errors
    ///
    /// [`TableError`]; the timer stays armed.
    pub fn cancel(&mut self, slot: u32) -> Result<Notify, TableError> {
        let slots = self.timers();
        let armed = self
            .armed
            .get_mut(slot as usize)
            .ok_or(TableError::NoSuchSlot { slot, slots })?;
        if armed.is_none() {
            self.counters.unchanged += 1;
            return Ok(Notify::No);
        }
        let (_, notify) = self.deadlines.publish(slot, &Deadline::Cancelled)?;
        self.counters.cancelled += 1;
        *armed = None;
        Ok(notify)
    }

    /// Reports the timers that have fired since the last call; one load if there are none.
    ///
    /// # Errors
    ///
    /// [`TimerFault`], from then on: the device is not believed any more. What was reported before stands.
    pub fn poll(&mut self, mut fired: impl FnMut(Fired)) -> Result<(), TimerFault> {
        if let Some(fault) = self.fault {
            return Err(fault);
        }
        let outcome = self.poll_table(&mut fired);
        self.fault = outcome.err();
        outcome
    }

    fn poll_table(&mut self, fired: &mut impl FnMut(Fired)) -> Result<(), TimerFault> {
        let timers = self.deadlines.table().layout().slots();
        let Some(table) = self
            .expirations
            .attached(timers)
            .map_err(TimerFault::NoTable)?
        else {
            return Ok(());
        };
        let changed = &mut self.changed;
        changed.clear();
        table.changed(|slot, _| changed.push(slot));
        for &slot in &self.changed {
            let newest =
                newest(table, slot).map_err(|error| TimerFault::Unreadable { slot, error })?;
            let Some((expiration, _)) = newest else {
                continue;
            };
            let Some(armed) = self.armed.get_mut(slot as usize) else {
                continue;
            };
            let Some(current) = armed.filter(|armed| armed.generation == expiration.answers) else {
                self.counters.discarded += 1;
                continue;
            };
            if expiration.deadline_ns != current.deadline_ns
                || expiration.fired_ns < current.deadline_ns
            {
                return Err(TimerFault::FalseExpiration {
                    slot,
                    expected_ns: current.deadline_ns,
                    deadline_ns: expiration.deadline_ns,
                    fired_ns: expiration.fired_ns,
                });
            }
            *armed = None;
            self.counters.fired += 1;
            fired(Fired {
                slot,
                deadline_ns: expiration.deadline_ns,
                fired_ns: expiration.fired_ns,
            });
        }
        Ok(())
    }

    /// Goes on in other memory, after the host or the connection to it was restarted: every timer that is armed is set
    /// again there. Clears a fault.
    ///
    /// # Errors
    ///
    /// As for [`TimerDriver::new`]. The driver stays with the old memory, or, if a deadline cannot be written, must be
    /// moved again.
    pub fn move_to(&mut self, deadlines: W, expirations: W) -> Result<Notify, TableError> {
        let moved = Self::new(deadlines, expirations, self.timers())?;
        self.deadlines = moved.deadlines;
        self.expirations = moved.expirations;
        self.fault = None;
        let mut notify = Notify::No;
        for (slot, armed) in (0..).zip(&mut self.armed) {
            let Some(armed) = armed else { continue };
            let (generation, decision) = self
                .deadlines
                .publish(slot, &Deadline::At(armed.deadline_ns))?;
            armed.generation = generation;
            notify = notify.or(decision);
        }
        Ok(notify)
    }
}
