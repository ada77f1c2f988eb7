//! The guest's side of its timers.

use core::num::NonZeroU64;
use core::ops::ControlFlow;

use shmbus_shm::{Notify, Window};
use shmbus_table::Generation;

use super::TimerLanes;
use super::payload::{Deadline, Expiration};
use crate::lane::{Inlet, InletError, LaneError, Outlet, OutletError};

/// How often a call looks whether there are more expirations. A round takes as many as the ring has entries or the guest
/// timers, whichever is less; an honest host, whose timers fire when they were set, or once in 50 us, is soon done.
const MOST_ROUNDS: u32 = 1 << 16;

/// A timer of this guest that fired.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fired {
    /// Which timer.
    pub slot: u32,
    /// What it was set to, in nanoseconds of the bus's monotonic clock; of a periodic timer the last time that came.
    pub deadline_ns: u64,
    /// When the host fired it, by the same clock.
    pub fired_ns: u64,
    /// How many times of a periodic timer came besides since it was last reported.
    pub overruns: u64,
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
    /// Calls that a full ring refused.
    pub refused: u64,
    /// Timers switched off.
    pub cancelled: u64,
    /// Expirations that answered the newest deadline.
    pub fired: u64,
    /// Times of periodic timers that were reported with a later one.
    pub overruns: u64,
    /// Expirations that answered an older one.
    pub discarded: u64,
}

/// The device broke the rules. The driver reports it until it is moved to other lanes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TimerFault {
    /// An expiration could not be read.
    #[error("expirations: {0}")]
    Expirations(#[from] InletError),
    /// Deadlines that were kept back for room could not be sent.
    #[error("deadlines: {0}")]
    Deadlines(#[from] OutletError),
    /// The host sends expirations faster than timers can fire.
    #[error("the host keeps on sending expirations: {MOST_ROUNDS} rounds did not take them all")]
    Flood,
    /// A timer fired before its time, or claims another deadline than the one it answers.
    #[error(
        "timer {slot} was set to {expected_ns:?} ns, but fired {count} times for {deadline_ns} ns at {fired_ns} ns"
    )]
    FalseExpiration {
        /// Which timer.
        slot: u32,
        /// When it was due for the `count`th time; nothing if it never is so often.
        expected_ns: Option<u64>,
        /// The time that the expiration claims.
        deadline_ns: u64,
        /// When it claims to have fired.
        fired_ns: u64,
        /// How often it claims to have fired.
        count: u64,
    },
}

/// The timers of a guest, or of one of its virtual CPUs: deadlines go to the host, expirations come back.
///
/// A timer is a slot. Setting it again supersedes what it was set to, and whatever the host answers to the older
/// deadline is discarded by its generation. Over tables nothing is queued; what a twin over rings does instead, the
/// module [`lane`](crate::lane) says.
///
/// A driver is moved between threads, and not shared: each virtual CPU that sets timers has a driver of its own, over
/// memory of its own.
#[derive(Debug)]
pub struct TimerDriver<W: Window> {
    deadlines: Outlet<Deadline, W>,
    expirations: Inlet<Expiration, W>,
    armed: Vec<Option<Armed>>,
    counters: DriverCounters,
    fault: Option<TimerFault>,
}

#[derive(Clone, Copy, Debug)]
struct Armed {
    generation: Generation,
    deadline: Deadline,
    /// How often it was seen to fire.
    seen: u64,
}

impl<W: Window> TimerDriver<W> {
    /// `timers` timers that are all off: sets up the guest's part of `lanes`. The host sets up its own when it is told
    /// that the driver is ready; [`poll`](Self::poll) only after that.
    ///
    /// # Errors
    ///
    /// [`LaneError`]: the memory does not hold so many timers.
    pub fn new(lanes: TimerLanes<W>, timers: u32) -> Result<Self, LaneError> {
        Ok(Self {
            deadlines: Outlet::at_guest(lanes.deadlines, timers)?,
            expirations: Inlet::at_guest(lanes.expirations, timers)?,
            armed: vec![None; timers as usize],
            counters: DriverCounters::default(),
            fault: None,
        })
    }

