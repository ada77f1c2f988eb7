//! Where the queues of a device lie in one piece of memory that it reaches by itself.
//!
//! On the bus, who writes an area decides in which memory it lies. A device that reads and writes by DMA gets one piece,
//! from any address on: for each pair the receive queue and the transmit queue, and behind all the control queue. A queue is
//! what the driver writes of its ring, what the device writes, what both write, and its buffers; each begins on a line of its own.

use shmbus_ring::any::{Areas, DriverRing, Layout};
use shmbus_ring::{RingFeatures, SetupError};
use shmbus_shm::{Window, WindowError};
use shmbus_virtio::net;

use super::control::{CONTROL_BUFFER_BYTES, CONTROL_ENTRIES, ControlQueue, ControlSetupError};
use super::driver::{DriverSetupError, NetDriver};
use super::pairs::QueuePairs;
use super::queues::{DeviceRegions, QueueMemory, QueueRegions};

const LINE: usize = 64;

/// Where a device finds a queue's areas (virtio 1.4, section 4.1.4.3: `queue_desc`, `queue_driver`, `queue_device`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RingAddresses {
    /// The descriptor area.
    pub descriptors: u64,
    /// The driver area.
    pub driver: u64,
    /// The device area.
    pub device: u64,
}

/// Where one queue lies: offsets from the memory's start, in bytes.
#[derive(Clone, Copy, Debug)]
struct Place {
    ring: Layout,
    start: usize,
    buffers_bytes: usize,
}

impl Place {
    const fn device(self) -> usize {
        self.start + self.ring.driver_bytes()
    }

    const fn common(self) -> usize {
        self.device() + self.ring.device_bytes()
    }

    const fn buffers(self) -> usize {
        self.common() + self.ring.common_bytes()
    }

    const fn end(self) -> usize {
        (self.buffers() + self.buffers_bytes).next_multiple_of(LINE)
    }

    fn addresses(self, base: u64) -> RingAddresses {
        let at = |offset: usize| base.wrapping_add(offset as u64);
        match self.ring {
            Layout::Split(ring) => RingAddresses {
                descriptors: at(self.start + ring.descriptors_offset()),
                driver: at(self.start + ring.available_offset()),
                device: at(self.device() + ring.used_offset()),
            },
            Layout::Packed(_) | Layout::Tagged(_) => RingAddresses {
                descriptors: at(self.common()),
                driver: at(self.start),
                device: at(self.device()),
            },
        }
    }

    fn regions<W: Window>(self, memory: &W, base: u64) -> Result<QueueRegions<W>, WindowError> {
        let common = self.ring.common_bytes();
        Ok(QueueRegions {
            driver: memory.narrow(self.start, self.ring.driver_bytes())?,
            device: memory.narrow(self.device(), self.ring.device_bytes())?,
            common: match common {
                0 => None,
                bytes => Some(memory.narrow(self.common(), bytes)?),
            },
            buffers: memory.narrow(self.buffers(), self.buffers_bytes)?,
            buffers_address: base.wrapping_add(self.buffers() as u64),
        })
    }
}

