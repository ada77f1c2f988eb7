//! One queue of a driver, and its buffers.

use shmbus_ring::{Buffer, DESCRIPTOR_BYTES, DriverFault, DriverFormat, DriverQueue, DriverSlot};
use shmbus_shm::{Bytes, Notify, Window};

use super::{DeviceError, DriverSetupError};
use crate::net::header::HEADER_BYTES;
use crate::net::queues::{QueueMemory, QueueName, QueueRegions, TABLE_BYTES};
use crate::ring_state::{RingState, RingStates};

/// After so many frames they are shown to the device, although the batch goes on: it can work on them meanwhile.
const PUBLISH_EVERY: u32 = 16;

/// A buffer's number: a queue has one for each entry.
pub(super) type BufferIndex = u16;

/// The buffers of a queue, as they are laid out.
pub(super) struct Buffers<'a, W> {
    region: &'a QueueRegions<W>,
    /// Entries of the queue, each with a buffer.
    entries: u16,
    /// Bytes of one.
    buffer_bytes: u32,
    /// Bytes of all.
    bytes: usize,
    /// Bytes of the tables behind them.
    tables_bytes: usize,
}

impl<'a, W> Buffers<'a, W> {
    pub(super) fn to_receive(region: &'a QueueRegions<W>, memory: QueueMemory) -> Self {
        Self {
            region,
            entries: memory.ring().size(),
            buffer_bytes: memory.receive_buffer_bytes(),
            bytes: memory.receive_buffers_bytes(),
            tables_bytes: 0,
        }
    }

    pub(super) fn to_transmit(
        region: &'a QueueRegions<W>,
        memory: QueueMemory,
        indirect: bool,
    ) -> Self {
        Self {
            region,
            entries: memory.ring().size(),
            buffer_bytes: memory.buffer_bytes(),
            bytes: memory.buffers_bytes(),
            tables_bytes: if indirect { memory.tables_bytes() } else { 0 },
        }
    }
}

/// One queue and its buffers.
pub(super) struct Queue<F, W> {
    pub(super) name: QueueName,
    pub(super) queue: DriverQueue<F, BufferIndex, Vec<DriverSlot<BufferIndex>>>,
    buffers: W,
    /// Where the device finds the buffers.
    address: u64,
    buffer_bytes: u32,
    /// Where the tables lie, behind the buffers.
    tables_offset: usize,
    /// Chains that the device has not been shown.
    unpublished: u32,
    /// What earlier publications of the batch decided.
    notify: Notify,
}

impl<F: DriverFormat, W: Window> Queue<F, W> {
    pub(super) fn new(
        name: QueueName,
        ring: F,
        buffers: Buffers<'_, W>,
    ) -> Result<Self, DriverSetupError> {
        let (found, expected) = (ring.size(), buffers.entries);
        if found != expected {
            let queue = name;
            return Err(DriverSetupError::Size {
                queue,
                found,
                expected,
            });
        }
        let bytes = buffers.bytes + buffers.tables_bytes;
        let window = buffers.region.buffers.narrow(0, bytes).map_err(|source| {
            DriverSetupError::Buffers {
                queue: name,
                source,
            }
        })?;
        let slots = core::iter::repeat_with(DriverSlot::new)
            .take(usize::from(found))
            .collect();
        Ok(Self {
            name,
            queue: DriverQueue::new(ring, slots)?,
            buffers: window,
            address: buffers.region.buffers_address,
            buffer_bytes: buffers.buffer_bytes,
            tables_offset: buffers.bytes,
            unpublished: 0,
            notify: Notify::No,
        })
    }

    pub(super) fn reset(&mut self) {
        self.queue.reset(drop);
        self.unpublished = 0;
        self.notify = Notify::No;
    }

    /// Bytes of one buffer.
    pub(super) fn buffer_bytes(&self) -> u32 {
        self.buffer_bytes
    }

    fn offset(&self, index: BufferIndex) -> usize {
        usize::from(index) * self.buffer_bytes as usize
    }

    /// Where the device finds what lies at an offset.
    fn address(&self, offset: usize) -> u64 {
        // Whoever gave the memory gave its address: what wraps around is nobody's.
        self.address.wrapping_add(offset as u64)
    }

    /// The memory of a buffer.
    pub(super) fn bytes(&self, index: BufferIndex) -> Option<Bytes<'_, W>> {
        // Indices are below the queue's size, for which `new` proved room.
        Bytes::new(
            &self.buffers,
            self.offset(index),
            self.buffer_bytes as usize,
        )
        .ok()
    }

    pub(super) fn fault(&self, fault: DriverFault) -> DeviceError {
        let queue = self.name;
        DeviceError::Queue { queue, fault }
    }

    /// Lends a buffer to the device, which may read or write `bytes` of it.
    #[inline(always)]
    pub(super) fn lend(
        &mut self,
        index: BufferIndex,
        bytes: u32,
        writable: bool,
        states: &mut Option<RingStates<W>>,
    ) {
        let buffer = [Buffer::new(self.address(self.offset(index)), bytes)];
        let (readable, writable): (&[_], &[_]) = if writable {
            (&[], &buffer)
        } else {
            (&buffer, &[])
        };
        // There are as many buffers as descriptors can be lent, so there is room; a queue that has stopped says so
        // elsewhere.
        let lent = self.queue.add(readable, writable, index).is_ok();
        self.count(lent, states);
    }

    /// Lends `bytes` of a buffer to the device to read, header and frame by descriptors of their own in the buffer's
    /// table.
    pub(super) fn lend_by_table(
        &mut self,
        index: BufferIndex,
        bytes: u32,
        states: &mut Option<RingStates<W>>,
    ) {
        const HEADER: u32 = HEADER_BYTES as u32;
        const { assert!(TABLE_BYTES == 2 * DESCRIPTOR_BYTES) };
        let header = self.address(self.offset(index));
        let frame = self.address(self.offset(index) + HEADER_BYTES);
        let readable = [
            Buffer::new(header, HEADER),
            Buffer::new(frame, bytes.saturating_sub(HEADER)),
        ];
        let offset = self.tables_offset + TABLE_BYTES * usize::from(index);
        let address = self.address(offset);
        // `new` proved room for the tables, too.
        let lent = match Bytes::new(&self.buffers, offset, TABLE_BYTES) {
            Ok(table) => self
                .queue
                .add_indirect(&readable, &[], &table, address, index)
                .is_ok(),
            Err(_) => false,
        };
        self.count(lent, states);
    }

    #[inline(always)]
    fn count(&mut self, lent: bool, states: &mut Option<RingStates<W>>) {
        self.unpublished += u32::from(lent);
        if self.unpublished >= PUBLISH_EVERY {
            self.publish(states);
        }
    }

    pub(super) fn publish(&mut self, states: &mut Option<RingStates<W>>) {
        self.unpublished = 0;
        self.notify = self.notify.or(self.queue.publish());
        if let Some(states) = states {
            states.publish(self.name.slot(), self.state());
        }
    }

    pub(super) fn state(&self) -> RingState {
        RingState {
            kind: self.queue.kind(),
            size: self.queue.size(),
            positions: self.queue.positions(),
        }
    }

    /// Publishes the rest; what all publications since the last flush decided.
    pub(super) fn flush(&mut self, states: &mut Option<RingStates<W>>) -> Notify {
        self.publish(states);
        core::mem::replace(&mut self.notify, Notify::No)
    }
}
