//! The timer device on the bus: deadlines from each guest, expirations back.

use std::collections::BTreeSet;

use shmbus_ring::RingFeatures;
use shmbus_shm::Mapped;
use shmbus_virtio::DeviceId;

use super::{TimerDriver, TimerLanes, TimerOwner, Timers, lanes};
use crate::clock::monotonic_ns;
use crate::device::{
    ActivateError, CONFIG_WORDS, COUNTERS, Device, Outbox, Progress, RegionRequest, Regions,
    SessionId,
};
use crate::lane::{Carrier, LaneError, Reading};

/// The roles of the device's regions in a session: these of virtual CPU 0, and of each other one
/// [`OF_VCPU`](role::OF_VCPU) further on.
pub mod role {
    /// Table of [`Deadline`](crate::timer::Deadline), or the driver's area of their ring; the guest writes, and signals
    /// by it.
    pub const DEADLINES: u16 = 0;
    /// Table of [`Expiration`](crate::timer::Expiration), or the device's area of their ring; the host writes, and signals
    /// by it.
    pub const EXPIRATIONS: u16 = 1;
    /// What the host writes of a ring of deadlines.
    pub const DEADLINES_DEVICE: u16 = 2;
    /// What both write of a ring of deadlines; not of a split one.
    pub const DEADLINES_COMMON: u16 = 3;
    /// The elements of a ring of deadlines; the guest writes.
    pub const DEADLINES_ELEMENTS: u16 = 4;
    /// What the guest writes of a ring of expirations.
    pub const EXPIRATIONS_DRIVER: u16 = 5;
    /// What both write of a ring of expirations; not of a split one.
    pub const EXPIRATIONS_COMMON: u16 = 6;
    /// The elements of a ring of expirations; the host writes.
    pub const EXPIRATIONS_ELEMENTS: u16 = 7;
    /// From a virtual CPU's roles to the next one's.
    pub const OF_VCPU: u16 = 16;
}

/// What [`Device::counters`] gives; times in nanoseconds.
pub(crate) const COUNTER_NAMES: [&str; 10] = [
    "set",
    "superseded",
    "cancelled",
    "fired",
    "armed",
    "late_p50_ns",
    "late_p90_ns",
    "late_p99_ns",
    "late_max_ns",
    "overruns",
];

/// Deadlines looked at, and timers fired, before others get their turn.
const BUDGET: usize = 1024;

/// The most virtual CPUs of a guest.
pub const MOST_VCPUS: u16 = 1024;

/// The most timers of a virtual CPU.
pub const MOST_TIMERS: u32 = 1 << 16;

/// What a timer device is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TimerOptions {
    /// Virtual CPUs of each guest: 1 to [`MOST_VCPUS`].
    pub vcpus: u16,
    /// Timers of each virtual CPU: 1 to [`MOST_TIMERS`].
    pub timers: u32,
    /// What carries deadlines and expirations.
    pub carrier: Carrier,
}

/// There is no such device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TimerSetupError {
    /// The number of virtual CPUs.
    #[error("a timer device serves 1 to {MOST_VCPUS} virtual CPUs of a guest, not {found}")]
    Vcpus {
        /// What was asked for.
        found: u16,
    },
    /// The number of timers.
    #[error("a timer device has 1 to {MOST_TIMERS} timers for each virtual CPU, not {found}")]
    Timers {
        /// What was asked for.
        found: u32,
    },
    /// The rings.
    #[error(transparent)]
    Lanes(#[from] LaneError),
}

/// The timers of all guests, as one device of the bus.
pub struct TimerDevice {
    timers: Timers<Mapped>,
    options: TimerOptions,
    regions: Vec<RegionRequest>,
    /// Owners with more changed deadlines than the last turn took; each once, however often it signals.
    unfinished: BTreeSet<TimerOwner>,
}

impl TimerDevice {
    /// A device of `timers` timers for each guest, which has one virtual CPU.
    ///
    /// # Errors
    ///
    /// [`TimerSetupError`] for none, or for more than a table has slots.
    pub fn new(timers: u32) -> Result<Self, TimerSetupError> {
        Self::with(TimerOptions {
            vcpus: 1,
            timers,
            carrier: Carrier::Table,
        })
    }

