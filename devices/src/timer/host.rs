//! The host's side: the timers of all guests, in one schedule.

use std::collections::{BTreeMap, VecDeque};

use core::num::NonZeroU64;
use core::ops::ControlFlow;

use shmbus_shm::{Notify, Window};
use shmbus_table::Generation;

use super::TimerLanes;
use super::lateness::LatenessHistogram;
use super::payload::{Deadline, Expiration};
use super::schedule::{Schedule, TimerId, TimerOwner};
use crate::lane::{Inlet, InletError, LaneError, Outlet, OutletError};

/// A periodic timer fires no more often than this; the periods between are counted as overruns. A guest that asks for
/// one nanosecond would keep the host busy, and every other guest waiting.
const SHORTEST_PERIOD_NS: u64 = 50_000;

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
    /// Times of periodic timers that came before the one before had been fired for.
    pub overruns: u64,
    /// Deadlines that had passed when they were seen.
    pub already_past: u64,
}

/// Why an owner's timers are not served any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum GuestFault {
    /// A deadline could not be read.
    #[error("deadlines: {0}")]
    Deadlines(#[from] InletError),
    /// An expiration could not be written.
    #[error("expirations: {0}")]
    Expirations(#[from] OutletError),
}

/// A timer that fired.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FiredFor {
    /// Whose timer.
    pub owner: TimerOwner,
    /// Which.
    pub slot: u32,
}

/// Every guest's timers, without a clock of their own: time is what the caller says it is.
///
/// A deadline costs O(log n) in the number of *armed* timers when it is acted on and when it fires; timers that are off
/// cost nothing, and finding what changed costs what changed. Each timer is scheduled at most once, however often its
/// guest sets it. A deadline that has passed is scheduled for the moment it is seen, so that a guest cannot get ahead of
/// the others by lying.
///
/// [`look`](Self::look) and [`expire`](Self::expire) are batches; [`flush`](Self::flush) ends one, and says who must be
/// told.
#[derive(Debug)]
pub struct Timers<W: Window> {
    /// Boxed: a node of the map has room for eleven, and most devices serve one or none.
    owners: BTreeMap<TimerOwner, Box<Served<W>>>,
    schedule: Schedule,
    counters: TimerCounters,
    lateness: LatenessHistogram,
    /// Who may have something to be told of, each once in a row.
    touched: Vec<TimerOwner>,
    /// Faults that nobody took yet, at most one an owner.
    faults: VecDeque<(TimerOwner, GuestFault)>,
}

/// The timers of one owner.
#[derive(Debug)]
struct Served<W: Window> {
    deadlines: Inlet<Deadline, W>,
    expirations: Outlet<Expiration, W>,
    timers: Vec<Timer>,
    faulted: bool,
}

#[derive(Clone, Copy, Debug, Default)]
struct Timer {
    /// The newest deadline that was acted on.
    seen: Option<Generation>,
    armed: Option<Armed>,
}

#[derive(Clone, Copy, Debug)]
struct Armed {
    generation: Generation,
    deadline: Deadline,
    /// How often it has fired.
    count: u64,
    /// When it is due: not before it was seen.
    due_ns: u64,
}

impl<W: Window> Default for Timers<W> {
    fn default() -> Self {
        Self {
            owners: BTreeMap::new(),
            schedule: Schedule::default(),
            counters: TimerCounters::default(),
            lateness: LatenessHistogram::default(),
            touched: Vec::new(),
            faults: VecDeque::new(),
        }
    }
}

impl<W: Window> Timers<W> {
    /// Serves `timers` timers of an owner, whose driver has set up its part of `lanes`; replaces what was served for it
    /// before. Sets up the host's part. Look for its deadlines then: it may have set some.
    ///
    /// # Errors
    ///
    /// [`LaneError`]: the guest's table is none, or not for `timers` timers; or a memory does not fit.
    pub fn add(
        &mut self,
        owner: TimerOwner,
        lanes: TimerLanes<W>,
        timers: u32,
    ) -> Result<(), LaneError> {
        self.remove(owner);
        let deadlines = Inlet::at_host(lanes.deadlines, timers)?;
        let expirations = Outlet::at_host(lanes.expirations, timers)?;
        self.owners.insert(
            owner,
            Box::new(Served {
                deadlines,
                expirations,
                timers: vec![Timer::default(); timers as usize],
                faulted: false,
            }),
        );
        Ok(())
    }

    /// Forgets an owner and its timers. Harmless for one that is not served.
    pub fn remove(&mut self, owner: TimerOwner) {
        if let Some(mut removed) = self.owners.remove(&owner) {
            disarm_all(owner, &mut removed.timers, &mut self.schedule);
            removed.deadlines.close();
            removed.expirations.close();
            self.faults.retain(|(faulted, _)| *faulted != owner);
        }
    }

