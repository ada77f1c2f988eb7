//! The interrupt controller on the bus: lines to each guest, and what guests raise passed on.

use std::collections::BTreeSet;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::event::{EventfdFlags, eventfd};
use rustix::io::Errno;
use shmbus_ring::RingFeatures;
use shmbus_shm::{Mapped, Notify};
use shmbus_signal::Priority;
use shmbus_table::TableLayout;
use shmbus_virtio::DeviceId;

use super::{IntcDriver, IntcLanes, Lines, lanes};
use crate::clock::monotonic_ns;
use crate::device::{
    ActivateError, CONFIG_WORDS, COUNTERS, Device, Outbox, Progress, RegionRequest, Regions,
    SessionId,
};
use crate::lane::{Carrier, LaneError};

/// The roles of the device's regions in a session.
pub mod role {
    /// Table of [`Wire`](crate::intc::Wire): what is on each line; or the device's area of their ring. The host writes, and
    /// signals by it.
    pub const WIRES: u16 = 0;
    /// Table of [`Control`](crate::intc::Control), or the driver's area of their ring; the guest writes, and signals by it.
    pub const CONTROLS: u16 = 1;
    /// Table of [`Wire`](crate::intc::Wire): what the guest drives onto each line; or the driver's area of their ring. The
    /// guest writes, and signals by it.
    pub const REQUESTS: u16 = 2;
    /// What the guest writes of a ring of wires.
    pub const WIRES_DRIVER: u16 = 3;
    /// What both write of a ring of wires; not of a split one.
    pub const WIRES_COMMON: u16 = 4;
    /// The elements of a ring of wires; the host writes.
    pub const WIRES_ELEMENTS: u16 = 5;
    /// What the host writes of a ring of controls.
    pub const CONTROLS_DEVICE: u16 = 6;
    /// What both write of a ring of controls; not of a split one.
    pub const CONTROLS_COMMON: u16 = 7;
    /// The elements of a ring of controls; the guest writes.
    pub const CONTROLS_ELEMENTS: u16 = 8;
    /// What the host writes of a ring of requests.
    pub const REQUESTS_DEVICE: u16 = 9;
    /// What both write of a ring of requests; not of a split one.
    pub const REQUESTS_COMMON: u16 = 10;
    /// The elements of a ring of requests; the guest writes.
    pub const REQUESTS_ELEMENTS: u16 = 11;
}

/// What [`Device::counters`] gives; times in nanoseconds.
pub(crate) const COUNTER_NAMES: [&str; 8] = [
    "raised",
    "asserted",
    "told",
    "ended",
    "served_p50_ns",
    "served_p90_ns",
    "served_p99_ns",
    "served_max_ns",
];

/// Values written for guests before others get their turn, when each line that is looked at was raised. A turn looks at
/// one line at least, whatever the number of guests.
const BUDGET: usize = 1024;

/// The most lines of a guest.
pub const MOST_LINES: u32 = TableLayout::MAX_SLOTS;

/// What an interrupt controller is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IntcOptions {
    /// Lines of each guest: 1 to [`MOST_LINES`].
    pub lines: u32,
    /// What carries what is said of them.
    pub carrier: Carrier,
}

/// There is no such device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IntcSetupError {
    /// The number of lines.
    #[error("an interrupt controller has 1 to {MOST_LINES} lines, not {found}")]
    Lines {
        /// What was asked for.
        found: u32,
    },
    /// The rings.
    #[error(transparent)]
    Lanes(#[from] LaneError),
}

/// The lines of all guests, as one device of the bus.
pub struct IntcDevice {
    lines: Lines<Mapped>,
    options: IntcOptions,
    regions: Vec<RegionRequest>,
    /// Eventfds, and the line that each raises.
    pulses: Vec<(OwnedFd, u32)>,
    active: BTreeSet<SessionId>,
    /// Guests with more news than the last turn took; each once, however often it signals.
    unfinished: BTreeSet<SessionId>,
    /// Guests to signal of what changed while there was no outbox.
    owed: BTreeSet<SessionId>,
}

