//! The net device on the bus: a switch with a port for each guest.

use std::collections::{BTreeMap, VecDeque};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Instant;

use shmbus_ring::SetupError;
use shmbus_ring::split::{DeviceRing, DriverRing};
use shmbus_shm::slot::Epoch;
use shmbus_shm::{Mapped, OffsetSpace, RegionKind, RingFormat, Section};
use shmbus_signal::Priority;
use shmbus_table::{TypedWriter, Value, layout_of};
use shmbus_virtio::{DeviceId, Features};

use super::addresses::Sources;
use super::config::NetConfig;
use super::driver::NetDriver;
use super::host::GuestPort;
use super::mac_address::MacAddress;
use super::pcap::{Recorder, Replay};
use super::port::Port;
use super::queues::{DeviceRegions, FEATURES, QueueMemory, QueueRegions};
use super::switch::{PortCounters, PortId, Switch, SwitchLimits};
use super::tap::Tap;
use crate::clock::monotonic_ns;
use crate::device::{
    ActivateError, CONFIG_WORDS, COUNTERS, Device, NoRegion, Outbox, Progress, RegionRequest,
    Regions, SessionId,
};
use crate::ring_state::RingState;

/// The roles of the device's regions in a session.
pub mod role {
    /// receiveq1: descriptor table and available ring; the guest writes.
    pub const RECEIVEQ1_DRIVER: u16 = 0;
    /// receiveq1: used ring; the host writes.
    pub const RECEIVEQ1_DEVICE: u16 = 1;
    /// receiveq1: buffers; both write.
    pub const RECEIVEQ1_BUFFERS: u16 = 2;
    /// transmitq1: descriptor table and available ring; the guest writes.
    pub const TRANSMITQ1_DRIVER: u16 = 4;
    /// transmitq1: used ring; the host writes.
    pub const TRANSMITQ1_DEVICE: u16 = 5;
    /// transmitq1: buffers. The guest writes them; they lie with the others in common memory, which no third party
    /// is shown.
    pub const TRANSMITQ1_BUFFERS: u16 = 6;
    /// Table of [`RingState`](crate::RingState): receiveq1 and transmitq1, as the host sees them.
    pub const POSITIONS: u16 = 8;
}

/// What [`Device::counters`] gives.
pub(crate) const COUNTER_NAMES: [&str; 7] = [
    "ports",
    "frames",
    "bytes",
    "dropped_full",
    "dropped_too_long",
    "dropped_malformed",
    "dropped_spoofed",
];

/// Entries of each queue.
pub const QUEUE_SIZE: u16 = 256;

/// Frames that one port may hand in before others get their turn.
const BUDGET: u32 = 128;

/// How many addresses are remembered behind an uplink.
const UPLINK_ADDRESSES: u16 = 1024;

/// Where a net device's queues are urgent: behind clocks and timers.
const PRIORITY: Priority = match Priority::new(1) {
    Some(priority) => priority,
    None => Priority::LOWEST,
};

/// Something on the switch that is no guest.
struct Uplink {
    port: PortId,
    /// Of a TAP interface, to be waited for.
    descriptor: Option<OwnedFd>,
    /// When the next frame of a recording is due, in nanoseconds of `CLOCK_MONOTONIC`.
    due_ns: Option<u64>,
    is_busy: bool,
}

/// A guest on the switch.
struct Station {
    mac: MacAddress,
    /// While its driver is active.
    active: Option<Active>,
}

struct Active {
    port: PortId,
    positions: TypedWriter<RingState, Mapped, Vec<u64>>,
    is_busy: bool,
}

/// Who has more frames than the last turn took.
#[derive(Clone, Copy)]
enum Busy {
    Guest(SessionId),
    Uplink(usize),
}

/// A learning switch with a port for each guest, as one device of the bus.
pub struct NetDevice {
    switch: Switch<Box<dyn NetPort>>,
    memory: QueueMemory,
    stations: BTreeMap<SessionId, Station>,
    sessions: BTreeMap<PortId, SessionId>,
    uplinks: Vec<Uplink>,
    busy: VecDeque<Busy>,
    /// What ports that are gone counted.
    departed: PortCounters,
    faulted: VecDeque<(SessionId, String)>,
    started: Instant,
}

/// A port of any kind, as the switch keeps it.
trait NetPort: Port + Send {
    /// How far a guest's queues have come.
    fn ring_states(&self, _size: u16) -> Option<[RingState; 2]> {
        None
    }

    /// When it has its next frame, if it knows.
    fn next_due(&self) -> Option<Instant> {
        None
    }
}

type SplitPort = GuestPort<DeviceRing<Mapped>, OffsetSpace<Mapped>>;

