//! The host's side: what is on the lines of all guests.

use std::collections::{BTreeMap, VecDeque};

use shmbus_shm::{Notify, Window};

use super::IntcLanes;
use super::guest::{AttachError, Guest, GuestFault, Passed};
use crate::SessionId;
use crate::timer::LatenessHistogram;

/// What the host's lines have done so far, over all guests.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LineCounters {
    /// Edges raised, by the host and by guests.
    pub raised: u64,
    /// How often a level became asserted, by the host or by a guest.
    pub asserted: u64,
    /// Values written for guests, of which each has only the last.
    pub told: u64,
    /// Edges whose service has ended, each counted at every guest.
    pub ended: u64,
}

/// Every guest's lines, without a clock of their own: time is what the caller says it is.
///
/// The host may raise a line at one guest. What a guest raises, all others get, as if the line were one wire that goes to
/// all: an edge of any is an edge at each other one, a level is asserted as long as anybody else asserts it. Who does not
/// want a line masks it. The host neither sorts nor waits: it writes what is on a line, and the guest's driver does the
/// rest. A raise costs one write at each guest that gets it, however many lines there are; finding what a guest changed
/// costs what it changed.
#[derive(Debug)]
pub struct Lines<W: Window> {
    guests: BTreeMap<SessionId, Guest<W>>,
    lines: u32,
    /// How many guests assert each line.
    asserters: Vec<u32>,
    counters: LineCounters,
    served: LatenessHistogram,
    /// Scratch for one look.
    passed: Vec<Passed>,
    /// Faults that nobody took yet, at most one a guest.
    faults: VecDeque<(SessionId, GuestFault)>,
}

impl<W: Window> Lines<W> {
    /// `lines` lines for each guest.
    pub fn new(lines: u32) -> Self {
        Self {
            guests: BTreeMap::new(),
            lines,
            asserters: vec![0; lines as usize],
            counters: LineCounters::default(),
            served: LatenessHistogram::default(),
            passed: Vec::new(),
            faults: VecDeque::new(),
        }
    }

    /// How many lines there are.
    pub fn lines(&self) -> u32 {
        self.lines
    }

    /// Serves a guest whose driver has set up its part of `lanes`; sets up the host's. A guest that was served before, and reset its
    /// driver meanwhile, finds its lines again: levels as they are, and edges whose service was not seen to end. Look at
    /// what it says then: it may have raised something.
    ///
    /// # Errors
    ///
    /// [`AttachError`]: the guest's tables are none, or not for as many lines; or a memory does not fit.
    pub fn add_guest(
        &mut self,
        guest: SessionId,
        lanes: IntcLanes<W>,
        now_ns: u64,
        mut tell: impl FnMut(SessionId, Notify),
    ) -> Result<(), AttachError> {
        // No last look: what is there now is the new driver's, who counts anew.
        self.faults.retain(|(faulted, _)| *faulted != guest);
        self.detach(guest, now_ns, &mut tell);
        let lines = self.lines;
        let added = self
            .guests
            .entry(guest)
            .or_insert_with(|| Guest::new(lines));
        for (line, asserters) in (0..).zip(&self.asserters) {
            let asserted = added
                .lines
                .get(line as usize)
                .is_some_and(|line| line.level(*asserters));
            // Without lanes there is nobody to tell.
            let _ = added.update(line, 0, asserted, now_ns, &mut self.counters);
        }
        added.attach(lanes)
    }

    /// Lets go of a driver's lanes, after a last look at them: the levels that it asserts fall, and its lines are kept for
    /// when it is back. Harmless for a guest that is not served.
    pub fn reset_guest(
        &mut self,
        guest: SessionId,
        now_ns: u64,
        mut tell: impl FnMut(SessionId, Notify),
    ) {
        // The second time for what changed before the point where a look had been paused. A guest that is still there, and
        // goes on, does not keep the host looking.
        let _ = self.look(guest, now_ns, usize::MAX, &mut tell)
            && self.look(guest, now_ns, usize::MAX, &mut tell);
        self.faults.retain(|(faulted, _)| *faulted != guest);
        self.detach(guest, now_ns, &mut tell);
    }

    /// Forgets a guest, after a last look at what it raised. Harmless for one that is not served.
    pub fn remove_guest(
        &mut self,
        guest: SessionId,
        now_ns: u64,
        tell: impl FnMut(SessionId, Notify),
    ) {
        self.reset_guest(guest, now_ns, tell);
        self.guests.remove(&guest);
    }

    /// Raises `edges` edges of `line` at one guest, and says whether to signal it. They are kept for a guest that has reset
    /// its driver. Harmless for a guest or a line that there is not.
    pub fn raise(&mut self, guest: SessionId, line: u32, edges: u64, now_ns: u64) -> Notify {
        self.counters.raised = self.counters.raised.wrapping_add(edges);
        self.update(guest, line, edges, now_ns)
    }

    /// Raises `edges` edges of `line` at every guest.
    pub fn raise_at_all(
        &mut self,
        line: u32,
        edges: u64,
        now_ns: u64,
        mut tell: impl FnMut(SessionId, Notify),
    ) {
        self.counters.raised = self.counters.raised.wrapping_add(edges);
        self.update_others(None, line, edges, now_ns);
        self.flush_others(None, &mut tell);
    }

