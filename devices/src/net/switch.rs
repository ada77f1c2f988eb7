//! A learning switch: frames go to the port that their destination is behind, or to all ports while that is not
//! known (IEEE 802.1D's bridge, without spanning trees: a bus has no loops).
//!
//! A frame is copied once into the switch's own buffer, judged there, and copied from there into the ports that it
//! goes to; nothing is allocated for it. A port without room loses the frame, which is counted: a stalled guest does
//! not stall the others.

use std::ops::Add;
use std::time::{Duration, SystemTime};

use slab::Slab;

use super::addresses::{AddressTable, AddressTaken, Admission, LearningTimes, Sources};
use super::checksum;
use super::mac_address::MacAddress;
use super::pcap::Recorder;
use super::port::{
    Checksum, ETHERNET_HEADER_BYTES, Notifications, Port, PortError, Received, Sent,
};

/// A port's number. It is free for another port once its own is detached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PortId(usize);

impl PortId {
    /// The number, counted from 0: the lowest that was free.
    pub fn index(self) -> usize {
        self.0
    }
}

impl core::fmt::Display for PortId {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "port {}", self.0)
    }
}

/// What went through a port, as the switch sees it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PortCounters {
    /// Frames that came in by the port.
    pub received_frames: u64,
    /// Their bytes.
    pub received_bytes: u64,
    /// Frames that went out by the port.
    pub sent_frames: u64,
    /// Their bytes.
    pub sent_bytes: u64,
    /// Frames for the port that found no room.
    pub dropped_full: u64,
    /// Frames for the port that it can never take.
    pub dropped_too_long: u64,
    /// Frames from the port that were no Ethernet frames.
    pub dropped_malformed: u64,
    /// Frames from the port whose source address it may not use.
    pub dropped_spoofed: u64,
}

impl PortCounters {
    /// All frames that were lost at the port, for whatever reason.
    pub fn dropped(&self) -> u64 {
        self.dropped_full + self.dropped_too_long + self.dropped_malformed + self.dropped_spoofed
    }
}

impl Add for PortCounters {
    type Output = Self;

    /// Saturates.
    fn add(self, other: Self) -> Self {
        let sum = u64::saturating_add;
        Self {
            received_frames: sum(self.received_frames, other.received_frames),
            received_bytes: sum(self.received_bytes, other.received_bytes),
            sent_frames: sum(self.sent_frames, other.sent_frames),
            sent_bytes: sum(self.sent_bytes, other.sent_bytes),
            dropped_full: sum(self.dropped_full, other.dropped_full),
            dropped_too_long: sum(self.dropped_too_long, other.dropped_too_long),
            dropped_malformed: sum(self.dropped_malformed, other.dropped_malformed),
            dropped_spoofed: sum(self.dropped_spoofed, other.dropped_spoofed),
        }
    }
}

/// How large a switch may get.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SwitchLimits {
    /// Ports at a time.
    pub ports: usize,
    /// Bytes of the longest frame; longer ones are discarded.
    pub frame_bytes: usize,
    /// How long what was learned holds.
    pub times: LearningTimes,
}

impl Default for SwitchLimits {
    fn default() -> Self {
        Self {
            ports: 1024,
            frame_bytes: super::config::max_frame_bytes(super::config::MAX_MTU),
            times: LearningTimes::default(),
        }
    }
}

/// A port cannot be attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AttachError {
    /// All ports are in use.
    #[error("the switch already has its {0} ports")]
    NoPortLeft(usize),
    /// The address that the port is to own names no single interface.
    #[error("{0} cannot be a port's own address")]
    NotAStation(MacAddress),
    /// Another port owns the address.
    #[error(transparent)]
    AddressTaken(#[from] AddressTaken),
}

/// What one [`Switch::poll`] did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Polled {
    /// Frames that were taken from the port.
    pub frames: u32,
    /// Whether the budget was used up: there may be more.
    pub more: bool,
}

struct Attached<P> {
    port: P,
    counters: PortCounters,
    /// What the port latched. It is left alone until it is revived.
    fault: Option<PortError>,
    stopped: bool,
    /// Something was moved since the last flush: the port is in [`Switch::touched`].
    touched: bool,
}