impl NetPort for SplitPort {
    fn ring_states(&self, size: u16) -> Option<[RingState; 2]> {
        Some(self.positions().map(|positions| RingState { size, positions }))
    }
}

impl NetPort for Tap {}

impl NetPort for Replay {
    fn next_due(&self) -> Option<Instant> {
        Replay::next_due(self)
    }
}

impl NetDevice {
    /// A switch without uplinks, for packets of up to `mtu` bytes without their Ethernet header.
    ///
    /// # Errors
    ///
    /// [`SetupError::Size`]; not expected.
    pub fn new(mtu: u16) -> Result<Self, SetupError> {
        Ok(Self {
            switch: Switch::new(SwitchLimits::default()),
            memory: QueueMemory::new(QUEUE_SIZE, mtu)?,
            stations: BTreeMap::new(),
            sessions: BTreeMap::new(),
            uplinks: Vec::new(),
            busy: VecDeque::new(),
            departed: PortCounters::default(),
            faulted: VecDeque::new(),
            started: Instant::now(),
        })
    }

    /// Gives the switch a port on a TAP interface.
    ///
    /// # Errors
    ///
    /// If the descriptor cannot be duplicated, or the switch has no port left.
    pub fn add_tap(&mut self, tap: Tap) -> Result<(), ActivateError> {
        let descriptor = tap.as_fd().try_clone_to_owned()?;
        self.add_uplink(Box::new(tap), Some(descriptor))
    }

    /// Gives the switch a port from which a recording comes, from when the first guest is there to see it.
    ///
    /// # Errors
    ///
    /// If the switch has no port left.
    pub fn add_replay(&mut self, replay: Replay) -> Result<(), ActivateError> {
        self.add_uplink(Box::new(replay), None)
    }

    /// Records every frame that crosses the switch.
    pub fn record(&mut self, recorder: Recorder) {
        self.switch.record(Some(recorder));
    }

    fn add_uplink(
        &mut self,
        port: Box<dyn NetPort>,
        descriptor: Option<OwnedFd>,
    ) -> Result<(), ActivateError> {
        let sources = Sources::Learned {
            at_most: UPLINK_ADDRESSES,
        };
        let port = self.switch.attach(port, sources)?;
        self.uplinks.push(Uplink {
            port,
            descriptor,
            due_ns: None,
            is_busy: false,
        });
        Ok(())
    }

    /// The lowest address that no guest has: a guest that comes back soon gets the one it had.
    fn free_address(&self) -> MacAddress {
        let taken = |mac| self.stations.values().any(|station| station.mac == mac);
        let mut number: u16 = 1;
        while taken(station_address(number)) && number < u16::MAX {
            number += 1;
        }
        station_address(number)
    }

    /// Takes frames from a port, and hands on whom to signal.
    fn poll(&mut self, who: Busy, outbox: &mut Outbox) {
        let (port, is_busy) = match who {
            Busy::Guest(session) => {
                let station = self.stations.get_mut(&session);
                match station.and_then(|station| station.active.as_mut()) {
                    Some(active) => (active.port, &mut active.is_busy),
                    None => return,
                }
            }
            Busy::Uplink(index) => match self.uplinks.get_mut(index) {
                Some(uplink) => (uplink.port, &mut uplink.is_busy),
                None => return,
            },
        };
        let polled = self.switch.poll(port, BUDGET, self.started.elapsed());
        if polled.more && !*is_busy {
            self.busy.push_back(who);
        }
        *is_busy = polled.more;
        if let Busy::Uplink(index) = who {
            let due = self.switch.port_mut(port).and_then(|port| port.next_due());
            self.uplinks[index].due_ns = due.map(|due| {
                let wait = due.saturating_duration_since(Instant::now());
                monotonic_ns().saturating_add(wait.as_nanos() as u64)
            });
        }
        self.flush(outbox);
    }

    /// Has every uplink looked at: the frames of a recording come by themselves.
    fn wake_uplinks(&mut self) {
        for (index, uplink) in self.uplinks.iter_mut().enumerate() {
            if !uplink.is_busy {
                uplink.is_busy = true;
                self.busy.push_back(Busy::Uplink(index));
            }
        }
    }

