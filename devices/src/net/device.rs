//! The net device on the bus: a switch with a port for each guest.

mod port;
mod regions;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, VecDeque};
use std::ops::Add;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Instant;

use shmbus_ring::{RingFeatures, RingKind, SetupError};
use shmbus_shm::RingFormat;
use shmbus_signal::Priority;
use shmbus_virtio::DeviceId;

use self::port::{NetPort, RingPort};
pub use self::regions::attach;
use super::addresses::Sources;
use super::config::NetConfig;
use super::mac_address::MacAddress;
use super::pcap::{Recorder, Replay};
use super::queues::{FEATURES, QueueMemory};
use super::switch::{PortCounters, PortId, Switch, SwitchLimits};
use super::tap::Tap;
use crate::device::{
    ActivateError, CONFIG_WORDS, COUNTERS, Device, Outbox, Progress, RegionRequest, Regions,
    SessionId,
};

/// The roles of the device's regions in a session.
pub mod role {
    /// receiveq1: what the guest writes of the ring.
    pub const RECEIVEQ1_DRIVER: u16 = 0;
    /// receiveq1: what the host writes of the ring.
    pub const RECEIVEQ1_DEVICE: u16 = 1;
    /// receiveq1: buffers; both write.
    pub const RECEIVEQ1_BUFFERS: u16 = 2;
    /// receiveq1: what both write of the ring; not of a split one.
    pub const RECEIVEQ1_COMMON: u16 = 3;
    /// transmitq1: what the guest writes of the ring.
    pub const TRANSMITQ1_DRIVER: u16 = 4;
    /// transmitq1: what the host writes of the ring.
    pub const TRANSMITQ1_DEVICE: u16 = 5;
    /// transmitq1: buffers. The guest writes them; they lie with the others in common memory, which no third party
    /// is shown.
    pub const TRANSMITQ1_BUFFERS: u16 = 6;
    /// transmitq1: what both write of the ring; not of a split one.
    pub const TRANSMITQ1_COMMON: u16 = 7;
    /// Table of [`RingState`](crate::RingState): how far the device has come in receiveq1 and transmitq1; the host
    /// writes.
    pub const DEVICE_POSITIONS: u16 = 8;
    /// The same of the driver; the guest writes.
    pub const DRIVER_POSITIONS: u16 = 9;
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
    rings: RingKind,
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

impl NetDevice {
    /// A switch without uplinks, for packets of up to `mtu` bytes without their Ethernet header, with split rings.
    ///
    /// # Errors
    ///
    /// [`SetupError::Size`]; not expected.
    pub fn new(mtu: u16) -> Result<Self, SetupError> {
        Self::with_rings(RingKind::plain(RingFormat::Split), mtu)
    }

    /// The same with rings of another type. The format is the memory's, so a driver must accept it; it may decline that
    /// buffers are used in order.
    ///
    /// # Errors
    ///
    /// [`SetupError`] for a format that there is not.
    pub fn with_rings(rings: RingKind, mtu: u16) -> Result<Self, SetupError> {
        Ok(Self {
            switch: Switch::new(SwitchLimits::default()),
            rings,
            memory: QueueMemory::in_format(rings.format, QUEUE_SIZE, mtu)?,
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
        self.flush(outbox);
    }

    /// When an uplink has its next frame, in nanoseconds of `CLOCK_MONOTONIC`, if it knows.
    fn due(&self, uplink: &Uplink) -> Option<u64> {
        self.switch.port(uplink.port)?.next_due()
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

    /// Publishes what was moved, and hands on whom to signal.
    fn flush(&mut self, outbox: &mut Outbox) {
        let Self {
            switch, sessions, ..
        } = self;
        switch.flush(|id, _, notifications| {
            let Some(session) = sessions.get(&id) else {
                return;
            };
            outbox.send(*session, role::RECEIVEQ1_DEVICE, notifications.receiveq);
            outbox.send(*session, role::TRANSMITQ1_DEVICE, notifications.transmitq);
        });
        while let Some((port, error)) = switch.next_fault() {
            match self.sessions.get(&port) {
                Some(session) => self.faulted.push_back((*session, error.to_string())),
                None => {
                    let port = port.index();
                    tracing::error!(port, %error, "nothing crosses this port of the switch any more");
                }
            }
        }
    }

    fn progress(&self) -> Progress {
        if self.busy.is_empty() {
            Progress::Idle
        } else {
            Progress::More
        }
    }

    fn detach(&mut self, session: SessionId) {
        let station = self.stations.get_mut(&session);
        let Some(active) = station.and_then(|station| station.active.take()) else {
            return;
        };
        if let Some(counters) = self.switch.counters(active.port) {
            self.departed = self.departed + counters;
        }
        self.sessions.remove(&active.port);
        self.switch.detach(active.port);
        self.busy
            .retain(|who| !matches!(who, Busy::Guest(busy) if *busy == session));
        self.faulted.retain(|(faulted, _)| *faulted != session);
    }
}

/// A locally administered address that says where it comes from.
fn station_address(number: u16) -> MacAddress {
    let [high, low] = number.to_be_bytes();
    MacAddress([0x02, b's', b'h', b'm', high, low])
}

impl Device for NetDevice {
    fn id(&self) -> DeviceId {
        DeviceId::NET
    }

    fn features(&self) -> RingFeatures {
        let private = self.rings.private_features();
        RingFeatures::from(FEATURES | self.rings.features()).with_private(private)
    }

    fn config(&mut self, session: SessionId) -> [u64; CONFIG_WORDS] {
        let mac = match self.stations.get(&session) {
            Some(station) => station.mac,
            None => self.free_address(),
        };
        let station = Station { mac, active: None };
        self.stations.entry(session).or_insert(station);
        let config = NetConfig {
            mtu: self.memory.mtu(),
            ..NetConfig::new(mac)
        };
        let mut words = [0; CONFIG_WORDS];
        words[..NetConfig::WORDS].copy_from_slice(&config.encode_words());
        words
    }

    fn regions(&self) -> Vec<RegionRequest> {
        regions::requests(self.memory)
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
        self.detach(session);
        let queues = regions::queues(regions)?;
        let mut port = RingPort::over_rings(&queues, self.memory, features)?;
        port.publish_positions(regions.get(role::DEVICE_POSITIONS)?.clone())?;
        let Some(station) = self.stations.get_mut(&session) else {
            return Err(format!("session {} has no port on this switch", session.0).into());
        };
        let port = self
            .switch
            .attach(Box::new(port), Sources::Only(station.mac))?;
        station.active = Some(Active {
            port,
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

    fn leave(&mut self, session: SessionId, _: &mut Outbox) {
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

    fn next_tick(&self) -> Option<u64> {
        let ports = self.uplinks.iter();
        ports.filter_map(|uplink| self.due(uplink)).min()
    }

    fn tick(&mut self, now: u64, outbox: &mut Outbox) -> Progress {
        for index in 0..self.uplinks.len() {
            if self.due(&self.uplinks[index]).is_some_and(|due| due <= now) {
                self.poll(Busy::Uplink(index), outbox);
            }
        }
        self.progress()
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
        let ports = self
            .switch
            .ports()
            .filter_map(|port| self.switch.counters(port));
        let total = ports.fold(self.departed, PortCounters::add);
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