    /// Asserts the level of `line` at one guest, or no longer, and says whether to signal it. Harmless for a guest or a
    /// line that there is not.
    pub fn set_level(
        &mut self,
        guest: SessionId,
        line: u32,
        asserted: bool,
        now_ns: u64,
    ) -> Notify {
        let served = self.guests.get_mut(&guest);
        let Some(state) = served.and_then(|served| served.lines.get_mut(line as usize)) else {
            return Notify::No;
        };
        self.counters.asserted += u64::from(asserted && !state.from_host);
        state.from_host = asserted;
        self.update(guest, line, 0, now_ns)
    }

    /// Tells one guest of a line that has changed.
    fn update(&mut self, guest: SessionId, line: u32, edges: u64, now_ns: u64) -> Notify {
        let asserters = self.asserters.get(line as usize).copied().unwrap_or(0);
        let Some(served) = self.guests.get_mut(&guest) else {
            return Notify::No;
        };
        let state = served.lines.get(line as usize);
        let asserted = state.is_some_and(|line| line.level(asserters));
        let updated = served.update(line, edges, asserted, now_ns, &mut self.counters);
        match updated.and_then(|()| served.flush()) {
            Ok(notify) => notify,
            Err(fault) => {
                self.faults.push_back((guest, fault));
                Notify::No
            }
        }
    }

    /// Puts in for every guest but one what they are to see of a line that has changed.
    fn update_others(&mut self, except: Option<SessionId>, line: u32, edges: u64, now_ns: u64) {
        let asserters = self.asserters.get(line as usize).copied().unwrap_or(0);
        for (guest, served) in &mut self.guests {
            if Some(*guest) == except {
                continue;
            }
            let state = served.lines.get(line as usize);
            let asserted = state.is_some_and(|line| line.level(asserters));
            if let Err(fault) = served.update(line, edges, asserted, now_ns, &mut self.counters) {
                self.faults.push_back((*guest, fault));
            }
        }
    }

    /// Shows every guest but one what was put in.
    fn flush_others(
        &mut self,
        except: Option<SessionId>,
        tell: &mut impl FnMut(SessionId, Notify),
    ) {
        for (guest, served) in &mut self.guests {
            if Some(*guest) == except {
                continue;
            }
            match served.flush() {
                Ok(notify) => tell(*guest, notify),
                Err(fault) => self.faults.push_back((*guest, fault)),
            }
        }
    }

    /// Takes in what a guest changed since the last look, at most `limit` values (at least one) of each of its lanes; two
    /// loads if there are none. Tells the others what it raised, and over rings itself of buffers that are its again and
    /// of what waited for them. Returns whether there may be more. Harmless for a guest that is not served.
    pub fn look(
        &mut self,
        guest: SessionId,
        now_ns: u64,
        limit: usize,
        mut tell: impl FnMut(SessionId, Notify),
    ) -> bool {
        let Some(served) = self.guests.get_mut(&guest) else {
            return false;
        };
        let mut passed = core::mem::take(&mut self.passed);
        let (counters, latencies) = (&mut self.counters, &mut self.served);
        let looked = served.look(now_ns, limit, counters, latencies, &mut passed);
        let has_passed = !passed.is_empty();
        for Passed {
            line,
            edges,
            has_turned,
            asserted,
        } in passed.drain(..)
        {
            self.counters.raised = self.counters.raised.wrapping_add(edges);
            self.counters.asserted += u64::from(has_turned && asserted);
            if has_turned && let Some(asserters) = self.asserters.get_mut(line as usize) {
                *asserters = if asserted {
                    *asserters + 1
                } else {
                    *asserters - 1
                };
            }
            self.update_others(Some(guest), line, edges, now_ns);
        }
        self.passed = passed;
        if has_passed {
            self.flush_others(Some(guest), &mut tell);
        }
        let served = self.guests.get_mut(&guest);
        let flushed = looked.and_then(|more| {
            let notify = served.map_or(Ok(Notify::No), Guest::flush)?;
            Ok((more, notify))
        });
        match flushed {
            Ok((more, notify)) => {
                if notify.is_needed() {
                    tell(guest, notify);
                }
                more
            }
            Err(fault) => {
                self.detach(guest, now_ns, &mut tell);
                self.faults.push_back((guest, fault));
                false
            }
        }
    }

    /// Lets go of a guest's lanes, and of the levels that it asserts.
    fn detach(&mut self, guest: SessionId, now_ns: u64, tell: &mut impl FnMut(SessionId, Notify)) {
        let Some(served) = self.guests.get_mut(&guest) else {
            return;
        };
        let lines = (0..).zip(&served.lines);
        let asserted = lines.filter(|(_, line)| line.requested.asserted);
        let asserted: Vec<u32> = asserted.map(|(number, _)| number).collect();
        served.detach();
        let has_fallen = !asserted.is_empty();
        for line in asserted {
            if let Some(asserters) = self.asserters.get_mut(line as usize) {
                *asserters -= 1;
            }
            self.update_others(Some(guest), line, 0, now_ns);
        }
        if has_fallen {
            self.flush_others(Some(guest), tell);
        }
    }

    /// Takes the next guest that broke the rules, with the reason. It is served again after [`Lines::add_guest`].
    pub fn take_fault(&mut self) -> Option<(SessionId, GuestFault)> {
        self.faults.pop_front()
    }

    /// What has been done so far.
    pub fn counters(&self) -> LineCounters {
        self.counters
    }

    /// How long edges took from when they were raised until the host saw that their service had ended.
    pub fn served(&self) -> &LatenessHistogram {
        &self.served
    }
}