    /// Takes in deadlines that came from an owner since the last look, at most `limit` (at least one); one load if there
    /// are none. Returns whether there may be more. Harmless for an owner that is not served.
    pub fn look(&mut self, owner: TimerOwner, now_ns: u64, limit: usize) -> bool {
        let Some(served) = self.owners.get_mut(&owner).filter(|served| !served.faulted) else {
            return false;
        };
        if self.touched.last() != Some(&owner) {
            self.touched.push(owner);
        }
        let Self {
            schedule, counters, ..
        } = self;
        let timers = &mut served.timers;
        let taken = served.deadlines.take(limit, |slot, deadline, generation| {
            let timer = TimerId { owner, slot };
            adopt(
                timers, timer, deadline, generation, now_ns, schedule, counters,
            );
            ControlFlow::Continue(())
        });
        taken.unwrap_or_else(|fault| {
            self.latch(owner, fault.into());
            false
        })
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
            let TimerId { owner, slot } = timer;
            let Some(served) = self.owners.get_mut(&owner) else {
                continue;
            };
            if self.touched.last() != Some(&owner) {
                self.touched.push(owner);
            }
            match served.fire(timer, now_ns, &mut self.schedule, &mut self.counters) {
                Ok(Some(late_ns)) => {
                    self.lateness.record(late_ns);
                    fired(FiredFor { owner, slot });
                }
                Ok(None) => {}
                Err(fault) => self.latch(owner, fault),
            }
        }
        self.next_deadline_ns()
            .is_some_and(|due_ns| due_ns <= now_ns)
    }

    /// Ends a batch of looks and expirations: shows the guests what came of it, and tells for each owner whether it must
    /// be signalled.
    pub fn flush(&mut self, mut told: impl FnMut(TimerOwner, Notify)) {
        while let Some(owner) = self.touched.pop() {
            let Some(served) = self.owners.get_mut(&owner).filter(|served| !served.faulted) else {
                continue;
            };
            let returned = served.deadlines.flush();
            match served.expirations.flush() {
                Ok(notify) => told(owner, notify.or(returned)),
                Err(fault) => self.latch(owner, fault.into()),
            }
        }
    }

    /// Takes the next owner that broke the rules, with the reason. Its timers are gone; it is served again after
    /// [`Timers::add`].
    pub fn take_fault(&mut self) -> Option<(TimerOwner, GuestFault)> {
        self.faults.pop_front()
    }

    /// Stops serving an owner until it is added again.
    fn latch(&mut self, owner: TimerOwner, fault: GuestFault) {
        if let Some(served) = self.owners.get_mut(&owner) {
            served.faulted = true;
            disarm_all(owner, &mut served.timers, &mut self.schedule);
            self.faults.push_back((owner, fault));
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

fn disarm_all(owner: TimerOwner, timers: &mut [Timer], schedule: &mut Schedule) {
    for (slot, timer) in (0..).zip(timers) {
        if let Some(armed) = timer.armed.take() {
            schedule.remove(armed.due_ns, TimerId { owner, slot });
        }
    }
}

/// Acts on a deadline, unless it was seen before.
fn adopt(
    timers: &mut [Timer],
    timer: TimerId,
    deadline: Deadline,
    generation: Generation,
    now_ns: u64,
    schedule: &mut Schedule,
    counters: &mut TimerCounters,
) {
    let Some(state) = timers.get_mut(timer.slot as usize) else {
        return;
    };
    if state.seen == Some(generation) {
        return;
    }
    state.seen = Some(generation);
    let before = state.armed.take();
    if let Some(before) = before {
        schedule.remove(before.due_ns, timer);
    }
    let Some(deadline_ns) = deadline.nth_ns(1) else {
        counters.cancelled += 1;
        return;
    };
    let due_ns = deadline_ns.max(now_ns);
    state.armed = Some(Armed {
        generation,
        deadline,
        count: 0,
        due_ns,
    });
    schedule.insert(due_ns, timer);
    counters.set += 1;
    counters.superseded += u64::from(before.is_some());
    counters.already_past += u64::from(deadline_ns <= now_ns);
}

impl<W: Window> Served<W> {
    /// Fires a timer that was taken off the schedule, unless its deadline has been superseded. Returns by how much it
    /// was late.
    fn fire(
        &mut self,
        timer: TimerId,
        now_ns: u64,
        schedule: &mut Schedule,
        counters: &mut TimerCounters,
    ) -> Result<Option<u64>, GuestFault> {
        let Self {
            deadlines, timers, ..
        } = self;
        let slot = timer.slot;
        let due = timers.get(slot as usize).and_then(|state| state.armed);
        deadlines.catch_up(slot, |slot, deadline, generation| {
            let timer = TimerId { slot, ..timer };
            adopt(
                timers, timer, deadline, generation, now_ns, schedule, counters,
            );
            ControlFlow::Continue(())
        })?;
        let (Some(due), Some(state)) = (due, timers.get_mut(slot as usize)) else {
            return Ok(None);
        };
        let armed = match state.armed {
            Some(armed) if armed.generation == due.generation => armed,
            _ => return Ok(None),
        };
        state.armed = None;
        let passed = armed.deadline.passed(now_ns);
        let (Some(count), Some(deadline_ns)) =
            (NonZeroU64::new(passed), armed.deadline.nth_ns(passed))
        else {
            return Ok(None);
        };
        let expiration = Expiration {
            answers: armed.generation,
            deadline_ns,
            fired_ns: now_ns,
            count,
        };
        self.expirations.place(slot, expiration)?;
        counters.fired += 1;
        counters.overruns += passed.saturating_sub(armed.count).saturating_sub(1);
        if let Some(next_ns) = passed
            .checked_add(1)
            .and_then(|nth| armed.deadline.nth_ns(nth))
        {
            let due_ns = next_ns.max(now_ns.saturating_add(SHORTEST_PERIOD_NS));
            state.armed = Some(Armed {
                count: passed,
                due_ns,
                ..armed
            });
            schedule.insert(due_ns, timer);
        }
        Ok(Some(now_ns.saturating_sub(armed.due_ns)))
    }
}