/// The switch and its ports.
pub struct Switch<P> {
    ports: Slab<Attached<P>>,
    addresses: AddressTable,
    limits: SwitchLimits,
    /// The frame that is being forwarded: private, so that what was judged is what is sent.
    frame: Box<[u8]>,
    recorder: Option<Recorder>,
    /// The ports that the next flush has something to do for.
    touched: Vec<usize>,
}

impl<P: Port> Switch<P> {
    /// A switch without ports.
    pub fn new(limits: SwitchLimits) -> Self {
        Self {
            ports: Slab::new(),
            addresses: AddressTable::new(limits.times),
            limits,
            frame: vec![0; limits.frame_bytes.max(ETHERNET_HEADER_BYTES)].into(),
            recorder: None,
            touched: Vec::new(),
        }
    }

    /// Records every frame that enters the switch from now on, or stops recording; returns the recorder in use before.
    pub fn record(&mut self, recorder: Option<Recorder>) -> Option<Recorder> {
        std::mem::replace(&mut self.recorder, recorder)
    }

    /// Adds a port.
    ///
    /// # Errors
    ///
    /// [`AttachError`]; the port is dropped then.
    pub fn attach(&mut self, port: P, sources: Sources) -> Result<PortId, AttachError> {
        if self.ports.len() >= self.limits.ports {
            return Err(AttachError::NoPortLeft(self.limits.ports));
        }
        if let Sources::Only(address) = sources
            && !address.is_station()
        {
            return Err(AttachError::NotAStation(address));
        }
        let entry = self.ports.vacant_entry();
        let id = entry.key();
        self.addresses.attach(id, sources)?;
        entry.insert(Attached {
            port,
            counters: PortCounters::default(),
            fault: None,
            stopped: false,
            touched: false,
        });
        // So that a frame that touches a port does not allocate.
        self.touched.reserve(self.ports.len());
        Ok(PortId(id))
    }

    /// Removes a port and forgets its addresses.
    pub fn detach(&mut self, id: PortId) -> Option<P> {
        self.addresses.detach(id.0);
        self.touched.retain(|touched| *touched != id.0);
        self.ports.try_remove(id.0).map(|attached| attached.port)
    }

    /// A port, to look at.
    pub fn port(&self, id: PortId) -> Option<&P> {
        self.ports.get(id.0).map(|attached| &attached.port)
    }

    /// A port, to reset it.
    pub fn port_mut(&mut self, id: PortId) -> Option<&mut P> {
        self.ports.get_mut(id.0).map(|attached| &mut attached.port)
    }

    /// A port's counters.
    pub fn counters(&self, id: PortId) -> Option<PortCounters> {
        self.ports.get(id.0).map(|attached| attached.counters)
    }

