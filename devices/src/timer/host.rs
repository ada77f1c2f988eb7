//! The host's side: the timers of all guests, in one schedule.

use std::collections::{BTreeMap, VecDeque};

use core::ops::ControlFlow;

use shmbus_shm::{Notify, Window};
use shmbus_table::{Generation, Scan, TableError, TypedReadError};

use super::lateness::LatenessHistogram;
use super::payload::{Deadline, Expiration};
use super::schedule::{Schedule, TimerId};
use super::tables::{Read, Written, attach, newest, set_up};
use crate::SessionId;

/// What the host's timers have done so far, over all guests.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TimerCounters {
    /// Deadlines seen.
    pub set: u64,
    /// Deadlines that a newer one took the place of after they were seen. Those that were superseded before the host
    /// looked cost it nothing, and are counted by the guest's driver only.
    pub superseded: u64,
    /// Timers switched off.
    pub cancelled: u64,
    /// Expirations written.
    pub fired: u64,
    /// Deadlines that had passed when they were seen.
    pub already_past: u64,
}

/// Why a guest's timers are not served any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum GuestFault {
    /// A deadline could not be read.
    #[error("the deadline of timer {slot}: {error}")]
    Deadline {
        /// Which timer.
        slot: u32,
        /// What was wrong.
        error: TypedReadError,
    },
    /// An expiration could not be written.
    #[error("the expiration of timer {slot}: {error}")]
    Expiration {
        /// Which timer.
        slot: u32,
        /// What was wrong.
        error: TableError,
    },
}

/// A timer that fired, and whether its guest must be told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FiredFor {
    /// Whose timer.
    pub guest: SessionId,
    /// Which.
    pub slot: u32,
    /// Whether to signal the guest's table of expirations.
    pub notify: Notify,
}

/// Every guest's timers, without a clock of their own: time is what the caller says it is.
///
/// A deadline costs O(log n) in the number of *armed* timers when it is set and when it fires; timers that are off cost
/// nothing, and finding what changed costs what changed. Each timer is scheduled at most once, however often its guest
/// sets it. A deadline that has passed is scheduled for the moment it is seen, so that a guest cannot get ahead of the
/// others by lying.
#[derive(Debug)]
pub struct Timers<W: Window> {
    /// Boxed: a node of the map has room for eleven, and most devices serve one or none.
    guests: BTreeMap<SessionId, Box<Guest<W>>>,
    schedule: Schedule,
    counters: TimerCounters,
    lateness: LatenessHistogram,
    /// Faults that nobody took yet, at most one a guest.
    faults: VecDeque<(SessionId, GuestFault)>,
}

#[derive(Debug)]
struct Guest<W: Window> {
    deadlines: Read<Deadline, W>,
    expirations: Written<Expiration, W>,
    timers: Vec<Timer>,
    /// Scratch for one look: slots whose deadline changed.
    changed: Vec<u32>,
    /// The last look stopped at its limit.
    paused: bool,
    faulted: bool,
}

#[derive(Clone, Copy, Debug, Default)]
struct Timer {
    /// The newest deadline's generation, whether it is armed, fired or cancelled: each is acted upon once.
    seen: Option<Generation>,
    armed: Option<Armed>,
}

#[derive(Clone, Copy, Debug)]
struct Armed {
    generation: Generation,
    deadline_ns: u64,
    /// The deadline, or when it was seen if that was later.
    due_ns: u64,
}

impl<W: Window> Default for Timers<W> {
    fn default() -> Self {
        Self {
            guests: BTreeMap::new(),
            schedule: Schedule::default(),
            counters: TimerCounters::default(),
            lateness: LatenessHistogram::default(),
            faults: VecDeque::new(),
        }
    }
}

impl<W: Window> Timers<W> {
    /// Serves a guest whose deadlines are in `deadlines`, the guest's memory, where its driver has set them up; replaces
    /// what was served for it before. Sets up the table in which it is told of expirations in `expirations`, the host's
    /// memory. Look for its deadlines then: it may have set some.
    ///
    /// # Errors
    ///
    /// [`TableError`]: the guest's table is none, or not for `timers` timers; or the host's memory does not hold so
    /// many.
    pub fn add_guest(
        &mut self,
        guest: SessionId,
        deadlines: W,
        expirations: W,
        timers: u32,
    ) -> Result<(), TableError> {
        let deadlines = attach(deadlines, timers)?;
        let expirations = set_up(expirations, timers)?;
        self.remove_guest(guest);
        self.guests.insert(
            guest,
            Box::new(Guest {
                deadlines,
                expirations,
                timers: vec![Timer::default(); timers as usize],
                changed: Vec::new(),
                paused: false,
                faulted: false,
            }),
        );
        Ok(())
    }

    /// Forgets a guest and its timers. Harmless for one that is not served.
    pub fn remove_guest(&mut self, guest: SessionId) {
        if let Some(mut removed) = self.guests.remove(&guest) {
            disarm_all(guest, &mut removed.timers, &mut self.schedule);
            self.faults.retain(|(faulted, _)| *faulted != guest);
        }
    }

    /// Takes in deadlines that a guest changed since the last look, at most `limit` (at least one); one load if there are none. Returns
    /// whether there may be more. Harmless for a guest that is not served.
    pub fn look(&mut self, guest: SessionId, now_ns: u64, limit: usize) -> bool {
        let Some(served) = self.guests.get_mut(&guest).filter(|served| !served.faulted) else {
            return false;
        };
        let changed = &mut served.changed;
        changed.clear();
        let scan = served.deadlines.scan(|slot, _| {
            changed.push(slot);
            if changed.len() < limit {
                ControlFlow::Continue(())
            } else {
                ControlFlow::Break(())
            }
        });
        for index in 0..served.changed.len() {
            let timer = TimerId {
                guest,
                slot: served.changed[index],
            };
            if let Err(fault) = served.adopt(timer, now_ns, &mut self.schedule, &mut self.counters)
            {
                self.latch(guest, fault);
                return false;
            }
        }
        // What changed behind the point where a scan was paused is found by the one after it.
        let resumed = core::mem::replace(&mut served.paused, scan == Scan::Paused);
        served.paused || resumed
    }

