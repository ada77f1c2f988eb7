//! The timer device on the bus: deadlines from each guest, expirations back.

use std::collections::BTreeSet;

use shmbus_ring::RingFeatures;
use shmbus_shm::{Mapped, RegionKind, Section};
use shmbus_signal::Priority;
use shmbus_table::{LayoutError, TableLayout, Value, layout_of};
use shmbus_virtio::DeviceId;

use super::{Deadline, Expiration, TimerDriver, Timers};
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
    /// Guests with more changed deadlines than the last turn took; each once, however often it signals.
    unfinished: BTreeSet<SessionId>,
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
            unfinished: BTreeSet::new(),
        })
    }

    fn look(&mut self, session: SessionId) -> Progress {
        if self.timers.look(session, monotonic_ns(), BUDGET) {
            self.unfinished.insert(session);
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
            table(
                role::DEADLINES,
                Section::Guest,
                self.deadlines,
                Deadline::WORDS,
            ),
            table(
                role::EXPIRATIONS,
                Section::Host,
                self.expirations,
                Expiration::WORDS,
            ),
        ]
    }

    fn start(&mut self, _: &Regions) -> Result<(), ActivateError> {
        Ok(())
    }

    fn activate(
        &mut self,
        session: SessionId,
        regions: &Regions,
        _: RingFeatures,
    ) -> Result<(), ActivateError> {
        let deadlines = regions.get(role::DEADLINES)?.clone();
        let expirations = regions.get(role::EXPIRATIONS)?.clone();
        let timers = self.deadlines.slots();
        self.timers
            .add_guest(session, deadlines, expirations, timers)?;
        self.unfinished.insert(session);
        Ok(())
    }

    fn deactivate(&mut self, session: SessionId) {
        self.timers.remove_guest(session);
        self.unfinished.remove(&session);
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
        Some((guest, fault.to_string()))
    }

    fn next_tick(&self) -> Option<u64> {
        self.timers.next_deadline_ns()
    }

    fn tick(&mut self, now: u64, outbox: &mut Outbox) -> Progress {
        // What the budget leaves is still due, and comes at the next tick: at once.
        let _ = self.timers.expire(now, BUDGET, |fired| {
            outbox.send(fired.guest, role::EXPIRATIONS, fired.notify);
        });
        Progress::Idle
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

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{self, TryRecvError};

    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    use shmbus_shm::heap;
    use shmbus_virtio::Features;

    use super::*;
    use crate::timer::Alarm;

    const TIMERS: u32 = 3_000;
    const SESSION: SessionId = SessionId(3);

    fn regions(device: &TimerDevice) -> Regions {
        let mut regions = Regions::default();
        for request in device.regions() {
            regions.insert(request.role, request.kind, heap(request.bytes));
        }
        regions
    }

    fn activate(device: &mut TimerDevice, regions: &Regions) -> Result<(), ActivateError> {
        device.activate(SESSION, regions, Features::VERSION_1.into())
    }

    /// A guest's thread sets, supersedes and cancels on the real clock. The host's waits for the kernel's timer, and
    /// for the guest's signals, which come through a channel.
    #[test]
    #[cfg_attr(miri, ignore = "timerfd")]
    fn a_guest_s_timers_fire_on_the_host_s_clock() {
        let mut device = TimerDevice::new(TIMERS).unwrap();
        let regions = regions(&device);
        let mut driver = attach(&regions).unwrap();
        let _ = driver.set(5, 1).unwrap(); // Before the device is activated, and long past.
        activate(&mut device, &regions).unwrap();
        let (signal, signals) = mpsc::channel();
        let guest = std::thread::spawn(move || {
            let start = monotonic_ns();
            for slot in 0..TIMERS {
                let _ = driver.set(slot, u64::MAX).unwrap();
                let soon = start + u64::from(slot) * 5_000;
                if driver.set(slot, soon).unwrap().is_needed() {
                    signal.send(()).unwrap();
                }
                if slot % 100 == 7 && driver.cancel(slot).unwrap().is_needed() {
                    signal.send(()).unwrap();
                }
            }
            let expected = TIMERS - TIMERS / 100;
            let (mut fired, mut patience) = (0, 3_000);
            while fired < expected && patience > 0 {
                let one_fired = |one: crate::timer::Fired| {
                    assert!(one.fired_ns >= one.deadline_ns, "{one:?}");
                    assert_ne!(one.slot % 100, 7, "{one:?} was cancelled");
                    fired += 1;
                };
                driver.poll(one_fired).unwrap();
                std::thread::sleep(std::time::Duration::from_millis(10));
                patience -= 1;
            }
            assert_eq!(fired, expected, "{:?}", driver.counters());
            driver.counters()
        });

        let mut alarm = Alarm::new().unwrap();
        let mut outbox = Outbox::default();
        let mut progress = Progress::More; // As after every activation.
        let (mut told, mut gone) = (0, false);
        while !gone {
            alarm.set(device.next_tick()).unwrap();
            let millisecond = Timespec {
                tv_sec: 0,
                tv_nsec: 1_000_000,
            };
            let mut ready = [PollFd::new(&alarm, PollFlags::IN)];
            if poll(&mut ready, Some(&millisecond)).unwrap() == 1 && alarm.acknowledge().unwrap() {
                assert_eq!(device.tick(monotonic_ns(), &mut outbox), Progress::Idle);
            }
            if progress == Progress::More {
                progress = device.resume(&mut outbox);
            }
            loop {
                match signals.try_recv() {
                    Ok(()) => {
                        let signalled = device.signalled(SESSION, role::DEADLINES, &mut outbox);
                        progress = progress.or(signalled);
                    }
                    Err(TryRecvError::Empty) => break,
                    Err(TryRecvError::Disconnected) => {
                        gone = true;
                        break;
                    }
                }
            }
            for to in outbox.drain() {
                assert_eq!(to, (SESSION, role::EXPIRATIONS));
                told += 1;
            }
        }
        let counters = guest.join().unwrap();
        assert!(told > 0);
        assert_eq!(counters.superseded, u64::from(TIMERS) + 1);
        let mut shown = [0; COUNTERS];
        device.counters(&mut shown);
        assert_eq!(shown[3], device.timers.lateness().count());
        assert_eq!(device.faulted(), None);
    }

    #[test]
    fn activation_checks_the_driver_s_table() {
        let mut device = TimerDevice::new(4).unwrap();
        let regions = regions(&device);
        assert!(activate(&mut device, &regions).is_err(), "none is set up");
        assert!(activate(&mut device, &Regions::default()).is_err());
        let _ = attach(&regions).unwrap();
        activate(&mut device, &regions).unwrap();
        device.deactivate(SessionId(99));
        assert!(TimerDevice::new(0).is_err());
    }

    /// A guest that signals all the time, and changes more than a turn takes, costs a turn each, and no memory.
    #[test]
    #[cfg_attr(miri, ignore = "too many timers for an interpreter")]
    fn a_turn_is_bounded_and_unfinished_guests_are_kept_once() {
        let mut device = TimerDevice::new(TIMERS).unwrap();
        let regions = regions(&device);
        let mut driver = attach(&regions).unwrap();
        activate(&mut device, &regions).unwrap();
        for slot in 0..TIMERS {
            let _ = driver.set(slot, u64::MAX).unwrap();
        }
        let mut outbox = Outbox::default();
        let first = device.signalled(SESSION, role::DEADLINES, &mut outbox);
        assert_eq!((first, device.timers.armed()), (Progress::More, BUDGET));
        let again = device.signalled(SESSION, role::DEADLINES, &mut outbox);
        assert_eq!((again, device.timers.armed()), (Progress::More, 2 * BUDGET));
        assert_eq!(device.unfinished.len(), 1);
        while device.resume(&mut outbox) == Progress::More {}
        assert_eq!(device.timers.armed(), TIMERS as usize);
        device.deactivate(SESSION);
        assert_eq!((device.timers.armed(), device.next_tick()), (0, None));
    }
}
