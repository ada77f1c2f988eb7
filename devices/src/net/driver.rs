//! The guest's end: a driver over two queues, as a port that a network stack sits on.
//!
//! The driver owns a buffer for each entry of each queue that it can lend. Frames are copied once between those and the stack's
//! private memory; what the device wrote is copied before it is looked at. A device that breaks the rules stops the
//! driver, with a [`DeviceError`]. Nothing is allocated after the start.

use core::fmt;

use shmbus_ring::any::DriverRing;
use shmbus_ring::{
    Buffer, DriverFault, DriverFormat, DriverQueue, DriverSlot, Positions, RingFeatures, SetupError,
};
use shmbus_shm::{Bytes, Notify, Window, WindowError};
use shmbus_table::TableError;
use shmbus_virtio::{Features, net};

use super::config::max_frame_bytes;
use super::header::{HEADER_BYTES, HeaderError, NetHeader};
use super::port::{
    Checksum, ETHERNET_HEADER_BYTES, Notifications, Port, PortError, Received, Sent,
};
use super::queues::{DeviceRegions, QueueMemory, QueueName};
use crate::ring_state::{RingState, RingStates};

/// After so many frames they are shown to the device, although the batch goes on: it can work on them meanwhile.
const PUBLISH_EVERY: u32 = 16;

/// What the device did wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DeviceError {
    /// A queue is not what it must be.
    #[error("{queue}: {fault}")]
    Queue {
        /// The queue.
        queue: QueueName,
        /// What was found in it.
        fault: DriverFault,
    },
    /// A frame's header says what was not negotiated.
    #[error("the header of a received frame: {0}")]
    Header(#[from] HeaderError),
}

/// The driver cannot be set up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DriverSetupError {
    /// A ring cannot be set up.
    #[error(transparent)]
    Ring(#[from] SetupError),
    /// A region is too short for its buffers.
    #[error("the buffers of {queue}: {source}")]
    Buffers {
        /// The queue.
        queue: QueueName,
        /// Why.
        source: WindowError,
    },
    /// A ring has another size than the memory was laid out for.
    #[error("{queue} has {found} entries, {expected} were expected")]
    Size {
        /// The queue.
        queue: QueueName,
        /// Its size, in entries.
        found: u16,
        /// The size that the memory was laid out for.
        expected: u16,
    },
}

/// A buffer's number: a queue has one for each entry.
type BufferIndex = u16;

/// One queue and its buffers.
struct Queue<F, W> {
    name: QueueName,
    queue: DriverQueue<F, BufferIndex, Vec<DriverSlot<BufferIndex>>>,
    buffers: W,
    buffer_bytes: u32,
    /// Chains that the device has not been shown.
    unpublished: u32,
    /// What earlier publications of the batch decided.
    notify: Notify,
}

impl<F: DriverFormat, W: Window> Queue<F, W> {
    fn new(
        name: QueueName,
        ring: F,
        buffers: &W,
        memory: QueueMemory,
    ) -> Result<Self, DriverSetupError> {
        let (found, expected) = (ring.size(), memory.ring().size());
        if found != expected {
            let queue = name;
            return Err(DriverSetupError::Size {
                queue,
                found,
                expected,
            });
        }
        let buffers = buffers
            .narrow(0, memory.buffers_bytes())
            .map_err(|source| DriverSetupError::Buffers {
                queue: name,
                source,
            })?;
        let slots = core::iter::repeat_with(DriverSlot::new)
            .take(usize::from(found))
            .collect();
        Ok(Self {
            name,
            queue: DriverQueue::new(ring, slots)?,
            buffers,
            buffer_bytes: memory.buffer_bytes(),
            unpublished: 0,
            notify: Notify::No,
        })
    }

    fn offset(&self, index: BufferIndex) -> usize {
        usize::from(index) * self.buffer_bytes as usize
    }

    /// The memory of a buffer.
    fn bytes(&self, index: BufferIndex) -> Option<Bytes<'_, W>> {
        // Indices are below the queue's size, for which `new` proved room.
        Bytes::new(
            &self.buffers,
            self.offset(index),
            self.buffer_bytes as usize,
        )
        .ok()
    }

    fn fault(&self, fault: DriverFault) -> DeviceError {
        let queue = self.name;
        DeviceError::Queue { queue, fault }
    }

    /// Lends a buffer to the device, which may read or write `bytes` of it.
    fn lend(
        &mut self,
        index: BufferIndex,
        bytes: u32,
        writable: bool,
        states: &mut Option<RingStates<W>>,
    ) {
        let buffer = [Buffer::new(self.offset(index) as u64, bytes)];
        let (readable, writable): (&[_], &[_]) = if writable {
            (&[], &buffer)
        } else {
            (&buffer, &[])
        };
        // There are as many buffers as descriptors can be lent, so there is room; a queue that has stopped says so
        // elsewhere.
        if self.queue.add(readable, writable, index).is_ok() {
            self.unpublished += 1;
        }
        if self.unpublished >= PUBLISH_EVERY {
            self.publish(states);
        }
    }

    fn publish(&mut self, states: &mut Option<RingStates<W>>) {
        self.unpublished = 0;
        self.notify = self.notify.or(self.queue.publish());
        if let Some(states) = states {
            states.publish(self.name.slot(), self.state());
        }
    }

    fn state(&self) -> RingState {
        RingState {
            kind: self.queue.kind(),
            size: self.queue.size(),
            positions: self.queue.positions(),
        }
    }

    /// Publishes the rest; what all publications since the last flush decided.
    fn flush(&mut self, states: &mut Option<RingStates<W>>) -> Notify {
        self.publish(states);
        core::mem::replace(&mut self.notify, Notify::No)
    }
}

