//! The host's ends.

use core::fmt;
use core::mem;

use shmbus_ring::any::DeviceRing;
use shmbus_ring::{Buffer, DeviceQueue, DeviceSlot};
use shmbus_shm::{Notify, OffsetSpace, Window};
use shmbus_table::Value;

use super::{PUBLISH_EVERY, RingError, Sink, Source};
use crate::lane::element::{ElementError, MOST_BYTES, element_bytes};
use crate::lane::memory::{LaneError, RingLane};

type Queue<W> = DeviceQueue<DeviceRing<W>, Vec<DeviceSlot>>;

/// An element lies in one buffer: a longer chain is refused.
type Segments = [Buffer; 1];

/// Sends elements to the guest, in buffers that it lends.
pub(crate) struct DeviceSink<W> {
    queue: Queue<W>,
    space: OffsetSpace<W>,
    segments: Segments,
    /// Whether the guest was asked to tell of room, and none was found since.
    asked: bool,
}

impl<W: Window> DeviceSink<W> {
    pub(crate) fn new(lane: RingLane<W>) -> Result<Self, LaneError> {
        let mut queue = Queue::with_heap(DeviceRing::new(lane.areas, lane.features)?);
        // Buffers are looked for when there is an element for them.
        queue.disable_notifications();
        Ok(Self {
            queue,
            space: OffsetSpace::new(lane.buffers),
            segments: Segments::default(),
            asked: false,
        })
    }
}

impl<W: Window> Sink for DeviceSink<W> {
    fn place(&mut self, element: &[u8]) -> Result<bool, RingError> {
        let mut taken = self.queue.take(&self.space, &mut self.segments);
        if let Ok(None) = taken {
            if self.queue.poll()? == 0 {
                return Ok(false);
            }
            self.asked = false;
            taken = self.queue.take(&self.space, &mut self.segments);
        }
        let Some(chain) = taken? else {
            return Ok(false);
        };
        if chain.writable_bytes() < element.len() as u64 {
            let (expected, found) = (element.len(), chain.writable_bytes());
            return Err(ElementError::Bytes { expected, found }.into());
        }
        let copied = chain.write(&self.space, 0, element);
        let head = chain.into_head();
        if let Err(reason) = copied {
            return Err(self.queue.fail(head, reason).into());
        }
        // It was taken from this queue, and no more was written than fits into it: this cannot fail.
        let _ = self.queue.complete(head, element.len() as u32);
        Ok(true)
    }

    fn publish(&mut self) -> Notify {
        self.queue.publish()
    }

    fn reset(&mut self) {
        self.queue.reset();
    }

    fn wait_for_room(&mut self) -> Result<bool, RingError> {
        if mem::replace(&mut self.asked, true) || self.queue.enable_notifications().is_empty() {
            return Ok(false);
        }
        self.asked = false;
        Ok(self.queue.poll()? > 0)
    }
}

/// Receives elements from the guest, in buffers that it fills.
pub(crate) struct DeviceSource<W> {
    queue: Queue<W>,
    space: OffsetSpace<W>,
    segments: Segments,
    bytes: usize,
    unpublished: u16,
    notify: Notify,
    /// Whether the guest was asked to tell of the next element, and none came since.
    asked: bool,
}

impl<W: Window> DeviceSource<W> {
    /// Nothing is written to the elements: they may be mapped for reading only.
    pub(crate) fn new<V: Value>(lane: RingLane<W>) -> Result<Self, LaneError> {
        Ok(Self {
            queue: Queue::with_heap(DeviceRing::new(lane.areas, lane.features)?),
            space: OffsetSpace::read_only(lane.buffers),
            segments: Segments::default(),
            bytes: element_bytes::<V>(),
            unpublished: 0,
            notify: Notify::No,
            asked: false,
        })
    }

    /// Asks to be told of the next element. One that came before the guest could see the wish is not told of.
    fn came_meanwhile(&mut self) -> Result<bool, RingError> {
        if mem::replace(&mut self.asked, true) || self.queue.enable_notifications().is_empty() {
            return Ok(false);
        }
        Ok(self.queue.poll()? > 0)
    }

    fn show(&mut self) {
        self.unpublished = 0;
        self.notify = self.notify.or(self.queue.publish());
    }
}

impl<W: Window> Source for DeviceSource<W> {
    fn next(&mut self, element: &mut [u8; MOST_BYTES]) -> Result<bool, RingError> {
        let mut taken = self.queue.take(&self.space, &mut self.segments);
        if let Ok(None) = taken {
            if self.queue.poll()? == 0 && !self.came_meanwhile()? {
                return Ok(false);
            }
            self.asked = false;
            taken = self.queue.take(&self.space, &mut self.segments);
        }
        let Some(chain) = taken? else {
            return Ok(false);
        };
        let expected = self.bytes;
        if chain.readable_bytes() != expected as u64 {
            let found = chain.readable_bytes();
            return Err(ElementError::Bytes { expected, found }.into());
        }
        let copied = chain.read(&self.space, 0, &mut element[..expected]);
        let head = chain.into_head();
        if let Err(reason) = copied {
            return Err(self.queue.fail(head, reason).into());
        }
        // It was taken from this queue, and nothing was written to it: this cannot fail.
        let _ = self.queue.complete(head, 0);
        self.unpublished += 1;
        if self.unpublished >= PUBLISH_EVERY {
            self.show();
        }
        Ok(true)
    }

    fn publish(&mut self) -> Notify {
        if self.unpublished > 0 {
            self.show();
        }
        mem::replace(&mut self.notify, Notify::No)
    }

    fn reset(&mut self) {
        self.queue.reset();
    }

    fn size(&self) -> u16 {
        self.queue.size()
    }
}

impl<W> fmt::Debug for DeviceSink<W> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DeviceSink").finish_non_exhaustive()
    }
}

impl<W> fmt::Debug for DeviceSource<W> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DeviceSource")
            .field("unpublished", &self.unpublished)
            .finish_non_exhaustive()
    }
}
