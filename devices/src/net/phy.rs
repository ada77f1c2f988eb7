//! smoltcp's view of a port.
//!
//! smoltcp parses and builds frames in private buffers; each frame is copied once between those and the port. TCP
//! checksums are taken out of its hands: what came from the same bus is not checked again, what came from a wire is
//! checked here, and what is sent is left partial where the other side can finish it.

use smoltcp::phy::{Checksum as ChecksumUse, Device, DeviceCapabilities, Medium, RxToken, TxToken};
use smoltcp::time::Instant;

use super::checksum;
use super::port::{Checksum, ETHERNET_HEADER_BYTES, Port, PortError, Received, Sent};

/// The longest frame that smoltcp can build: an IPv4 packet's length has 16 bits.
const BUFFER_BYTES: usize = ETHERNET_HEADER_BYTES + u16::MAX as usize;

/// How many frames that are no use one call looks at before it lets others have their turn.
const MAX_DISCARDED: u32 = 64;

/// What went through the stack's port.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StackCounters {
    /// Frames that smoltcp was given.
    pub received_frames: u64,
    /// Their bytes.
    pub received_bytes: u64,
    /// Frames that smoltcp sent.
    pub sent_frames: u64,
    /// Their bytes.
    pub sent_bytes: u64,
    /// Frames that were malformed, too long, or had a wrong TCP checksum.
    pub discarded_frames: u64,
    /// Frames of smoltcp's that the port did not take.
    pub unsent_frames: u64,
}

/// A port, with the private buffers that smoltcp works in.
pub(super) struct Phy<P> {
    pub(super) port: P,
    pub(super) counters: StackCounters,
    /// What the port latched: from then on there are no frames.
    pub(super) fault: Option<PortError>,
    /// Useless frames kept one call from finding out whether there are more.
    pub(super) interrupted: bool,
    mtu: u16,
    incoming: Box<[u8]>,
    outgoing: Box<[u8]>,
}

impl<P: Port> Phy<P> {
    pub(super) fn new(port: P, mtu: u16) -> Self {
        Self {
            port,
            counters: StackCounters::default(),
            fault: None,
            interrupted: false,
            mtu,
            incoming: vec![0; BUFFER_BYTES].into(),
            outgoing: vec![0; BUFFER_BYTES].into(),
        }
    }

    /// Moves the next good frame into the private buffer; returns its bytes.
    fn next_frame(&mut self) -> Option<usize> {
        for _ in 0..MAX_DISCARDED {
            match self.port.receive(&mut self.incoming) {
                Ok(Received::Frame { bytes, checksum })
                    if checksum != Checksum::InFrame
                        || checksum::is_intact(&self.incoming[..bytes]) =>
                {
                    self.counters.received_frames += 1;
                    self.counters.received_bytes += bytes as u64;
                    return Some(bytes);
                }
                Ok(Received::Frame { .. } | Received::Discarded) => {
                    self.counters.discarded_frames += 1
                }
                Ok(Received::Empty) => return None,
                Err(error) => {
                    self.fault = Some(error);
                    return None;
                }
            }
        }
        self.interrupted = true;
        None
    }
}

impl<P: Port> Device for Phy<P> {
    type RxToken<'a>
        = Incoming<'a>
    where
        Self: 'a;
    type TxToken<'a>
        = Outgoing<'a, P>
    where
        Self: 'a;

    fn receive(&mut self, _: Instant) -> Option<(Incoming<'_>, Outgoing<'_, P>)> {
        // Without room for an answer the frame waits: an answer that does not fit would be lost.
        if self.fault.is_some() || !self.port.can_send() {
            return None;
        }
        let bytes = self.next_frame()?;
        let outgoing = Outgoing {
            port: &mut self.port,
            counters: &mut self.counters,
            fault: &mut self.fault,
            frame: &mut self.outgoing,
        };
        Some((Incoming(&self.incoming[..bytes]), outgoing))
    }

    fn transmit(&mut self, _: Instant) -> Option<Outgoing<'_, P>> {
        if self.fault.is_some() || !self.port.can_send() {
            return None;
        }
        Some(Outgoing {
            port: &mut self.port,
            counters: &mut self.counters,
            fault: &mut self.fault,
            frame: &mut self.outgoing,
        })
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ethernet;
        capabilities.max_transmission_unit = ETHERNET_HEADER_BYTES + usize::from(self.mtu);
        capabilities.checksum.tcp = ChecksumUse::None;
        capabilities
    }
}

/// A received frame, in its private buffer.
pub(super) struct Incoming<'a>(&'a [u8]);

impl RxToken for Incoming<'_> {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, parse: F) -> R {
        parse(self.0)
    }
}

/// Permission to send one frame.
pub(super) struct Outgoing<'a, P> {
    port: &'a mut P,
    counters: &'a mut StackCounters,
    fault: &'a mut Option<PortError>,
    frame: &'a mut [u8],
}

impl<P: Port> TxToken for Outgoing<'_, P> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, len: usize, build: F) -> R {
        // smoltcp's frames are never longer than the buffer, see `BUFFER_BYTES`.
        let frame = &mut self.frame[..len];
        let result = build(frame);
        let mut checksum = checksum::leave_partial(frame);
        if let Checksum::Partial { start, offset } = checksum
            && !self.port.takes_partial_checksums()
        {
            checksum::complete(frame, start, offset);
            checksum = Checksum::InFrame;
        }
        match self.port.send(frame, checksum) {
            Ok(Sent::Taken) => {
                self.counters.sent_frames += 1;
                self.counters.sent_bytes += len as u64;
            }
            Ok(Sent::Full | Sent::TooLong) => self.counters.unsent_frames += 1,
            Err(error) => *self.fault = Some(error),
        }
        result
    }
}