/// The queues cannot be set up in their memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DmaSetupError {
    /// The memory is too short.
    #[error("the queues' memory: {0}")]
    Memory(#[from] WindowError),
    /// A pair.
    #[error(transparent)]
    Pair(#[from] DriverSetupError),
    /// The control queue.
    #[error(transparent)]
    Control(#[from] ControlSetupError),
}

/// The drivers of a device's queues.
#[derive(Debug)]
pub struct DmaQueues<W> {
    /// The queue pairs.
    pub pairs: QueuePairs<DriverRing<W>, W>,
    /// The control queue, if there is one.
    pub control: Option<ControlQueue<W>>,
}

/// The memory of so many queue pairs, and a control queue if there is one.
#[derive(Clone, Copy, Debug)]
pub struct DmaLayout {
    memory: QueueMemory,
    pairs: u16,
    control: Option<Layout>,
    features: RingFeatures,
}

impl DmaLayout {
    /// The memory of `pairs` pairs, each as `memory` lays it out, and of a control queue if `features`, which are what
    /// was negotiated, have one.
    ///
    /// # Errors
    ///
    /// [`SetupError`]; not expected.
    pub fn new(
        memory: QueueMemory,
        pairs: u16,
        features: impl Into<RingFeatures>,
    ) -> Result<Self, SetupError> {
        let features = features.into();
        let has_control = features.virtio.contains(net::CTRL_VQ);
        let format = memory.ring().format();
        let control = has_control.then(|| Layout::new(format, CONTROL_ENTRIES));
        Ok(Self {
            memory,
            pairs,
            control: control.transpose()?,
            features,
        })
    }

    /// How much memory it is, in bytes.
    pub fn bytes(&self) -> usize {
        let end = usize::from(self.pairs) * self.pair_bytes();
        self.control_place().map_or(end, Place::end)
    }

    fn pair_bytes(&self) -> usize {
        self.places(0)[1].end()
    }

    /// The receive queue and the transmit queue of a pair.
    fn places(&self, pair: u16) -> [Place; 2] {
        let (ring, memory) = (self.memory.ring(), self.memory);
        let tables_bytes = if self.features.indirect() {
            memory.tables_bytes()
        } else {
            0
        };
        let place = |start, buffers_bytes| Place {
            ring,
            start,
            buffers_bytes,
        };
        let transmit_bytes = memory.buffers_bytes() + tables_bytes;
        let one = place(
            place(0, memory.receive_buffers_bytes()).end(),
            transmit_bytes,
        );
        let start = usize::from(pair) * one.end();
        [
            place(start, memory.receive_buffers_bytes()),
            place(start + one.start, transmit_bytes),
        ]
    }

    fn control_place(&self) -> Option<Place> {
        self.control.map(|ring| Place {
            ring,
            start: usize::from(self.pairs) * self.pair_bytes(),
            buffers_bytes: CONTROL_BUFFER_BYTES,
        })
    }

    /// Where a device finds the areas of a pair's receive queue and transmit queue, if the memory lies at `base`.
    pub fn pair_addresses(&self, pair: u16, base: u64) -> [RingAddresses; 2] {
        self.places(pair).map(|place| place.addresses(base))
    }

    /// The same of the control queue, if there is one.
    pub fn control_addresses(&self, base: u64) -> Option<RingAddresses> {
        self.control_place().map(|place| place.addresses(base))
    }

    /// The regions of a pair in memory that the device finds at `base`.
    ///
    /// # Errors
    ///
    /// [`WindowError`] if the memory is too short.
    pub fn pair_regions<W: Window>(
        &self,
        pair: u16,
        memory: &W,
        base: u64,
    ) -> Result<DeviceRegions<W>, WindowError> {
        let [receiveq, transmitq] = self.places(pair);
        Ok(DeviceRegions {
            receiveq: receiveq.regions(memory, base)?,
            transmitq: transmitq.regions(memory, base)?,
        })
    }

    /// Sets up the drivers of all pairs, and of the control queue if there is one, in memory that the device finds at
    /// `base`.
    ///
    /// # Errors
    ///
    /// [`DmaSetupError`].
    pub fn set_up<W: Window>(&self, memory: &W, base: u64) -> Result<DmaQueues<W>, DmaSetupError> {
        let mut drivers = Vec::with_capacity(usize::from(self.pairs));
        for pair in 0..self.pairs {
            let regions = self.pair_regions(pair, memory, base)?;
            drivers.push(NetDriver::of_pair(
                pair,
                &regions,
                self.memory,
                self.features,
            )?);
        }
        let control = match self.control_place() {
            Some(place) => {
                let regions = place.regions(memory, base)?;
                let areas = Areas::in_memories(
                    place.ring,
                    &regions.driver,
                    &regions.device,
                    regions.common.as_ref(),
                )
                .map_err(ControlSetupError::Ring)?;
                Some(ControlQueue::new(
                    areas,
                    self.features,
                    &regions.buffers,
                    regions.buffers_address,
                )?)
            }
            None => None,
        };
        let pairs = QueuePairs::new(drivers);
        Ok(DmaQueues { pairs, control })
    }
}

#[cfg(test)]
mod tests;