    /// A device as `options` say.
    ///
    /// # Errors
    ///
    /// [`TimerSetupError`].
    pub fn with(options: TimerOptions) -> Result<Self, TimerSetupError> {
        let found = options.vcpus;
        if !(1..=MOST_VCPUS).contains(&found) {
            return Err(TimerSetupError::Vcpus { found });
        }
        let found = options.timers;
        if !(1..=MOST_TIMERS).contains(&found) {
            return Err(TimerSetupError::Timers { found });
        }
        Ok(Self {
            timers: Timers::default(),
            options,
            regions: lanes::regions(options)?,
            unfinished: BTreeSet::new(),
        })
    }

    fn owners(&self, session: SessionId) -> impl Iterator<Item = TimerOwner> + use<> {
        (0..self.options.vcpus).map(move |vcpu| TimerOwner { session, vcpu })
    }

    fn look(&mut self, owner: TimerOwner) -> Progress {
        if self.timers.look(owner, monotonic_ns(), BUDGET) {
            self.unfinished.insert(owner);
            Progress::More
        } else {
            Progress::Idle
        }
    }

    fn flush(&mut self, outbox: &mut Outbox) {
        self.timers.flush(|TimerOwner { session, vcpu }, notify| {
            outbox.send(session, role::EXPIRATIONS + vcpu * role::OF_VCPU, notify);
        });
    }
}

impl Device for TimerDevice {
    fn id(&self) -> DeviceId {
        DeviceId::TIMER
    }

    fn features(&self) -> RingFeatures {
        self.options.carrier.features()
    }

    fn config(&mut self, _: SessionId) -> [u64; CONFIG_WORDS] {
        let mut words = [0; CONFIG_WORDS];
        words[0] = self.options.vcpus.into();
        words[1] = self.options.carrier.number();
        words[2] = self.options.timers.into();
        words
    }

    fn regions(&self) -> Vec<RegionRequest> {
        self.regions.clone()
    }

    fn start(&mut self, _: &Regions) -> Result<(), ActivateError> {
        Ok(())
    }

    fn activate(
        &mut self,
        session: SessionId,
        regions: &Regions,
        features: RingFeatures,
    ) -> Result<(), ActivateError> {
        let reading = self.options.carrier.reading();
        for owner in self.owners(session) {
            let lanes = TimerLanes::find(regions, owner.vcpu, reading, features)?;
            self.timers.add(owner, lanes, self.options.timers)?;
            self.unfinished.insert(owner);
        }
        Ok(())
    }

    fn deactivate(&mut self, session: SessionId) {
        for owner in self.owners(session) {
            self.timers.remove(owner);
            self.unfinished.remove(&owner);
        }
    }

    fn signalled(&mut self, session: SessionId, role: u16, outbox: &mut Outbox) -> Progress {
        let vcpu = role / role::OF_VCPU;
        let progress = self.look(TimerOwner { session, vcpu });
        self.flush(outbox);
        progress
    }

    fn resume(&mut self, outbox: &mut Outbox) -> Progress {
        let mut progress = Progress::Idle;
        for owner in std::mem::take(&mut self.unfinished) {
            progress = progress.or(self.look(owner));
        }
        self.flush(outbox);
        progress
    }

    fn faulted(&mut self) -> Option<(SessionId, String)> {
        let (TimerOwner { session, vcpu }, fault) = self.timers.take_fault()?;
        // A driver is reset as a whole.
        for owner in self.owners(session).filter(|owner| owner.vcpu != vcpu) {
            self.timers.remove(owner);
        }
        Some((session, format!("timers of virtual CPU {vcpu}: {fault}")))
    }

    fn next_tick(&self) -> Option<u64> {
        self.timers.next_deadline_ns()
    }

    fn tick(&mut self, now: u64, outbox: &mut Outbox) -> Progress {
        // What the budget leaves is still due, and comes at the next tick: at once.
        let _ = self.timers.expire(now, BUDGET, |_| {});
        self.flush(outbox);
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
            counters.overruns,
        ]);
    }
}