    /// The ports that are attached.
    pub fn ports(&self) -> impl Iterator<Item = PortId> + '_ {
        self.ports.iter().map(|(id, _)| PortId(id))
    }

    /// Takes at most `budget` frames from a port and forwards them. `now` is the time since any fixed moment.
    ///
    /// Nothing is published and nobody is told before [`Switch::flush`]. What goes wrong is kept for
    /// [`Switch::next_fault`], and stops only the port that it went wrong on.
    pub fn poll(&mut self, id: PortId, budget: u32, now: Duration) -> Polled {
        let mut polled = Polled::default();
        while polled.frames < budget {
            let Some(from) = self.ports.get_mut(id.0).filter(|from| !from.stopped) else {
                return polled;
            };
            match from.port.receive(&mut self.frame) {
                Ok(Received::Frame { bytes, checksum }) => {
                    from.touch(id.0, &mut self.touched);
                    from.counters.received_frames += 1;
                    from.counters.received_bytes += bytes as u64;
                    self.forward(id.0, bytes, checksum, now);
                }
                Ok(Received::Discarded) => {
                    from.touch(id.0, &mut self.touched);
                    from.counters.dropped_malformed += 1;
                }
                Ok(Received::Empty) => return polled,
                Err(error) => {
                    from.stop(error);
                    return polled;
                }
            }
            polled.frames += 1;
        }
        polled.more = true;
        polled
    }

    /// Publishes what was moved, and calls `flushed` for each port that frames went through, with whom to tell.
    pub fn flush(&mut self, mut flushed: impl FnMut(PortId, &mut P, Notifications)) {
        for id in self.touched.drain(..) {
            let Some(attached) = self.ports.get_mut(id) else {
                continue;
            };
            attached.touched = false;
            let notifications = attached.port.flush();
            flushed(PortId(id), &mut attached.port, notifications);
        }
    }

    /// A port that stopped since the last call, and why.
    pub fn next_fault(&mut self) -> Option<(PortId, PortError)> {
        self.ports
            .iter_mut()
            .find_map(|(id, attached)| attached.fault.take().map(|error| (PortId(id), error)))
    }

    /// Uses a stopped port again, after it was reset.
    pub fn revive(&mut self, id: PortId) {
        if let Some(attached) = self.ports.get_mut(id.0) {
            attached.stopped = false;
            attached.fault = None;
        }
    }

    /// Forwards the frame of `bytes` bytes in the buffer.
    fn forward(&mut self, from: usize, bytes: usize, mut checksum: Checksum, now: Duration) {
        let frame = &mut self.frame[..bytes];
        let Some((destination, source)) = addresses(frame) else {
            self.ports[from].counters.dropped_malformed += 1;
            return;
        };
        if self.addresses.admit(from, source, now) == Admission::Refused {
            self.ports[from].counters.dropped_spoofed += 1;
            return;
        }
        if let Some(recorder) = &mut self.recorder {
            finish(frame, &mut checksum);
            recorder.record(frame, SystemTime::now());
        }
        if destination.is_link_local() {
            return;
        }
        let known = match destination.is_group() {
            true => None,
            false => self.addresses.locate(destination, now),
        };
        match known {
            Some(to) if to == from => {} // it is already where it belongs
            Some(id) => {
                if let Some(to) = self.ports.get_mut(id)
                    && to.deliver(frame, &mut checksum)
                {
                    to.touch(id, &mut self.touched);
                }
            }
            None => {
                for (id, to) in &mut self.ports {
                    if id != from && to.deliver(frame, &mut checksum) {
                        to.touch(id, &mut self.touched);
                    }
                }
            }
        }
    }
}

impl<P: Port> Attached<P> {
    /// Sends a frame out by the port; returns whether the port took it.
    fn deliver(&mut self, frame: &mut [u8], checksum: &mut Checksum) -> bool {
        if self.stopped {
            self.counters.dropped_full += 1;
            return false;
        }
        if !self.port.takes_partial_checksums() {
            finish(frame, checksum);
        }
        match self.port.send(frame, *checksum) {
            Ok(Sent::Taken) => {
                self.counters.sent_frames += 1;
                self.counters.sent_bytes += frame.len() as u64;
                return true;
            }
            Ok(Sent::Full) => self.counters.dropped_full += 1,
            Ok(Sent::TooLong) => self.counters.dropped_too_long += 1,
            Err(error) => {
                self.counters.dropped_full += 1;
                self.stop(error);
            }
        }
        false
    }

    /// Notes that the next flush has something to do for the port, whose number is `id`.
    fn touch(&mut self, id: usize, touched: &mut Vec<usize>) {
        if !std::mem::replace(&mut self.touched, true) {
            touched.push(id);
        }
    }

    fn stop(&mut self, error: PortError) {
        self.stopped = true;
        self.fault = Some(error);
    }
}

/// Destination and source of a frame, if it is long enough to have them.
fn addresses(frame: &[u8]) -> Option<(MacAddress, MacAddress)> {
    let header = frame.first_chunk::<ETHERNET_HEADER_BYTES>()?;
    let [a, b, c, d, e, f, g, h, i, j, k, l, ..] = *header;
    Some((
        MacAddress([a, b, c, d, e, f]),
        MacAddress([g, h, i, j, k, l]),
    ))
}

/// Makes a partial checksum whole.
fn finish(frame: &mut [u8], checksum: &mut Checksum) {
    if let Checksum::Partial { start, offset } = *checksum {
        checksum::complete(frame, start, offset);
        *checksum = Checksum::Verified;
    }
}

#[cfg(test)]
mod tests;