    fn flush(&mut self, outbox: &mut Outbox) {
        let Self {
            switch,
            sessions,
            stations,
            ..
        } = self;
        let mut moved = [None; 16];
        let mut count = 0;
        switch.flush(|port, notifications| {
            let Some(session) = sessions.get(&port) else {
                return;
            };
            outbox.send(*session, role::RECEIVEQ1_DEVICE, notifications.receiveq);
            outbox.send(*session, role::TRANSMITQ1_DEVICE, notifications.transmitq);
            if let Some(slot) = moved.get_mut(count) {
                *slot = Some((*session, port));
                count += 1;
            }
        });
        for (session, port) in moved.into_iter().flatten() {
            let states = switch
                .port_mut(port)
                .and_then(|port| port.ring_states(QUEUE_SIZE));
            let active = stations
                .get_mut(&session)
                .and_then(|station| station.active.as_mut());
            if let (Some(states), Some(active)) = (states, active) {
                for (slot, state) in (0..).zip(&states) {
                    // For observers, who poll: there is nobody to tell, and nothing to do if it fails.
                    let _ = active.positions.publish(slot, state);
                }
            }
        }
        while let Some((port, error)) = switch.next_fault() {
            match self.sessions.get(&port) {
                Some(session) => self.faulted.push_back((*session, error.to_string())),
                None => tracing::error!(%port, %error, "an uplink stopped"),
            }
        }
    }

    fn detach(&mut self, session: SessionId) {
        let station = self.stations.get_mut(&session);
        let Some(active) = station.and_then(|station| station.active.take()) else {
            return;
        };
        if let Some(counters) = self.switch.counters(active.port) {
            self.departed = sum(self.departed, counters);
        }
        self.sessions.remove(&active.port);
        self.switch.detach(active.port);
        self.faulted.retain(|(faulted, _)| *faulted != session);
    }
}

/// A locally administered address that says where it comes from.
fn station_address(number: u16) -> MacAddress {
    let [high, low] = number.to_be_bytes();
    MacAddress([0x02, b's', b'h', b'm', high, low])
}

fn sum(left: PortCounters, right: PortCounters) -> PortCounters {
    let mut words = left.words();
    for (word, other) in words.iter_mut().zip(right.words()) {
        *word = word.saturating_add(other);
    }
    PortCounters::from_words(&words)
}

fn device_regions(regions: &Regions) -> Result<DeviceRegions<Mapped>, NoRegion> {
    let queue = |driver, device, buffers| -> Result<_, NoRegion> {
        Ok(QueueRegions {
            driver: regions.get(driver)?.clone(),
            device: regions.get(device)?.clone(),
            buffers: regions.get(buffers)?.clone(),
        })
    };
    Ok(DeviceRegions {
        receiveq: queue(
            role::RECEIVEQ1_DRIVER,
            role::RECEIVEQ1_DEVICE,
            role::RECEIVEQ1_BUFFERS,
        )?,
        transmitq: queue(
            role::TRANSMITQ1_DRIVER,
            role::TRANSMITQ1_DEVICE,
            role::TRANSMITQ1_BUFFERS,
        )?,
    })
}

impl Device for NetDevice {
    fn id(&self) -> DeviceId {
        DeviceId::NET
    }

    fn features(&self) -> Features {
        FEATURES
    }

    fn config(&mut self, session: SessionId) -> [u64; CONFIG_WORDS] {
        let mac = self.free_address();
        self.stations.insert(session, Station { mac, active: None });
        let config = NetConfig {
            mtu: self.memory.mtu(),
            ..NetConfig::new(mac)
        };
        let mut words = [0; CONFIG_WORDS];
        words[..NetConfig::WORDS].copy_from_slice(&config.encode_words());
        words
    }

    fn regions(&self) -> Vec<RegionRequest> {
        let ring = self.memory.ring();
        let area = |role, section, bytes| RegionRequest {
            role,
            kind: RegionKind::Ring {
                format: RingFormat::Split,
                size: ring.size(),
            },
            section,
            bytes,
            signal: Some(PRIORITY),
        };
        let buffers = |role| RegionRequest {
            role,
            kind: RegionKind::Raw {
                params: [self.memory.buffer_bytes().into(), ring.size().into()],
            },
            section: Section::Common,
            bytes: self.memory.buffers_bytes(),
            signal: None,
        };
        let slot_bytes = 8 * RingState::WORDS as u32;
        let positions = layout_of::<RingState>(2).map_or(0, |layout| layout.bytes());
        vec![
            area(role::RECEIVEQ1_DRIVER, Section::Guest, ring.driver_bytes()),
            area(role::RECEIVEQ1_DEVICE, Section::Host, ring.device_bytes()),
            buffers(role::RECEIVEQ1_BUFFERS),
            area(role::TRANSMITQ1_DRIVER, Section::Guest, ring.driver_bytes()),
            area(role::TRANSMITQ1_DEVICE, Section::Host, ring.device_bytes()),
            buffers(role::TRANSMITQ1_BUFFERS),
            RegionRequest {
                role: role::POSITIONS,
                kind: RegionKind::Table {
                    slots: 2,
                    slot_bytes,
                },
                section: Section::Host,
                bytes: positions,
                signal: None,
            },
        ]
    }