/// The driver of one net device.
pub struct NetDriver<F, W> {
    receiveq: Queue<F, W>,
    transmitq: Queue<F, W>,
    /// Transmit buffers that the device does not have.
    free: Vec<BufferIndex>,
    max_frame_bytes: usize,
    guest_csum: bool,
    csum: bool,
    fault: Option<DeviceError>,
    /// Where it tells observers how far it has come.
    states: Option<RingStates<W>>,
}

impl<W: Window> NetDriver<DriverRing<W>, W> {
    /// A driver over the rings that were negotiated, in a device's regions, see [`NetDriver::new`].
    ///
    /// # Errors
    ///
    /// [`DriverSetupError`]; also if the memory is laid out for rings of another format.
    pub fn over_rings(
        regions: &DeviceRegions<W>,
        memory: QueueMemory,
        features: impl Into<RingFeatures>,
    ) -> Result<Self, DriverSetupError> {
        let features = features.into();
        let DeviceRegions {
            receiveq,
            transmitq,
        } = regions;
        Self::new(
            DriverRing::new(receiveq.areas(memory)?, features)?,
            &receiveq.buffers,
            DriverRing::new(transmitq.areas(memory)?, features)?,
            &transmitq.buffers,
            memory,
            features.virtio,
        )
    }
}

impl<F: DriverFormat, W: Window> NetDriver<F, W> {
    /// Sets up the queues and lends all receive buffers. `receive_buffers` is memory that both sides write,
    /// `transmit_buffers` memory that the guest writes; both are as `memory` lays them out, and so are the rings'
    /// areas. `features` is what was negotiated. The first [`Port::flush`] shows the buffers to the device.
    ///
    /// # Errors
    ///
    /// [`DriverSetupError`].
    pub fn new(
        receiveq: F,
        receive_buffers: &W,
        transmitq: F,
        transmit_buffers: &W,
        memory: QueueMemory,
        features: Features,
    ) -> Result<Self, DriverSetupError> {
        let mut driver = Self {
            receiveq: Queue::new(QueueName::Receiveq1, receiveq, receive_buffers, memory)?,
            transmitq: Queue::new(QueueName::Transmitq1, transmitq, transmit_buffers, memory)?,
            free: Vec::with_capacity(usize::from(memory.ring().size())),
            max_frame_bytes: max_frame_bytes(memory.mtu()),
            guest_csum: features.contains(net::GUEST_CSUM),
            csum: features.contains(net::CSUM),
            fault: None,
            states: None,
        };
        driver.start();
        Ok(driver)
    }

    /// What the device did wrong, if it did.
    pub fn fault(&self) -> Option<DeviceError> {
        self.fault
    }

    /// How far the driver has come in receiveq1 and transmitq1.
    pub fn positions(&self) -> [Positions; 2] {
        [
            self.receiveq.queue.positions(),
            self.transmitq.queue.positions(),
        ]
    }

    /// From now on publishes, with each batch, how far it has come: as a table of [`RingState`] in `table`, which only
    /// the guest writes, receiveq1 in slot 0 and transmitq1 in slot 1.
    ///
    /// # Errors
    ///
    /// [`TableError`] if the memory does not do for a table.
    pub fn publish_positions(&mut self, table: W) -> Result<(), TableError> {
        let mut states = RingStates::create(table, QueueName::COUNT)?;
        for queue in [&self.receiveq, &self.transmitq] {
            states.publish(queue.name.slot(), queue.state());
        }
        self.states = Some(states);
        Ok(())
    }

    /// Starts over, after the device was reset: before that it may still write to the receive buffers.
    pub fn reset(&mut self) {
        for queue in [&mut self.receiveq, &mut self.transmitq] {
            queue.queue.reset(drop);
            queue.unpublished = 0;
            queue.notify = Notify::No;
        }
        self.fault = None;
        self.start();
    }

