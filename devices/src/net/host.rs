//! The host's end of a guest's device: two queues as a port of the switch.
//!
//! Everything that the guest wrote is copied once into private memory before it is looked at. A guest that breaks the
//! rules stops its own port, with a [`GuestError`]; the others go on.

use core::fmt;

use shmbus_ring::any::DeviceRing;
use shmbus_ring::{
    Buffer, ChainHead, DeviceFault, DeviceFormat, DeviceQueue, DeviceSlot, Positions, RingFeatures,
    SetupError,
};
use shmbus_shm::{AddressError, AddressSpace, Mapped, Notify, OffsetSpace, Window};
use shmbus_table::TableError;
use shmbus_virtio::{Features, net};

use super::config::max_frame_bytes;
use super::header::{HEADER_BYTES, HeaderError, NetHeader};
use super::port::{
    Checksum, ETHERNET_HEADER_BYTES, Notifications, Port, PortError, Received, Sent,
};
use super::queues::{DeviceRegions, QueueMemory, QueueName};
use crate::ring_state::{RingState, RingStates};

/// A queue with its private storage.
pub type GuestQueue<F> = DeviceQueue<F, Vec<DeviceSlot>>;

/// After so many frames they are shown to the guest, although the batch goes on: it can work on them meanwhile.
const PUBLISH_EVERY: u32 = 16;

/// What a guest did wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum GuestError {
    /// A queue is not what it must be.
    #[error("{queue}: {fault}")]
    Queue {
        /// The queue.
        queue: QueueName,
        /// What was found in it.
        fault: DeviceFault,
    },
    /// A frame's header asks for what was not negotiated.
    #[error("the header of a transmitted frame: {0}")]
    Header(#[from] HeaderError),
    /// A receive buffer is too small (virtio 1.4, section 5.1.6.3.1).
    #[error("a receive buffer has {found} bytes, {expected} were expected at least")]
    SmallBuffer {
        /// Its writable bytes.
        found: u64,
        /// Bytes of a header and of the frame that it was for.
        expected: u64,
    },
}

/// The port of one guest. `S` is where the descriptors' addresses lead.
pub struct GuestPort<F, S> {
    receiveq: Queue<F, S>,
    transmitq: Queue<F, S>,
    /// Frames in the receive queue that the guest has not been shown.
    unpublished: u32,
    /// What earlier publications of the batch decided.
    notify_receiveq: Notify,
    /// Scratch memory for a chain's buffers.
    segments: Box<[Buffer]>,
    max_frame_bytes: usize,
    guest_csum: bool,
    csum: bool,
    fault: Option<GuestError>,
    /// Where it tells observers how far it has come.
    states: Option<RingStates<Mapped>>,
}

/// A queue and the address space of its buffers.
struct Queue<F, S> {
    name: QueueName,
    queue: GuestQueue<F>,
    space: S,
}

impl<F: DeviceFormat, S: AddressSpace> Queue<F, S> {
    fn fault(&self, fault: DeviceFault) -> GuestError {
        let queue = self.name;
        GuestError::Queue { queue, fault }
    }

    /// Stops the queue because a chain's buffers are not where the guest said.
    fn unreachable(&mut self, chain: ChainHead, reason: AddressError) -> GuestError {
        let fault = self.queue.fail(chain, reason);
        self.fault(fault)
    }

    /// Shows the guest what was completed, and observers how far the host has come.
    fn publish(&mut self, states: &mut Option<RingStates<Mapped>>) -> Notify {
        let notify = self.queue.publish();
        if let Some(states) = states {
            states.publish(self.name.slot(), self.state());
        }
        notify
    }

    fn state(&self) -> RingState {
        RingState {
            kind: self.queue.kind(),
            size: self.queue.size(),
            positions: self.queue.positions(),
        }
    }

    fn complete(&mut self, chain: ChainHead, written: usize) {
        // It was taken from this queue, and no more was written than fits into it: this cannot fail.
        let _ = self.queue.complete(chain, written as u32);
    }
}

/// A frame in a transmit chain, copied out of it.
struct Taken {
    chain: ChainHead,
    header: NetHeader,
    /// Bytes of the frame in the chain; only as many as the buffer has were copied.
    bytes: u64,
}

