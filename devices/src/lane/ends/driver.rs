//! The guest's ends.

use core::fmt;
use core::mem;

use shmbus_ring::any::DriverRing;
use shmbus_ring::{Buffer, DriverQueue, DriverSlot};
use shmbus_shm::{Bytes, Notify, Window, WindowError};
use shmbus_table::Value;

use super::{PUBLISH_EVERY, RingError, Sink, Source};
use crate::lane::element::{ElementError, MOST_BYTES, element_bytes};
use crate::lane::memory::{LaneError, RingLane, stride};

type Queue<W> = DriverQueue<DriverRing<W>, u16, Vec<DriverSlot<u16>>>;

/// A buffer for each entry of the ring.
struct Buffers<W> {
    window: W,
    stride: usize,
    bytes: usize,
}

impl<W: Window> Buffers<W> {
    fn new<V: Value>(window: &W, size: u16) -> Result<Self, WindowError> {
        Ok(Self {
            window: window.narrow(0, RingLane::<W>::buffers_bytes::<V>(size))?,
            stride: stride::<V>(),
            bytes: element_bytes::<V>(),
        })
    }

    fn get(&self, index: u16) -> Result<Bytes<'_, W>, WindowError> {
        Bytes::new(&self.window, self.offset(index), self.bytes)
    }

    fn offset(&self, index: u16) -> usize {
        usize::from(index) * self.stride
    }

    /// The buffer, for its descriptor.
    fn describe(&self, index: u16) -> Buffer {
        Buffer::new(self.offset(index) as u64, self.bytes as u32)
    }
}

/// Sends elements to the host, in buffers that the guest fills.
pub(crate) struct DriverSink<W> {
    queue: Queue<W>,
    buffers: Buffers<W>,
    /// Buffers that the host does not have. The one used last comes first: it is still in the cache.
    free: Vec<u16>,
    /// Whether the host was asked to tell of room, and none was found since.
    asked: bool,
}

impl<W: Window> DriverSink<W> {
    pub(crate) fn new<V: Value>(lane: RingLane<W>) -> Result<Self, LaneError> {
        let mut queue = Queue::with_heap(DriverRing::new(lane.areas, lane.features)?);
        // Returned buffers are looked for when one is needed.
        queue.disable_notifications();
        Ok(Self {
            buffers: Buffers::new::<V>(&lane.buffers, queue.size())?,
            free: (0..queue.capacity()).rev().collect(),
            queue,
            asked: false,
        })
    }

    fn reclaim(&mut self) -> Result<bool, RingError> {
        self.queue.poll()?;
        while let Some(used) = self.queue.take()? {
            self.free.push(used.cookie);
            self.asked = false;
        }
        Ok(!self.free.is_empty())
    }
}

impl<W: Window> Sink for DriverSink<W> {
    fn place(&mut self, element: &[u8]) -> Result<bool, RingError> {
        if self.free.is_empty() && !self.reclaim()? {
            return Ok(false);
        }
        let Some(index) = self.free.pop() else {
            return Ok(false);
        };
        self.buffers.get(index)?.copy_from(0, element);
        let buffer = [self.buffers.describe(index)];
        // There are as many buffers as the ring can lend, so there is room.
        let added = self.queue.add(&buffer, &[], index).is_ok();
        if !added {
            self.free.push(index);
        }
        Ok(added)
    }

    fn publish(&mut self) -> Notify {
        self.queue.publish()
    }

    fn reset(&mut self) {
        self.queue.reset(drop);
    }

    fn wait_for_room(&mut self) -> Result<bool, RingError> {
        if self.asked {
            return Ok(false);
        }
        // Not at the first buffer: who is that far behind is better told once for several.
        let half = self.queue.size() / 2;
        self.asked = true;
        if self.queue.enable_notifications_after(half).is_empty() {
            return Ok(false);
        }
        self.reclaim()
    }
}

/// Receives elements from the host, in buffers that the guest lends it.
pub(crate) struct DriverSource<W> {
    queue: Queue<W>,
    buffers: Buffers<W>,
    unpublished: u16,
    notify: Notify,
    /// Whether the host was asked to tell of the next element, and none came since.
    asked: bool,
}

impl<W: Window> DriverSource<W> {
    /// Lends all buffers. The host finds them when it is told that the driver is ready.
    pub(crate) fn new<V: Value>(lane: RingLane<W>) -> Result<Self, LaneError> {
        let queue = Queue::with_heap(DriverRing::new(lane.areas, lane.features)?);
        let mut source = Self {
            buffers: Buffers::new::<V>(&lane.buffers, queue.size())?,
            queue,
            unpublished: 0,
            notify: Notify::No,
            asked: false,
        };
        for index in 0..source.queue.capacity() {
            source.lend(index);
        }
        let _ = source.publish();
        Ok(source)
    }

    fn lend(&mut self, index: u16) {
        let buffer = [self.buffers.describe(index)];
        // It was just taken back, so there is room; a queue that has stopped says so elsewhere.
        if self.queue.add(&[], &buffer, index).is_ok() {
            self.unpublished += 1;
        }
        if self.unpublished >= PUBLISH_EVERY {
            self.unpublished = 0;
            self.notify = self.notify.or(self.queue.publish());
        }
    }
}

impl<W: Window> DriverSource<W> {
    /// Asks to be told of the next element. One that came before the host could see the wish is not told of.
    fn came_meanwhile(&mut self) -> Result<bool, RingError> {
        if mem::replace(&mut self.asked, true) || self.queue.enable_notifications().is_empty() {
            return Ok(false);
        }
        Ok(self.queue.poll()? > 0)
    }
}

impl<W: Window> Source for DriverSource<W> {
    fn next(&mut self, element: &mut [u8; MOST_BYTES]) -> Result<bool, RingError> {
        let mut used = self.queue.take()?;
        if used.is_none() {
            if self.queue.poll()? == 0 && !self.came_meanwhile()? {
                return Ok(false);
            }
            self.asked = false;
            used = self.queue.take()?;
        }
        let Some(used) = used else {
            return Ok(false);
        };
        let expected = self.buffers.bytes;
        if used.written as usize != expected {
            let found = used.written.into();
            return Err(ElementError::Bytes { expected, found }.into());
        }
        self.buffers
            .get(used.cookie)?
            .copy_to(0, &mut element[..expected]);
        self.lend(used.cookie);
        Ok(true)
    }

    fn publish(&mut self) -> Notify {
        if self.unpublished > 0 {
            self.unpublished = 0;
            self.notify = self.notify.or(self.queue.publish());
        }
        mem::replace(&mut self.notify, Notify::No)
    }

    fn reset(&mut self) {
        self.queue.reset(drop);
    }

    fn size(&self) -> u16 {
        self.queue.size()
    }
}

impl<W> fmt::Debug for DriverSink<W> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DriverSink")
            .field("free", &self.free.len())
            .finish_non_exhaustive()
    }
}

impl<W> fmt::Debug for DriverSource<W> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DriverSource")
            .field("unpublished", &self.unpublished)
            .finish_non_exhaustive()
    }
}