    /// When [`Timers::expire`] is to be called: the earliest deadline in nanoseconds, if any timer is armed.
    pub fn next_deadline_ns(&self) -> Option<u64> {
        self.schedule.first().map(|(due_ns, _)| due_ns)
    }

    /// Fires what is due at `now_ns`, at most `limit` timers, the earliest first. Returns whether more are due.
    ///
    /// Each deadline is looked at once more before it fires: one that was superseded meanwhile does not, even if the
    /// signal for that has not arrived.
    pub fn expire(&mut self, now_ns: u64, limit: usize, mut fired: impl FnMut(FiredFor)) -> bool {
        for _ in 0..limit {
            let Some((_, timer)) = self.schedule.pop_due(now_ns) else {
                return false;
            };
            let Some(served) = self.guests.get_mut(&timer.guest) else {
                continue;
            };
            match served.fire(timer, now_ns, &mut self.schedule, &mut self.counters) {
                Ok(Some((late_ns, notify))) => {
                    self.lateness.record(late_ns);
                    fired(FiredFor {
                        guest: timer.guest,
                        slot: timer.slot,
                        notify,
                    });
                }
                Ok(None) => {}
                Err(fault) => self.latch(timer.guest, fault),
            }
        }
        self.next_deadline_ns()
            .is_some_and(|due_ns| due_ns <= now_ns)
    }

    /// Takes the next guest that broke the rules, with the reason. Its timers are gone; it is served again after
    /// [`Timers::add_guest`].
    pub fn take_fault(&mut self) -> Option<(SessionId, GuestFault)> {
        self.faults.pop_front()
    }

    /// Stops serving a guest until it is added again.
    fn latch(&mut self, guest: SessionId, fault: GuestFault) {
        if let Some(served) = self.guests.get_mut(&guest) {
            served.faulted = true;
            disarm_all(guest, &mut served.timers, &mut self.schedule);
            self.faults.push_back((guest, fault));
        }
    }

    /// How many timers are armed.
    pub fn armed(&self) -> usize {
        self.schedule.len()
    }

    /// What has been done so far.
    pub fn counters(&self) -> TimerCounters {
        self.counters
    }

    /// How late timers fired: from the deadline, or from when it was seen if it had passed by then.
    pub fn lateness(&self) -> &LatenessHistogram {
        &self.lateness
    }
}

fn disarm_all(guest: SessionId, timers: &mut [Timer], schedule: &mut Schedule) {
    for (slot, timer) in (0..).zip(timers) {
        if let Some(armed) = timer.armed.take() {
            schedule.remove(armed.due_ns, TimerId { guest, slot });
        }
    }
}

impl<W: Window> Guest<W> {
    /// Acts on what the slot of `timer` says now, unless that was seen before.
    fn adopt(
        &mut self,
        timer: TimerId,
        now_ns: u64,
        schedule: &mut Schedule,
        counters: &mut TimerCounters,
    ) -> Result<(), GuestFault> {
        let newest =
            newest(&mut self.deadlines, timer.slot).map_err(|error| GuestFault::Deadline {
                slot: timer.slot,
                error,
            })?;
        let Some((deadline, generation)) = newest else {
            return Ok(());
        };
        let Some(state) = self.timers.get_mut(timer.slot as usize) else {
            return Ok(());
        };
        if state.seen == Some(generation) {
            return Ok(());
        }
        state.seen = Some(generation);
        let before = state.armed.take();
        if let Some(before) = before {
            schedule.remove(before.due_ns, timer);
        }
        match deadline {
            Deadline::At(deadline_ns) => {
                let due_ns = deadline_ns.max(now_ns);
                state.armed = Some(Armed {
                    generation,
                    deadline_ns,
                    due_ns,
                });
                schedule.insert(due_ns, timer);
                counters.set += 1;
                counters.superseded += u64::from(before.is_some());
                counters.already_past += u64::from(deadline_ns <= now_ns);
            }
            Deadline::Cancelled => counters.cancelled += 1,
        }
        Ok(())
    }

    /// Fires a timer that was taken off the schedule, unless its deadline has been superseded. Returns by how much it
    /// was late, and whether to signal.
    fn fire(
        &mut self,
        timer: TimerId,
        now_ns: u64,
        schedule: &mut Schedule,
        counters: &mut TimerCounters,
    ) -> Result<Option<(u64, Notify)>, GuestFault> {
        let Some(state) = self.timers.get(timer.slot as usize) else {
            return Ok(None);
        };
        let due = state.armed;
        self.adopt(timer, now_ns, schedule, counters)?;
        let Some(state) = self.timers.get_mut(timer.slot as usize) else {
            return Ok(None);
        };
        let (Some(due), Some(armed)) = (due, state.armed) else {
            return Ok(None);
        };
        if armed.generation != due.generation {
            return Ok(None);
        }
        state.armed = None;
        let expiration = Expiration {
            answers: armed.generation,
            deadline_ns: armed.deadline_ns,
            fired_ns: now_ns,
        };
        let (_, notify) = self
            .expirations
            .publish(timer.slot, &expiration)
            .map_err(|error| GuestFault::Expiration {
                slot: timer.slot,
                error,
            })?;
        counters.fired += 1;
        Ok(Some((now_ns.saturating_sub(armed.due_ns), notify)))
    }
}