    fn start(&mut self) {
        // All descriptors are free: these are as many as can ever be lent, which may be less than the queue has entries.
        let buffers = self.transmitq.queue.free();
        self.free.clear();
        // Last in, first out: the buffer used last is still in the cache.
        self.free.extend((0..buffers).rev());
        // Room in the transmit queue is looked for when it is needed.
        self.transmitq.queue.disable_notifications();
        for index in 0..self.receiveq.queue.free() {
            let bytes = self.receiveq.buffer_bytes;
            self.receiveq.lend(index, bytes, true, &mut self.states);
        }
    }

    /// Takes the next used receive buffer; asks to be told of the next one when there is none.
    fn take_used(&mut self) -> Result<Option<(BufferIndex, usize)>, DriverFault> {
        let queue = &mut self.receiveq.queue;
        for _ in 0..2 {
            if let Some(used) = queue.take()? {
                return Ok(Some((used.cookie, used.written as usize)));
            }
            // One that came before the device could see the wish is not told of.
            if queue.poll()? == 0 && (queue.enable_notifications().is_empty() || queue.poll()? == 0)
            {
                break;
            }
        }
        Ok(None)
    }

    fn take_frame(&mut self, frame: &mut [u8]) -> Result<Received, DeviceError> {
        let taken = self
            .take_used()
            .map_err(|fault| self.receiveq.fault(fault))?;
        let Some((index, written)) = taken else {
            return Ok(Received::Empty);
        };
        let mut header = [0; HEADER_BYTES];
        let bytes = written.saturating_sub(HEADER_BYTES);
        let fits = (ETHERNET_HEADER_BYTES..=frame.len()).contains(&bytes);
        if let Some(buffer) = self.receiveq.bytes(index).filter(|_| fits) {
            buffer.copy_to(0, &mut header);
            buffer.copy_to(HEADER_BYTES, &mut frame[..bytes]);
        }
        let lent = self.receiveq.buffer_bytes;
        self.receiveq.lend(index, lent, true, &mut self.states);
        if !fits {
            return Ok(Received::Discarded);
        }
        let checksum = NetHeader::parse(&header).checksum(bytes, self.guest_csum)?;
        Ok(Received::Frame { bytes, checksum })
    }

    /// Takes back the transmit buffers that the device is done with.
    fn reclaim(&mut self) -> Result<(), DriverFault> {
        let queue = &mut self.transmitq.queue;
        queue.poll()?;
        while let Some(used) = queue.take()? {
            self.free.push(used.cookie);
        }
        Ok(())
    }

    /// Whether a transmit buffer is free; asks to be told when half of them are, if none is.
    fn has_room(&mut self) -> Result<bool, DriverFault> {
        if self.free.is_empty() {
            self.reclaim()?;
        }
        if self.free.is_empty() {
            // The device must see the frames that it is to be done with.
            self.transmitq.publish(&mut self.states);
            let half = self.transmitq.queue.size() / 2;
            if !self
                .transmitq
                .queue
                .enable_notifications_after(half)
                .is_empty()
            {
                self.reclaim()?;
            }
        }
        Ok(!self.free.is_empty())
    }

    fn place_frame(&mut self, frame: &[u8], checksum: Checksum) -> Result<Sent, DeviceError> {
        if frame.len() > self.max_frame_bytes {
            return Ok(Sent::TooLong);
        }
        if !self
            .has_room()
            .map_err(|fault| self.transmitq.fault(fault))?
        {
            return Ok(Sent::Full);
        }
        let Some(index) = self.free.pop() else {
            return Ok(Sent::Full);
        };
        if let Some(buffer) = self.transmitq.bytes(index) {
            buffer.copy_from(0, &NetHeader::transmit(checksum).emit());
            buffer.copy_from(HEADER_BYTES, frame);
        }
        self.transmitq.lend(
            index,
            (HEADER_BYTES + frame.len()) as u32,
            false,
            &mut self.states,
        );
        Ok(Sent::Taken)
    }

    fn check(&self) -> Result<(), DeviceError> {
        self.fault.map_or(Ok(()), Err)
    }

    fn latch<T>(&mut self, outcome: Result<T, DeviceError>) -> Result<T, PortError> {
        outcome.map_err(|error| PortError::Device(*self.fault.get_or_insert(error)))
    }
}

impl<F: DriverFormat, W: Window> Port for NetDriver<F, W> {
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

    /// A stopped driver answers yes: the next send then tells why.
    fn can_send(&mut self) -> bool {
        self.fault.is_some() || self.has_room().unwrap_or(true)
    }

    fn takes_partial_checksums(&self) -> bool {
        self.csum
    }

    fn flush(&mut self) -> Notifications {
        Notifications {
            receiveq: self.receiveq.flush(&mut self.states),
            transmitq: self.transmitq.flush(&mut self.states),
        }
    }
}

impl<F, W> fmt::Debug for NetDriver<F, W> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NetDriver")
            .field("max_frame_bytes", &self.max_frame_bytes)
            .field("fault", &self.fault)
            .finish_non_exhaustive()
    }
}
