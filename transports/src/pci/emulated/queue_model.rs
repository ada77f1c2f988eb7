//! What an emulated device knows of one queue.

use super::blueprint::QueueClaim;

/// `VIRTIO_MSI_NO_VECTOR`.
pub(super) const NO_VECTOR: u16 = 0xffff;

#[derive(Clone, Debug)]
pub(super) struct QueueModel {
    pub(super) claim: QueueClaim,
    pub(super) size: u16,
    pub(super) vector: u16,
    pub(super) enabled: bool,
    /// Descriptor, driver and device area.
    pub(super) areas: [u64; 3],
    /// A reset is seen unfinished so many times more.
    pub(super) unfinished: Option<u32>,
}

impl QueueModel {
    pub(super) fn new(claim: QueueClaim) -> Self {
        Self {
            claim,
            size: claim.max_size,
            vector: NO_VECTOR,
            enabled: false,
            areas: [0; 3],
            unfinished: None,
        }
    }

    /// As after a reset of the device.
    pub(super) fn reset(&mut self) {
        *self = Self::new(self.claim);
    }

    /// What `queue_reset` reads as; once it is 0, the queue is as new.
    pub(super) fn read_reset(&mut self) -> u16 {
        match self.unfinished {
            None => 0,
            Some(0) => {
                self.reset();
                0
            }
            Some(times) => {
                self.unfinished = Some(times - 1);
                1
            }
        }
    }

    /// Writes half an address.
    pub(super) fn set_half(&mut self, area: usize, is_high: bool, value: u32) {
        let address = &mut self.areas[area];
        let (low, high) = (*address as u32, (*address >> 32) as u32);
        let (low, high) = if is_high { (low, value) } else { (value, high) };
        *address = u64::from(high) << 32 | u64::from(low);
    }
}
