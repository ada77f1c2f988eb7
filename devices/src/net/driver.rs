//! The guest's end: a driver over two queues, as a port that a network stack sits on.
//!
//! The driver owns a buffer for each entry of each queue that it can lend. Frames are copied once between those and the stack's
//! private memory; what the device wrote is copied before it is looked at. A device that breaks the rules stops the
//! driver, with a [`DeviceError`]. Nothing is allocated after the start.
//!
//! With `VIRTIO_NET_F_MRG_RXBUF` the device may spread a frame over several receive buffers. They come together, as the
//! specification wants: a frame of which some are missing is a fault, not one to wait for. With
//! `VIRTIO_F_INDIRECT_DESC` each transmitted frame has a table of descriptors of its own, and its header a buffer.

mod merged;
mod queue;

use core::fmt;

use shmbus_ring::any::DriverRing;
use shmbus_ring::{DriverFault, DriverFormat, Positions, RingFeatures, SetupError};
use shmbus_shm::{Window, WindowError};
use shmbus_table::TableError;
use shmbus_virtio::net;

use super::config::max_frame_bytes;
use super::header::{HEADER_BYTES, HeaderError, NetHeader};
use super::port::{
    Checksum, ETHERNET_HEADER_BYTES, Notifications, Port, PortError, Received, Sent,
};
use super::queues::{DeviceRegions, QueueMemory, QueueName, QueueRegions, ReceiveBufferError};
use crate::ring_state::RingStates;

pub use self::merged::MergeError;
use self::queue::{BufferIndex, Buffers, Queue};

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
    /// A frame lies otherwise in several receive buffers than it may.
    #[error("a received frame in several buffers: {0}")]
    Merge(#[from] MergeError),
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
    /// The receive buffers are not what the negotiated features allow.
    #[error(transparent)]
    ReceiveBuffers(#[from] ReceiveBufferError),
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

/// The driver of one net device.
pub struct NetDriver<F, W> {
    receiveq: Queue<F, W>,
    transmitq: Queue<F, W>,
    /// Transmit buffers that the device does not have.
    free: Vec<BufferIndex>,
    max_frame_bytes: usize,
    guest_csum: bool,
    csum: bool,
    /// A frame may come in several buffers.
    merges: bool,
    /// Frames that did.
    merged_frames: u64,
    /// Each frame is sent with a table of descriptors of its own.
    indirect: bool,
    fault: Option<DeviceError>,
    /// Where it tells observers how far it has come.
    states: Option<RingStates<W>>,
}

impl<W: Window> NetDriver<DriverRing<W>, W> {
    /// Sets up the queues over the rings that were negotiated, in a device's regions, and lends all receive buffers.
    /// `features` is what was negotiated. The first [`Port::flush`] shows the buffers to the device.
    ///
    /// # Errors
    ///
    /// [`DriverSetupError`]; also if the memory is laid out for rings of another format.
    pub fn over_rings(
        regions: &DeviceRegions<W>,
        memory: QueueMemory,
        features: impl Into<RingFeatures>,
    ) -> Result<Self, DriverSetupError> {
        Self::of_pair(0, regions, memory, features)
    }

    /// The same for another pair of queues than a device's first, which has number 0.
    ///
    /// # Errors
    ///
    /// As for [`NetDriver::over_rings`].
    pub fn of_pair(
        pair: u16,
        regions: &DeviceRegions<W>,
        memory: QueueMemory,
        features: impl Into<RingFeatures>,
    ) -> Result<Self, DriverSetupError> {
        let features = features.into();
        let memory = memory.with_receive_buffers(memory.receive_buffer_bytes(), features.virtio)?;
        let ring = |regions: &QueueRegions<W>| DriverRing::new(regions.areas(memory)?, features);
        let DeviceRegions {
            receiveq,
            transmitq,
        } = regions;
        let indirect = features.indirect();
        let mut driver = Self {
            receiveq: Queue::new(
                QueueName::Receiveq(pair),
                ring(receiveq)?,
                Buffers::to_receive(receiveq, memory),
            )?,
            transmitq: Queue::new(
                QueueName::Transmitq(pair),
                ring(transmitq)?,
                Buffers::to_transmit(transmitq, memory, indirect),
            )?,
            free: Vec::with_capacity(usize::from(memory.ring().size())),
            max_frame_bytes: max_frame_bytes(memory.mtu()),
            guest_csum: features.virtio.contains(net::GUEST_CSUM),
            csum: features.virtio.contains(net::CSUM),
            merges: features.virtio.contains(net::MRG_RXBUF),
            merged_frames: 0,
            indirect,
            fault: None,
            states: None,
        };
        driver.start();
        Ok(driver)
    }
}

impl<F: DriverFormat, W: Window> NetDriver<F, W> {
    /// What the device did wrong, if it did.
    pub fn fault(&self) -> Option<DeviceError> {
        self.fault
    }

    /// How many frames came in more than one receive buffer.
    pub fn merged_frames(&self) -> u64 {
        self.merged_frames
    }

    /// How far the driver has come in receiveq1 and transmitq1.
    pub fn positions(&self) -> [Positions; 2] {
        [
            self.receiveq.queue.positions(),
            self.transmitq.queue.positions(),
        ]
    }

    /// From now on publishes, with each batch, how far it has come: as a table of [`RingState`](crate::RingState) in
    /// `table`, which only the guest writes, receiveq1 in slot 0 and transmitq1 in slot 1.
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
            queue.reset();
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
            self.lend_to_receive(index);
        }
    }

    #[inline(always)]
    fn lend_to_receive(&mut self, index: BufferIndex) {
        let bytes = self.receiveq.buffer_bytes();
        self.receiveq.lend(index, bytes, true, &mut self.states);
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
        if self.merges {
            return self.take_merged(index, written, frame);
        }
        let mut header = [0; HEADER_BYTES];
        let bytes = written.saturating_sub(HEADER_BYTES);
        let fits = (ETHERNET_HEADER_BYTES..=frame.len()).contains(&bytes);
        if let Some(buffer) = self.receiveq.bytes(index).filter(|_| fits) {
            buffer.copy_to(0, &mut header);
            buffer.copy_to(HEADER_BYTES, &mut frame[..bytes]);
        }
        self.lend_to_receive(index);
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
        let bytes = (HEADER_BYTES + frame.len()) as u32;
        let states = &mut self.states;
        if self.indirect {
            self.transmitq.lend_by_table(index, bytes, states);
        } else {
            self.transmitq.lend(index, bytes, false, states);
        }
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