impl<W: Window> GuestPort<DeviceRing<W>, OffsetSpace<W>> {
    /// A port over the rings that were negotiated, in a device's regions, see [`GuestPort::new`]. Nothing is written but
    /// what the device or both sides write of the rings, and the buffers of receiveq1: the rest may be mapped for reading
    /// only.
    ///
    /// # Errors
    ///
    /// [`SetupError`] when a region is too short, or the memory is laid out for rings of another format.
    pub fn over_rings(
        regions: &DeviceRegions<W>,
        memory: QueueMemory,
        features: impl Into<RingFeatures>,
    ) -> Result<Self, SetupError> {
        let features = features.into();
        let DeviceRegions {
            receiveq,
            transmitq,
        } = regions;
        Ok(Self::new(
            DeviceQueue::with_heap(DeviceRing::new(receiveq.areas(memory)?, features)?),
            OffsetSpace::new(receiveq.buffers.clone()),
            DeviceQueue::with_heap(DeviceRing::new(transmitq.areas(memory)?, features)?),
            OffsetSpace::read_only(transmitq.buffers.clone()),
            features.virtio,
            memory.mtu(),
        ))
    }
}

impl<F: DeviceFormat, S: AddressSpace> GuestPort<F, S> {
    /// A port over the two queues of a driver that accepted `features`. The descriptors' addresses in each queue are
    /// of the space beside it. No frame goes to the guest that is longer than a link with this MTU has.
    pub fn new(
        mut receiveq: GuestQueue<F>,
        receive_space: S,
        transmitq: GuestQueue<F>,
        transmit_space: S,
        features: Features,
        mtu: u16,
    ) -> Self {
        // Receive buffers are looked for when there is a frame for them.
        receiveq.disable_notifications();
        let segments = receiveq.size().max(transmitq.size());
        Self {
            receiveq: Queue {
                name: QueueName::Receiveq(0),
                queue: receiveq,
                space: receive_space,
            },
            transmitq: Queue {
                name: QueueName::Transmitq(0),
                queue: transmitq,
                space: transmit_space,
            },
            unpublished: 0,
            notify_receiveq: Notify::No,
            segments: vec![Buffer::default(); usize::from(segments)].into(),
            max_frame_bytes: max_frame_bytes(mtu),
            guest_csum: features.contains(net::GUEST_CSUM),
            csum: features.contains(net::CSUM),
            fault: None,
            states: None,
        }
    }

    /// What the guest did wrong, if it did.
    pub fn fault(&self) -> Option<GuestError> {
        self.fault
    }

    /// How far the host has come in receiveq1 and transmitq1.
    pub fn positions(&self) -> [Positions; 2] {
        [
            self.receiveq.queue.positions(),
            self.transmitq.queue.positions(),
        ]
    }

    /// From now on publishes, with each batch, how far it has come: as a table of [`RingState`] in `table`, which only
    /// the host writes, receiveq1 in slot 0 and transmitq1 in slot 1.
    ///
    /// # Errors
    ///
    /// [`TableError`] if the memory does not do for a table.
    pub fn publish_positions(&mut self, table: Mapped) -> Result<(), TableError> {
        let mut states = RingStates::create(table, QueueName::COUNT)?;
        for queue in [&self.receiveq, &self.transmitq] {
            states.publish(queue.name.slot(), queue.state());
        }
        self.states = Some(states);
        Ok(())
    }

    /// Starts over, for a driver that reset the device.
    pub fn reset(&mut self) {
        self.receiveq.queue.reset();
        self.receiveq.queue.disable_notifications();
        self.transmitq.queue.reset();
        self.unpublished = 0;
        self.notify_receiveq = Notify::No;
        self.fault = None;
    }

    /// Takes the next chain of the transmit queue and copies it out: the guest may change it at any moment.
    fn take_transmitted(&mut self, frame: &mut [u8]) -> Result<Option<Taken>, GuestError> {
        let transmitq = &mut self.transmitq;
        let mut taken = transmitq.queue.take(&transmitq.space, &mut self.segments);
        if let Ok(None) = taken {
            match is_more_available(&mut transmitq.queue) {
                Ok(true) => taken = transmitq.queue.take(&transmitq.space, &mut self.segments),
                Ok(false) => return Ok(None),
                Err(fault) => return Err(transmitq.fault(fault)),
            }
        }
        let chain = match taken {
            Ok(Some(chain)) => chain,
            Ok(None) => return Ok(None),
            Err(fault) => return Err(transmitq.fault(fault)),
        };
        let mut header = [0; HEADER_BYTES];
        let copied = chain
            .read(&transmitq.space, 0, &mut header)
            .and_then(|_| chain.read(&transmitq.space, HEADER_BYTES, frame));
        let bytes = chain.readable_bytes().saturating_sub(HEADER_BYTES as u64);
        let chain = chain.into_head();
        match copied {
            Ok(_) => Ok(Some(Taken {
                chain,
                header: NetHeader::parse(&header),
                bytes,
            })),
            Err(reason) => Err(transmitq.unreachable(chain, reason)),
        }
    }

