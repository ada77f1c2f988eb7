//! Frames that lie in several receive buffers (virtio 1.4, section 5.1.6.4).

use shmbus_ring::DriverFormat;
use shmbus_shm::Window;

use super::queue::BufferIndex;
use super::{DeviceError, NetDriver};
use crate::net::header::{HEADER_BYTES, NetHeader};
use crate::net::port::{ETHERNET_HEADER_BYTES, Received};

/// A frame lies otherwise in several receive buffers than it may.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MergeError {
    /// There are not so many buffers.
    #[error("num_buffers is {found}, and 1 to {lent} were expected")]
    Count {
        /// `num_buffers`.
        found: u16,
        /// How many buffers the device can have.
        lent: u16,
    },
    /// The device did not return the rest of a frame's buffers together with the first (it MUST, says section
    /// 5.1.6.4.1).
    #[error("{found} of {expected} buffers of a frame came back together")]
    Missing {
        /// How many did.
        found: u16,
        /// `num_buffers`.
        expected: u16,
    },
    /// A buffer is not full, and not the frame's last (all others MUST be).
    #[error("buffer {part} of a frame's {parts} has {found} bytes, {expected} were expected")]
    NotFull {
        /// Which one, from 1 on.
        part: u16,
        /// `num_buffers`.
        parts: u16,
        /// Bytes that were written to it.
        found: usize,
        /// Bytes that it has.
        expected: usize,
    },
}

impl<F: DriverFormat, W: Window> NetDriver<F, W> {
    /// Takes the frame that begins with a used buffer, and whatever further buffers it lies in. Its work is bounded by
    /// the queue's size.
    pub(super) fn take_merged(
        &mut self,
        first: BufferIndex,
        written: usize,
        frame: &mut [u8],
    ) -> Result<Received, DeviceError> {
        if written < HEADER_BYTES {
            self.lend_to_receive(first);
            return Ok(Received::Discarded);
        }
        let mut header = [0; HEADER_BYTES];
        if let Some(buffer) = self.receiveq.bytes(first) {
            buffer.copy_to(0, &mut header);
        }
        // From here on it is this copy that counts: the device may change its own at any moment.
        let header = NetHeader::parse(&header);
        let (parts, lent) = (header.num_buffers, self.receiveq.queue.capacity());
        if !(1..=lent).contains(&parts) {
            let found = parts;
            return Err(MergeError::Count { found, lent }.into());
        }
        let mut bytes = self.move_part(first, HEADER_BYTES, written, frame);
        let mut before = written;
        for part in 1..parts {
            let expected = self.receiveq.buffer_bytes() as usize;
            if before != expected {
                return Err(MergeError::NotFull {
                    part,
                    parts,
                    found: before,
                    expected,
                }
                .into());
            }
            let (index, written) = self.take_part(part, parts)?;
            let to = frame.get_mut(bytes..).unwrap_or_default();
            bytes += self.move_part(index, 0, written, to);
            before = written;
        }
        self.merged_frames += u64::from(parts > 1);
        if !(ETHERNET_HEADER_BYTES..=frame.len()).contains(&bytes) {
            return Ok(Received::Discarded);
        }
        let checksum = header.checksum(bytes, self.guest_csum)?;
        Ok(Received::Frame { bytes, checksum })
    }

    /// Copies what lies in a buffer between two offsets to the start of `to`, as much as fits, and lends the buffer anew;
    /// returns how much lay there.
    fn move_part(&mut self, index: BufferIndex, from: usize, end: usize, to: &mut [u8]) -> usize {
        let bytes = end - from;
        let fits = bytes.min(to.len());
        if let Some(buffer) = self.receiveq.bytes(index) {
            buffer.copy_to(from, &mut to[..fits]);
        }
        self.lend_to_receive(index);
        bytes
    }

    /// The next buffer of a frame of which `found` are there.
    fn take_part(
        &mut self,
        found: u16,
        expected: u16,
    ) -> Result<(BufferIndex, usize), DeviceError> {
        let queue = &mut self.receiveq.queue;
        let mut taken = queue.take();
        if let Ok(None) = taken {
            // A look finds no more than the queue has entries, counted from where it began.
            taken = queue.poll().and_then(|_| queue.take());
        }
        match taken {
            Ok(Some(used)) => Ok((used.cookie, used.written as usize)),
            Ok(None) => Err(MergeError::Missing { found, expected }.into()),
            Err(fault) => Err(self.receiveq.fault(fault)),
        }
    }
}