/// The guest's drivers over a session's regions, one for each virtual CPU that the device's configuration tells of. Each
/// may go to a thread of its own; all must be made before the device is activated with `features`, which are those
/// that it offers.
///
/// # Errors
///
/// If the regions are not what a timer device has.
pub fn attach(
    regions: &Regions,
    config: &[u64; CONFIG_WORDS],
    features: impl Into<RingFeatures>,
) -> Result<Vec<TimerDriver<Mapped>>, ActivateError> {
    let features = features.into();
    let found = config[0];
    let vcpus = u16::try_from(found).unwrap_or(0);
    if !(1..=MOST_VCPUS).contains(&vcpus) {
        return Err(format!("the host claims to serve {found} virtual CPUs").into());
    }
    let timers = u32::try_from(config[2]).unwrap_or(0);
    if !(1..=MOST_TIMERS).contains(&timers) {
        return Err(format!("the host claims to serve {} timers", config[2]).into());
    }
    let driver = |vcpu| {
        let reading = Reading::from_number(config[1]).unwrap_or(Reading::Last);
        let lanes = TimerLanes::find(regions, vcpu, reading, features)?;
        Ok(TimerDriver::new(lanes, timers)?)
    };
    (0..vcpus).map(driver).collect()
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{self, TryRecvError};

    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    use shmbus_ring::RingKind;
    use shmbus_shm::{RingFormat, heap};

    use super::*;
    use crate::lane::{OutletError, RingCarrier};
    use crate::timer::{Alarm, Fired};

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
        device.activate(SESSION, regions, device.features())
    }

    /// The one driver of a device for guests of one virtual CPU.
    fn attach_one(device: &mut TimerDevice, regions: &Regions) -> TimerDriver<Mapped> {
        let (config, features) = (device.config(SESSION), device.features());
        let mut drivers = attach(regions, &config, features).unwrap();
        assert_eq!(drivers.len(), 1);
        drivers.remove(0)
    }

    /// Sets a timer of a guest whose host hears of it by `signal`; a full ring is waited for.
    fn set(driver: &mut TimerDriver<Mapped>, slot: u32, at_ns: u64, signal: &mpsc::Sender<()>) {
        let notify = loop {
            match driver.set(slot, at_ns) {
                Err(OutletError::Full) => std::thread::yield_now(),
                outcome => break outcome.unwrap(),
            }
        };
        if notify.is_needed() {
            signal.send(()).unwrap();
        }
    }

    #[test]
    #[cfg_attr(miri, ignore = "timerfd")]
    fn a_guest_s_timers_fire_on_the_host_s_clock() {
        fire_on_the_host_s_clock(Carrier::Table);
        for reading in [Reading::Every, Reading::Last] {
            fire_on_the_host_s_clock(Carrier::Ring(RingCarrier {
                kind: RingKind::plain(RingFormat::Packed),
                size: 64,
                reading,
            }));
        }
    }

    /// A guest's thread sets, supersedes and cancels on the real clock. The host's waits for the kernel's timer, and
    /// for the guest's signals, which come through a channel.
    fn fire_on_the_host_s_clock(carrier: Carrier) {
        let mut device = TimerDevice::with(TimerOptions {
            vcpus: 1,
            timers: TIMERS,
            carrier,
        })
        .unwrap();
        let regions = regions(&device);
        let mut driver = attach_one(&mut device, &regions);
        let _ = driver.set(5, 1).unwrap(); // Before the device is activated, and long past.
        activate(&mut device, &regions).unwrap();
        let (signal, signals) = mpsc::channel();
        let guest = std::thread::spawn(move || {
            let start = monotonic_ns();
            for slot in 0..TIMERS {
                set(&mut driver, slot, u64::MAX, &signal);
                set(&mut driver, slot, start + u64::from(slot) * 5_000, &signal);
                if slot % 100 == 7 {
                    while driver.cancel(slot) == Err(OutletError::Full) {
                        std::thread::yield_now();
                    }
                    let _ = signal.send(());
                }
            }
            let expected = TIMERS - TIMERS / 100;
            let (mut fired, mut patience) = (0, 3_000);
            while fired < expected && patience > 0 {
                let one_fired = |one: Fired| {
                    assert!(one.fired_ns >= one.deadline_ns, "{one:?}");
                    assert_ne!(one.slot % 100, 7, "{one:?} was cancelled");
                    fired += 1;
                };
                if driver.poll(one_fired).unwrap().is_needed() {
                    signal.send(()).unwrap();
                }
                std::thread::sleep(std::time::Duration::from_millis(1));
                patience -= 1;
            }
            assert_eq!(fired, expected, "{carrier:?}: {:?}", driver.counters());
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
        let _ = attach_one(&mut device, &regions);
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
        let mut driver = attach_one(&mut device, &regions);
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