/// A line cannot be raised by an eventfd.
#[derive(Debug, thiserror::Error)]
pub enum PulseError {
    /// There is no such line.
    #[error("there is no line {line}: the device has {lines}")]
    NoSuchLine {
        /// The line asked for.
        line: u32,
        /// How many lines there are.
        lines: u32,
    },
    /// What the kernel answers: no descriptors or memory left.
    #[error("cannot make an eventfd: {0}")]
    System(#[from] io::Error),
}

impl IntcDevice {
    /// A device of `lines` lines for each guest, over tables.
    ///
    /// # Errors
    ///
    /// [`IntcSetupError`] for none, or for more than a table has slots.
    pub fn new(lines: u32) -> Result<Self, IntcSetupError> {
        Self::with(IntcOptions {
            lines,
            carrier: Carrier::Table,
        })
    }

    /// A device as `options` say.
    ///
    /// # Errors
    ///
    /// [`IntcSetupError`].
    pub fn with(options: IntcOptions) -> Result<Self, IntcSetupError> {
        let found = options.lines;
        if !(1..=MOST_LINES).contains(&found) {
            return Err(IntcSetupError::Lines { found });
        }
        Ok(Self {
            lines: Lines::new(options.lines),
            options,
            regions: lanes::regions(options)?,
            pulses: Vec::new(),
            active: BTreeSet::new(),
            unfinished: BTreeSet::new(),
            owed: BTreeSet::new(),
        })
    }

    /// An eventfd by which anybody in the host raises `line` at every guest, from any thread: what is added to it are
    /// edges. It is what KVM calls an irqfd. To be made before the device is given to a bus.
    ///
    /// # Errors
    ///
    /// [`PulseError`].
    pub fn eventfd(&mut self, line: u32) -> Result<OwnedFd, PulseError> {
        let lines = self.lines.lines();
        if line >= lines {
            return Err(PulseError::NoSuchLine { line, lines });
        }
        let flags = EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK;
        let fd = eventfd(0, flags).map_err(io::Error::from)?;
        let theirs = fd.try_clone()?;
        self.pulses.push((fd, line));
        Ok(theirs)
    }

    /// Looks at what a guest says, and passes on what it raised.
    fn look(&mut self, session: SessionId, outbox: &mut Outbox) -> Progress {
        let limit = (BUDGET / self.active.len().max(1)).max(1);
        let more = self
            .lines
            .look(session, monotonic_ns(), limit, |guest, notify| {
                outbox.send(guest, role::WIRES, notify);
            });
        if more {
            self.unfinished.insert(session);
            Progress::More
        } else {
            Progress::Idle
        }
    }

    fn forget(&mut self, session: SessionId) {
        self.active.remove(&session);
        self.unfinished.remove(&session);
        self.owed.remove(&session);
    }
}

impl Device for IntcDevice {
    fn id(&self) -> DeviceId {
        DeviceId::INTC
    }

    fn features(&self) -> RingFeatures {
        self.options.carrier.features()
    }

    fn config(&mut self, _: SessionId) -> [u64; CONFIG_WORDS] {
        let mut words = [0; CONFIG_WORDS];
        words[0] = self.options.lines.into();
        words[1] = self.options.carrier.number();
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
        let lanes = IntcLanes::find(regions, reading, features)?;
        let (now, owed) = (monotonic_ns(), &mut self.owed);
        self.lines.add_guest(session, lanes, now, |guest, notify| {
            owe(owed, guest, notify);
        })?;
        self.active.insert(session);
        self.unfinished.insert(session);
        Ok(())
    }

    fn deactivate(&mut self, session: SessionId) {
        let owed = &mut self.owed;
        self.lines
            .reset_guest(session, monotonic_ns(), |guest, notify| {
                owe(owed, guest, notify);
            });
        self.forget(session);
    }

    fn leave(&mut self, session: SessionId, outbox: &mut Outbox) {
        self.lines
            .remove_guest(session, monotonic_ns(), |guest, notify| {
                outbox.send(guest, role::WIRES, notify);
            });
        self.forget(session);
    }

    fn signalled(&mut self, session: SessionId, _: u16, outbox: &mut Outbox) -> Progress {
        self.look(session, outbox)
    }

    fn resume(&mut self, outbox: &mut Outbox) -> Progress {
        for session in std::mem::take(&mut self.owed) {
            outbox.send(session, role::WIRES, Notify::Yes);
        }
        let mut progress = Progress::Idle;
        for session in std::mem::take(&mut self.unfinished) {
            progress = progress.or(self.look(session, outbox));
        }
        progress
    }

