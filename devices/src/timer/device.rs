//! The timer device on the bus: deadlines from each guest, expirations back.

use shmbus_shm::{Mapped, RegionKind, Section};
use shmbus_signal::Priority;
use shmbus_table::{LayoutError, TableLayout, Value, layout_of};
use shmbus_virtio::{DeviceId, Features};

use super::{Deadline, Expiration, GuestId, TimerDriver, Timers};
use crate::clock::monotonic_ns;
use crate::device::{
    ActivateError, CONFIG_WORDS, COUNTERS, Device, Outbox, Progress, RegionRequest, Regions,
    SessionId,
};

/// The roles of the device's regions in a session.
pub mod role {
    /// Table of [`Deadline`](crate::timer::Deadline); the guest writes.
    pub const DEADLINES: u16 = 0;
    /// Table of [`Expiration`](crate::timer::Expiration); the host writes.
    pub const EXPIRATIONS: u16 = 1;
}

/// What [`Device::counters`] gives; times in nanoseconds.
pub(crate) const COUNTER_NAMES: [&str; 9] = [
    "set",
    "superseded",
    "cancelled",
    "fired",
    "armed",
    "late_p50_ns",
    "late_p90_ns",
    "late_p99_ns",
    "late_max_ns",
];

/// Deadlines looked at, and timers fired, before others get their turn.
const BUDGET: usize = 1024;

/// The timers of all guests, as one device of the bus.
pub struct TimerDevice {
    timers: Timers<Mapped>,
    deadlines: TableLayout,
    expirations: TableLayout,
    /// Guests with more changed deadlines than the last turn took.
    unfinished: Vec<SessionId>,
}

impl TimerDevice {
    /// A device of `timers` timers for each guest.
    ///
    /// # Errors
    ///
    /// [`LayoutError`] for none, or for more than a table has slots.
    pub fn new(timers: u32) -> Result<Self, LayoutError> {
        Ok(Self {
            timers: Timers::default(),
            deadlines: layout_of::<Deadline>(timers)?,
            expirations: layout_of::<Expiration>(timers)?,
            unfinished: Vec::new(),
        })
    }

    fn look(&mut self, session: SessionId) -> Progress {
        if self.timers.look(GuestId(session.0), monotonic_ns(), BUDGET) {
            self.unfinished.push(session);
            Progress::More
        } else {
            Progress::Idle
        }
    }
}

impl Device for TimerDevice {
    fn id(&self) -> DeviceId {
        DeviceId::TIMER
    }

    fn config(&mut self, _: SessionId) -> [u64; CONFIG_WORDS] {
        [0; CONFIG_WORDS]
    }

    fn regions(&self) -> Vec<RegionRequest> {
        let table = |role, section, layout: TableLayout, words: usize| RegionRequest {
            role,
            kind: RegionKind::Table {
                slots: layout.slots(),
                slot_bytes: 8 * words as u32,
            },
            section,
            bytes: layout.bytes(),
            signal: Some(Priority::HIGHEST),
        };
        vec![
            table(role::DEADLINES, Section::Guest, self.deadlines, Deadline::WORDS),
            table(role::EXPIRATIONS, Section::Host, self.expirations, Expiration::WORDS),
        ]
    }

    fn start(&mut self, _: &Regions) -> Result<(), ActivateError> {
        Ok(())
    }

    fn activate(
        &mut self,
        session: SessionId,
        regions: &Regions,
        _: Features,
    ) -> Result<(), ActivateError> {
        let deadlines = regions.get(role::DEADLINES)?.clone();
        let expirations = regions.get(role::EXPIRATIONS)?.clone();
        let timers = self.deadlines.slots();
        self.timers
            .add_guest(GuestId(session.0), deadlines, expirations, timers)?;
        self.unfinished.push(session);
        Ok(())
    }

    fn deactivate(&mut self, session: SessionId) {
        self.timers.remove_guest(GuestId(session.0));
        self.unfinished.retain(|unfinished| *unfinished != session);
    }

    fn signalled(&mut self, session: SessionId, _: u16, _: &mut Outbox) -> Progress {
        self.look(session)
    }

    fn resume(&mut self, _: &mut Outbox) -> Progress {
        let mut progress = Progress::Idle;
        for session in std::mem::take(&mut self.unfinished) {
            progress = progress.or(self.look(session));
        }
        progress
    }

    fn faulted(&mut self) -> Option<(SessionId, String)> {
        let (guest, fault) = self.timers.take_fault()?;
        Some((SessionId(guest.0), fault.to_string()))
    }

    fn next_tick(&self) -> Option<u64> {
        self.timers.next_deadline_ns()
    }

    fn tick(&mut self, now: u64, outbox: &mut Outbox) {
        // What the budget leaves is still due, and comes at the next tick: at once.
        let _ = self.timers.expire(now, BUDGET, |fired| {
            outbox.send(SessionId(fired.guest.0), role::EXPIRATIONS, fired.notify);
        });
    }

    fn counters(&self, values: &mut [u64; COUNTERS]) {
        let counters = self.timers.counters();
        let late = self.timers.lateness();
        let percentile = |percent| late.percentile_ns(percent).unwrap_or(0);
        values[..COUNTER_NAMES.len()].copy_from_slice(&[
            counters.set,
            counters.superseded,
            counters.cancelled,
            counters.fired,
            self.timers.armed() as u64,
            percentile(50.0),
            percentile(90.0),
            percentile(99.0),
            late.max_ns(),
        ]);
    }
}

/// The guest's driver over a session's regions.
///
/// # Errors
///
/// If the regions are not what a timer device has.
pub fn attach(regions: &Regions) -> Result<TimerDriver<Mapped>, ActivateError> {
    let timers = regions.slots(role::DEADLINES)?;
    let deadlines = regions.get(role::DEADLINES)?.clone();
    let expirations = regions.get(role::EXPIRATIONS)?.clone();
    Ok(TimerDriver::new(deadlines, expirations, timers)?)
}
