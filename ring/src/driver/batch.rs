//! Batches that a device returns in order (`VIRTIO_F_IN_ORDER`): one used element, or descriptor, ends each.

use super::DriverSlot;
use crate::descriptor::UsedElement;
use crate::fault::DriverFault;
use crate::kept::Kept;

/// The batch that was found last, as far as it is not taken back.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Batch {
    /// How many of its chains are not taken back; all of them are used.
    rest: Kept,
    /// What its element says of the last of them.
    last_len: u32,
}

impl Batch {
    /// Finds out how many chains `element`, which was read at `position`, ends, from chain `oldest` on. Its id, the
    /// device's word, must be that of a chain that is lent, and with it the batch has no more than `most` chains.
    pub(crate) fn begin<T>(
        slots: &[DriverSlot<T>],
        oldest: u16,
        element: UsedElement,
        position: u16,
        most: u16,
    ) -> Result<Self, DriverFault> {
        let id = element.id;
        if id == u32::from(oldest) {
            // A batch of one. Whether that chain is lent, the queue finds out.
            return Ok(Self {
                rest: Kept::new(1),
                last_len: element.len,
            });
        }
        let number_of = |id: usize| {
            let slot = slots.get(id)?;
            slot.cookie.is_some().then_some(slot.number)
        };
        let (Some(oldest), Some(last)) = (number_of(usize::from(oldest)), number_of(id as usize))
        else {
            return Err(DriverFault::NotLent { position, id });
        };
        // Chains are numbered as they are placed: the oldest that is lent has the lowest number.
        let chains = last - oldest + 1;
        if chains > u64::from(most) {
            return Err(DriverFault::BatchEnd {
                position,
                id,
                found: chains,
                expected: most,
            });
        }
        Ok(Self {
            rest: Kept::new(chains as u16),
            last_len: element.len,
        })
    }

    /// How many chains are known to be used.
    #[inline(always)]
    pub(crate) fn rest(self) -> u16 {
        self.rest.get()
    }

    /// What the device says of chain `oldest`, whose turn it is. Chains that a batch skips were used completely, whatever
    /// its one element says of writing: that is the last chain's.
    #[inline(always)]
    pub(crate) fn element<T>(self, slots: &[DriverSlot<T>], oldest: u16) -> UsedElement {
        UsedElement {
            id: u32::from(oldest),
            len: if self.rest.get() == 1 {
                self.last_len
            } else {
                slots[usize::from(oldest)].writable
            },
        }
    }

    /// A chain is taken back.
    #[inline(always)]
    pub(crate) fn take(&mut self) {
        self.rest.sub(1);
    }
}