    fn descriptors(&self) -> Vec<(BorrowedFd<'_>, Priority)> {
        let descriptors = self.pulses.iter();
        descriptors
            .map(|(fd, _)| (fd.as_fd(), Priority::HIGHEST))
            .collect()
    }

    fn ready(&mut self, index: usize, outbox: &mut Outbox) -> Progress {
        let Some((fd, line)) = self.pulses.get(index) else {
            return Progress::Idle;
        };
        let mut count = [0; 8];
        match rustix::io::read(fd, &mut count) {
            Ok(_) => {
                let edges = u64::from_ne_bytes(count);
                let now = monotonic_ns();
                self.lines.raise_at_all(*line, edges, now, |guest, notify| {
                    outbox.send(guest, role::WIRES, notify);
                });
            }
            // Somebody else has read it.
            Err(Errno::AGAIN | Errno::INTR) => {}
            Err(error) => tracing::error!(line, %error, "an eventfd cannot be read"),
        }
        Progress::Idle
    }

    fn faulted(&mut self) -> Option<(SessionId, String)> {
        let (guest, fault) = self.lines.take_fault()?;
        Some((guest, fault.to_string()))
    }

    fn counters(&self, values: &mut [u64; COUNTERS]) {
        let (counters, served) = (self.lines.counters(), self.lines.served());
        let percentile = |percent| served.percentile_ns(percent).unwrap_or(0);
        values[..COUNTER_NAMES.len()].copy_from_slice(&[
            counters.raised,
            counters.asserted,
            counters.told,
            counters.ended,
            percentile(50.0),
            percentile(90.0),
            percentile(99.0),
            served.max_ns(),
        ]);
    }
}

fn owe(owed: &mut BTreeSet<SessionId>, guest: SessionId, notify: Notify) {
    if notify.is_needed() {
        owed.insert(guest);
    }
}

/// The guest's driver over a session's regions, of the device that has this configuration and is to be activated with
/// `features`.
///
/// # Errors
///
/// If the regions are not what an interrupt controller has.
pub fn attach(
    regions: &Regions,
    config: &[u64; CONFIG_WORDS],
    features: impl Into<RingFeatures>,
) -> Result<IntcDriver<Mapped>, ActivateError> {
    let (lanes, lines) = lanes::at_guest(regions, config, features.into())?;
    Ok(IntcDriver::new(lanes, lines)?)
}

/// Has a driver go on over another session's regions, as [`IntcDriver::move_to`] does.
///
/// # Errors
///
/// If the regions are not what an interrupt controller of as many lines has.
pub fn move_to(
    driver: &mut IntcDriver<Mapped>,
    regions: &Regions,
    config: &[u64; CONFIG_WORDS],
    features: impl Into<RingFeatures>,
) -> Result<Notify, ActivateError> {
    let (lanes, lines) = lanes::at_guest(regions, config, features.into())?;
    let expected = driver.lines();
    if lines != expected {
        return Err(format!("the device has {lines} lines, and had {expected}").into());
    }
    Ok(driver.move_to(lanes)?)
}

#[cfg(test)]
mod tests {
    use shmbus_shm::heap;

    use super::*;

    const LINES: u32 = 3_000;

    fn regions(device: &IntcDevice) -> Regions {
        let mut regions = Regions::default();
        for request in device.regions() {
            regions.insert(request.role, request.kind, heap(request.bytes));
        }
        regions
    }

    fn join(device: &mut IntcDevice, session: u64) -> (IntcDriver<Mapped>, Regions) {
        let regions = regions(device);
        let driver = attach_to(device, &regions);
        activate(device, session, &regions).unwrap();
        (driver, regions)
    }

    fn attach_to(device: &mut IntcDevice, regions: &Regions) -> IntcDriver<Mapped> {
        let (config, features) = (device.config(SessionId(1)), device.features());
        attach(regions, &config, features).unwrap()
    }

    fn activate(
        device: &mut IntcDevice,
        session: u64,
        regions: &Regions,
    ) -> Result<(), ActivateError> {
        device.activate(SessionId(session), regions, device.features())
    }