    fn start(&mut self, _: &Regions) -> Result<(), ActivateError> {
        Ok(())
    }

    fn activate(
        &mut self,
        session: SessionId,
        regions: &Regions,
        features: Features,
    ) -> Result<(), ActivateError> {
        self.detach(session);
        let port = SplitPort::over_split_rings(&device_regions(regions)?, self.memory, features)?;
        let positions = regions.get(role::POSITIONS)?.clone();
        let positions = TypedWriter::create(positions, 2, Epoch::FIRST, vec![0; 2])?;
        let Some(station) = self.stations.get_mut(&session) else {
            return Err(NoRegion::Missing {
                role: role::RECEIVEQ1_DRIVER,
            }
            .into());
        };
        let port = self
            .switch
            .attach(Box::new(port), Sources::Only(station.mac))?;
        station.active = Some(Active {
            port,
            positions,
            is_busy: true,
        });
        self.sessions.insert(port, session);
        self.busy.push_back(Busy::Guest(session));
        self.wake_uplinks();
        Ok(())
    }

    fn deactivate(&mut self, session: SessionId) {
        self.detach(session);
    }

    fn leave(&mut self, session: SessionId) {
        self.detach(session);
        self.stations.remove(&session);
    }

    fn signalled(&mut self, session: SessionId, _: u16, outbox: &mut Outbox) -> Progress {
        self.poll(Busy::Guest(session), outbox);
        self.progress()
    }

    fn resume(&mut self, outbox: &mut Outbox) -> Progress {
        for _ in 0..self.busy.len() {
            let Some(who) = self.busy.pop_front() else {
                break;
            };
            match who {
                Busy::Guest(session) => {
                    let station = self.stations.get_mut(&session);
                    if let Some(active) = station.and_then(|station| station.active.as_mut()) {
                        active.is_busy = false;
                    }
                }
                Busy::Uplink(index) => self.uplinks[index].is_busy = false,
            }
            self.poll(who, outbox);
        }
        self.progress()
    }

    fn tick(&mut self, now_ns: u64, outbox: &mut Outbox) {
        for index in 0..self.uplinks.len() {
            if self.uplinks[index].due_ns.is_some_and(|due| due <= now_ns) {
                self.poll(Busy::Uplink(index), outbox);
            }
        }
    }

    fn next_tick(&self) -> Option<u64> {
        self.uplinks.iter().filter_map(|uplink| uplink.due_ns).min()
    }

    fn descriptors(&self) -> Vec<(BorrowedFd<'_>, Priority)> {
        self.uplinks
            .iter()
            .filter_map(|uplink| Some((uplink.descriptor.as_ref()?.as_fd(), PRIORITY)))
            .collect()
    }

    fn ready(&mut self, index: usize, outbox: &mut Outbox) -> Progress {
        let mut with_descriptor =
            (0..self.uplinks.len()).filter(|uplink| self.uplinks[*uplink].descriptor.is_some());
        if let Some(uplink) = with_descriptor.nth(index) {
            self.poll(Busy::Uplink(uplink), outbox);
        }
        self.progress()
    }

    fn faulted(&mut self) -> Option<(SessionId, String)> {
        self.faulted.pop_front()
    }

    fn counters(&self, values: &mut [u64; COUNTERS]) {
        let ports = self.switch.ports().filter_map(|port| self.switch.counters(port));
        let total = ports.fold(self.departed, sum);
        values[..COUNTER_NAMES.len()].copy_from_slice(&[
            self.switch.ports().count() as u64,
            total.received_frames,
            total.received_bytes,
            total.dropped_full,
            total.dropped_too_long,
            total.dropped_malformed,
            total.dropped_spoofed,
        ]);
    }
}

impl NetDevice {
    fn progress(&self) -> Progress {
        if self.busy.is_empty() {
            Progress::Idle
        } else {
            Progress::More
        }
    }
}

/// The guest's driver over a session's regions, and the geometry that they have.
///
/// # Errors
///
/// If the regions are not what a net device has.
pub fn attach(
    regions: &Regions,
    config: &NetConfig,
    features: Features,
) -> Result<(NetDriver<DriverRing<Mapped>, Mapped>, QueueMemory), ActivateError> {
    let size = regions.ring_size(role::RECEIVEQ1_DRIVER)?;
    let memory = QueueMemory::new(size, config.mtu)?;
    let driver = NetDriver::over_split_rings(&device_regions(regions)?, memory, features)?;
    Ok((driver, memory))
}