    fn take_frame(&mut self, frame: &mut [u8]) -> Result<Received, GuestError> {
        let Some(Taken {
            chain,
            header,
            bytes,
        }) = self.take_transmitted(frame)?
        else {
            return Ok(Received::Empty);
        };
        self.transmitq.complete(chain, 0);
        if bytes < ETHERNET_HEADER_BYTES as u64 || bytes > frame.len() as u64 {
            return Ok(Received::Discarded);
        }
        let bytes = bytes as usize;
        let checksum = match header.checksum(bytes, self.csum)? {
            // A driver must not say so, and its word would be worth nothing.
            Checksum::Verified => Checksum::InFrame,
            other => other,
        };
        Ok(Received::Frame { bytes, checksum })
    }

    fn place_frame(&mut self, frame: &[u8], checksum: Checksum) -> Result<Sent, GuestError> {
        if frame.len() > self.max_frame_bytes {
            return Ok(Sent::TooLong);
        }
        let receiveq = &mut self.receiveq;
        let mut taken = receiveq.queue.take(&receiveq.space, &mut self.segments);
        if let Ok(None) = taken {
            match receiveq.queue.poll() {
                Ok(0) => return Ok(Sent::Full),
                Ok(_) => taken = receiveq.queue.take(&receiveq.space, &mut self.segments),
                Err(fault) => return Err(receiveq.fault(fault)),
            }
        }
        let chain = match taken {
            Ok(Some(chain)) => chain,
            Ok(None) => return Ok(Sent::Full),
            Err(fault) => return Err(receiveq.fault(fault)),
        };
        let found = chain.writable_bytes();
        let expected = HEADER_BYTES + frame.len();
        if found < expected as u64 {
            let expected = expected as u64;
            return Err(GuestError::SmallBuffer { found, expected });
        }
        let header = NetHeader::receive(checksum, self.guest_csum).emit();
        let copied = chain
            .write(&receiveq.space, 0, &header)
            .and_then(|_| chain.write(&receiveq.space, HEADER_BYTES, frame));
        let chain = chain.into_head();
        if let Err(reason) = copied {
            return Err(receiveq.unreachable(chain, reason));
        }
        receiveq.complete(chain, expected);
        self.unpublished += 1;
        if self.unpublished >= PUBLISH_EVERY {
            self.publish_received();
        }
        Ok(Sent::Taken)
    }

    fn publish_received(&mut self) {
        self.unpublished = 0;
        let notify = self.receiveq.publish(&mut self.states);
        self.notify_receiveq = self.notify_receiveq.or(notify);
    }

    fn check(&self) -> Result<(), GuestError> {
        self.fault.map_or(Ok(()), Err)
    }

    fn latch<T>(&mut self, outcome: Result<T, GuestError>) -> Result<T, PortError> {
        outcome.map_err(|error| PortError::Guest(*self.fault.get_or_insert(error)))
    }
}

/// Looks for chains; asks to be told of the next one when there is none.
fn is_more_available<F: DeviceFormat>(queue: &mut GuestQueue<F>) -> Result<bool, DeviceFault> {
    if queue.poll()? > 0 {
        return Ok(true);
    }
    // One that came before the guest could see the wish is not told of.
    Ok(!queue.enable_notifications().is_empty() && queue.poll()? > 0)
}

impl<F: DeviceFormat, S: AddressSpace> Port for GuestPort<F, S> {
    fn receive(&mut self, frame: &mut [u8]) -> Result<Received, PortError> {
        let outcome = self.check().and_then(|()| self.take_frame(frame));
        self.latch(outcome)
    }

    fn send(&mut self, frame: &[u8], checksum: Checksum) -> Result<Sent, PortError> {
        let outcome = self
            .check()
            .and_then(|()| self.place_frame(frame, checksum));
        self.latch(outcome)
    }

    fn takes_partial_checksums(&self) -> bool {
        self.guest_csum
    }

    fn flush(&mut self) -> Notifications {
        self.publish_received();
        Notifications {
            receiveq: std::mem::replace(&mut self.notify_receiveq, Notify::No),
            transmitq: self.transmitq.publish(&mut self.states),
        }
    }
}

impl<F, S> fmt::Debug for GuestPort<F, S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GuestPort")
            .field("max_frame_bytes", &self.max_frame_bytes)
            .field("fault", &self.fault)
            .finish_non_exhaustive()
    }
}