    /// How many timers there are.
    pub fn timers(&self) -> u32 {
        self.deadlines.slots()
    }

    /// What has been done so far.
    pub fn counters(&self) -> DriverCounters {
        self.counters
    }

    /// How many timers' newest deadlines wait for room in a ring.
    pub fn waiting(&self) -> usize {
        self.deadlines.waiting()
    }

    /// When timer `slot` is to fire next, if it is armed and has not been seen to fire.
    pub fn deadline_ns(&self, slot: u32) -> Option<u64> {
        let armed = self.armed.get(slot as usize)?.as_ref()?;
        armed.deadline.nth_ns(armed.seen.checked_add(1)?)
    }

    /// Arms timer `slot` for `deadline_ns` of the bus's monotonic clock, instead of what it was set to.
    ///
    /// Costs a comparison if it is set to that already, so that a network stack may say after every poll when it wants
    /// the next one.
    ///
    /// # Errors
    ///
    /// [`OutletError`]; the timer keeps its deadline. After [`OutletError::Full`] wait for the host's signal, then
    /// [`poll`](Self::poll) and try again.
    #[inline]
    pub fn set(&mut self, slot: u32, deadline_ns: u64) -> Result<Notify, OutletError> {
        self.arm(slot, Deadline::At(deadline_ns))
    }

    /// Arms timer `slot` for `first_ns` of the bus's monotonic clock and every `period_ns` nanoseconds from then on,
    /// instead of what it was set to. It fires at most once in 50 us: what comes more often is reported as overruns.
    ///
    /// # Errors
    ///
    /// As for [`set`](Self::set).
    pub fn set_periodic(
        &mut self,
        slot: u32,
        first_ns: u64,
        period_ns: NonZeroU64,
    ) -> Result<Notify, OutletError> {
        let deadline = Deadline::Periodic {
            first_ns,
            period_ns,
        };
        self.arm(slot, deadline)
    }

    #[inline]
    fn arm(&mut self, slot: u32, deadline: Deadline) -> Result<Notify, OutletError> {
        let slots = self.timers();
        let armed = self
            .armed
            .get_mut(slot as usize)
            .ok_or(OutletError::NoSuchSlot { slot, slots })?;
        if armed.is_some_and(|armed| armed.deadline == deadline) {
            self.counters.unchanged += 1;
            return Ok(Notify::No);
        }
        let placed = self.deadlines.place(slot, deadline);
        self.counters.refused += u64::from(placed == Err(OutletError::Full));
        let generation = placed?;
        self.counters.set += 1;
        self.counters.superseded += u64::from(armed.is_some());
        *armed = Some(Armed {
            generation,
            deadline,
            seen: 0,
        });
        self.deadlines.flush()
    }

    /// Switches timer `slot` off; an expiration that is under way will be discarded.
    ///
    /// # Errors
    ///
    /// [`OutletError`]; the timer stays armed.
    pub fn cancel(&mut self, slot: u32) -> Result<Notify, OutletError> {
        let slots = self.timers();
        let armed = self
            .armed
            .get_mut(slot as usize)
            .ok_or(OutletError::NoSuchSlot { slot, slots })?;
        if armed.is_none() {
            self.counters.unchanged += 1;
            return Ok(Notify::No);
        }
        let placed = self.deadlines.place(slot, Deadline::Cancelled);
        self.counters.refused += u64::from(placed == Err(OutletError::Full));
        placed?;
        self.counters.cancelled += 1;
        *armed = None;
        self.deadlines.flush()
    }

    /// Reports the timers that have fired since the last call; one load if there are none. Says whether to tell the host:
    /// of buffers that were lent to it again, and of deadlines for which there was no room before. Over tables there
    /// are none.
    ///
    /// # Errors
    ///
    /// [`TimerFault`], from then on: the device is not believed any more. What was reported before stands.
    pub fn poll(&mut self, mut fired: impl FnMut(Fired)) -> Result<Notify, TimerFault> {
        if let Some(fault) = self.fault {
            return Err(fault);
        }
        let outcome = self.take_expirations(&mut fired).and_then(|()| {
            let returned = self.expirations.flush();
            let posted = self.deadlines.flush()?;
            Ok(posted.or(returned))
        });
        self.fault = outcome.err();
        outcome
    }