    fn told(outbox: &mut Outbox) -> Vec<u64> {
        let sent = outbox.drain().map(|(session, role)| {
            assert_eq!(role, role::WIRES);
            session.0
        });
        sent.collect()
    }

    #[test]
    #[cfg_attr(miri, ignore = "eventfd")]
    fn an_eventfd_raises_its_line_at_every_guest() {
        let mut device = IntcDevice::new(4).unwrap();
        assert!(matches!(
            device.eventfd(4),
            Err(PulseError::NoSuchLine { line: 4, lines: 4 })
        ));
        let ours = device.eventfd(2).unwrap();
        let mut guests = [1, 2].map(|session| join(&mut device, session).0);
        rustix::io::write(&ours, &3_u64.to_ne_bytes()).unwrap();
        let mut outbox = Outbox::default();
        assert_eq!(device.descriptors().len(), 1);
        for expected in [vec![1, 2], vec![]] {
            assert_eq!(device.ready(0, &mut outbox), Progress::Idle);
            assert_eq!(told(&mut outbox), expected);
        }
        for driver in &mut guests {
            driver.unmask(2).unwrap();
            assert_eq!(driver.claim().unwrap().map(|one| one.edges), Some(3));
        }
    }

    #[test]
    fn activation_checks_the_driver_s_tables() {
        let mut device = IntcDevice::new(4).unwrap();
        let regions = regions(&device);
        assert!(
            activate(&mut device, 1, &regions).is_err(),
            "none is set up"
        );
        assert!(activate(&mut device, 1, &Regions::default()).is_err());
        let _ = attach_to(&mut device, &regions);
        activate(&mut device, 1, &regions).unwrap();
        device.deactivate(SessionId(99));
        assert!(IntcDevice::new(0).is_err());
    }

    /// Whose level falls because another guest resets its driver is told at the next turn.
    #[test]
    fn what_changes_while_there_is_no_outbox_is_told_afterwards() {
        let mut device = IntcDevice::new(4).unwrap();
        let (mut driver, _) = join(&mut device, 1);
        let (_, _) = join(&mut device, 2);
        let _ = driver.set_level(3, true).unwrap();
        let mut outbox = Outbox::default();
        let _ = device.signalled(SessionId(1), role::REQUESTS, &mut outbox);
        assert_eq!(told(&mut outbox), [2]);
        device.deactivate(SessionId(1));
        let _ = device.resume(&mut outbox);
        assert_eq!(told(&mut outbox), [2]);
        let _ = device.resume(&mut outbox);
        assert!(told(&mut outbox).is_empty());
    }

    /// A guest that signals all the time, and raises more than a turn takes, costs a turn each, and no memory.
    #[test]
    #[cfg_attr(miri, ignore = "too many lines for an interpreter")]
    fn a_turn_is_bounded_and_unfinished_guests_are_kept_once() {
        let mut device = IntcDevice::new(LINES).unwrap();
        let (mut storm, _) = join(&mut device, 1);
        let (mut other, _) = join(&mut device, 2);
        for line in 0..LINES {
            let _ = storm.raise(line).unwrap();
            other.unmask(line).unwrap();
        }
        let mut outbox = Outbox::default();
        let turn = BUDGET as u64 / 2;
        for turns in [1, 2] {
            let progress = device.signalled(SessionId(1), role::REQUESTS, &mut outbox);
            let raised = device.lines.counters().raised;
            assert_eq!((progress, raised), (Progress::More, turns * turn));
        }
        assert_eq!(device.unfinished.len(), 2, "the other was just activated");
        while device.resume(&mut outbox) == Progress::More {}
        assert_eq!(told(&mut outbox).first(), Some(&2));
        let mut delivered = 0;
        while let Some(delivery) = other.claim().unwrap() {
            assert_eq!(delivery.line, delivered, "those alike go by their numbers");
            let _ = other.end(delivery.line).unwrap();
            delivered += 1;
        }
        assert_eq!(delivered, LINES);
        device.leave(SessionId(2), &mut outbox);
        let mut shown = [0; COUNTERS];
        device.counters(&mut shown);
        assert_eq!((shown[0], shown[3]), (LINES.into(), LINES.into()));
        assert_eq!((device.active.len(), device.unfinished.len()), (1, 0));
        assert_eq!(device.faulted(), None);
    }
}