    fn take_expirations(&mut self, fired: &mut impl FnMut(Fired)) -> Result<(), TimerFault> {
        let Self {
            expirations,
            armed,
            counters,
            ..
        } = self;
        // Until there are none: only then does the host tell of the next one.
        for _ in 0..MOST_ROUNDS {
            let mut outcome = Ok(());
            let more = expirations.take(usize::MAX, |slot, expiration, _| {
                let Some(armed) = armed.get_mut(slot as usize) else {
                    return ControlFlow::Continue(());
                };
                match answer(armed, slot, expiration) {
                    Ok(Some(one)) => {
                        counters.fired += 1;
                        counters.overruns += one.overruns;
                        fired(one);
                    }
                    Ok(None) => counters.discarded += 1,
                    Err(fault) => {
                        outcome = Err(fault);
                        return ControlFlow::Break(());
                    }
                }
                ControlFlow::Continue(())
            })?;
            outcome?;
            if !more {
                return Ok(());
            }
        }
        Err(TimerFault::Flood)
    }

    /// Goes on over other lanes, after the host or the connection to it was restarted: every timer that is armed is set
    /// again there. Clears a fault.
    ///
    /// # Errors
    ///
    /// As for [`TimerDriver::new`] and [`TimerDriver::set`]. The driver stays with the old lanes, or, if a deadline
    /// cannot be written, must be moved again.
    pub fn move_to(&mut self, lanes: TimerLanes<W>) -> Result<Notify, TimerMoveError> {
        let moved = Self::new(lanes, self.timers())?;
        self.deadlines = moved.deadlines;
        self.expirations = moved.expirations;
        self.fault = None;
        for (slot, entry) in (0..).zip(&mut self.armed) {
            let Some(armed) = entry else { continue };
            // What was reported is not reported again.
            if let Deadline::Periodic { period_ns, .. } = armed.deadline
                && let Some(nth) = armed.seen.checked_add(1)
                && let Some(first_ns) = armed.deadline.nth_ns(nth)
            {
                armed.deadline = Deadline::Periodic {
                    first_ns,
                    period_ns,
                };
            }
            armed.seen = 0;
            armed.generation = self.deadlines.keep(slot, armed.deadline)?;
        }
        Ok(self.deadlines.flush()?)
    }
}

/// A driver cannot go on elsewhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TimerMoveError {
    /// The lanes are not what they must be.
    #[error(transparent)]
    Lane(#[from] LaneError),
    /// A timer could not be set again.
    #[error(transparent)]
    Set(#[from] OutletError),
}

/// What an expiration means to the timer that it names; nothing if it answers an older deadline, or was seen.
fn answer(
    entry: &mut Option<Armed>,
    slot: u32,
    expiration: Expiration,
) -> Result<Option<Fired>, TimerFault> {
    let Some(armed) = entry
        .as_mut()
        .filter(|armed| armed.generation == expiration.answers)
    else {
        return Ok(None);
    };
    let count = expiration.count.get();
    let expected_ns = armed.deadline.nth_ns(count);
    if expected_ns != Some(expiration.deadline_ns)
        || expiration.fired_ns < expiration.deadline_ns
        || count < armed.seen
    {
        return Err(TimerFault::FalseExpiration {
            slot,
            expected_ns,
            deadline_ns: expiration.deadline_ns,
            fired_ns: expiration.fired_ns,
            count,
        });
    }
    if count == armed.seen {
        return Ok(None);
    }
    let overruns = count - armed.seen - 1;
    armed.seen = count;
    if let Deadline::At(_) = armed.deadline {
        *entry = None;
    }
    Ok(Some(Fired {
        slot,
        deadline_ns: expiration.deadline_ns,
        fired_ns: expiration.fired_ns,
        overruns,
    }))
}
