//! Which descriptors the driver takes for a chain, and which chain a used element stands for: in any order, or in the
//! order in which they were made available (`VIRTIO_F_IN_ORDER`).

use shmbus_shm::Window;

use super::areas::UsedElements;
use crate::descriptor::UsedElement;
use crate::driver::DriverSlot;
use crate::fault::DriverFault;

/// A driver's bookkeeping of descriptors.
pub trait DriverOrder: sealed::DriverOrder {}

impl<O: sealed::DriverOrder> DriverOrder for O {}

/// The used elements that were found and not yet taken.
#[derive(Clone, Copy, Debug)]
pub struct Found {
    /// The entry that is next.
    pub(super) position: u16,
    /// How many entries there are, from there on.
    pub(super) count: u16,
}

pub(super) mod sealed {
    use super::*;

    pub trait DriverOrder: Default {
        /// All descriptors are free.
        fn start<T>(&mut self, slots: &mut [DriverSlot<T>], size: u16);

        /// How many descriptors are free.
        fn free(&self) -> u16;

        /// The first descriptor of the next chain.
        fn head(&self) -> u16;

        /// The free descriptor that follows `index`.
        fn following<T>(&self, slots: &[DriverSlot<T>], index: u16, size: u16) -> u16;

        /// `count` descriptors from the head to `last` are lent; the one that follows is the next head.
        fn lend<T>(&mut self, slots: &mut [DriverSlot<T>], last: u16, following: u16, count: u16);

        /// The chain that was used next. `found` has at least one entry.
        fn resolve<T, W: Window>(
            &mut self,
            slots: &[DriverSlot<T>],
            used: &UsedElements<W>,
            found: Found,
        ) -> Result<UsedElement, DriverFault>;

        /// Chain `id`, which was resolved, is taken back.
        fn release<T>(&mut self, slots: &mut [DriverSlot<T>], id: u16, size: u16);
    }
}

/// Chains come back in any order: free descriptors are a list, first in, first out, so that the available ring repeats
/// itself while the device completes in order.
#[derive(Debug, Default)]
pub struct AnyOrder {
    head: u16,
    tail: u16,
    free: u16,
}

impl sealed::DriverOrder for AnyOrder {
    fn start<T>(&mut self, slots: &mut [DriverSlot<T>], size: u16) {
        for (index, slot) in (0..size).zip(slots.iter_mut()) {
            slot.next = (index + 1) & (size - 1);
        }
        self.head = 0;
        self.tail = size - 1;
        self.free = size;
    }

    #[inline(always)]
    fn free(&self) -> u16 {
        self.free
    }

    #[inline(always)]
    fn head(&self) -> u16 {
        self.head
    }

    #[inline(always)]
    fn following<T>(&self, slots: &[DriverSlot<T>], index: u16, _: u16) -> u16 {
        slots[usize::from(index)].next
    }

    #[inline(always)]
    fn lend<T>(&mut self, slots: &mut [DriverSlot<T>], last: u16, following: u16, count: u16) {
        let slot = &mut slots[usize::from(self.head)];
        slot.descriptors = count;
        slot.last = last;
        self.head = following;
        self.free -= count;
    }

    #[inline(always)]
    fn resolve<T, W: Window>(
        &mut self,
        _: &[DriverSlot<T>],
        used: &UsedElements<W>,
        found: Found,
    ) -> Result<UsedElement, DriverFault> {
        Ok(used.load(found.position))
    }

    #[inline(always)]
    fn release<T>(&mut self, slots: &mut [DriverSlot<T>], id: u16, _: u16) {
        let (count, last) = {
            let slot = &slots[usize::from(id)];
            (slot.descriptors, slot.last)
        };
        if self.free == 0 {
            self.head = id;
        } else {
            slots[usize::from(self.tail)].next = id;
        }
        self.tail = last;
        self.free += count;
    }
}

/// Chains come back in the order in which they were made available (virtio 1.4, section 2.7.9): descriptors are taken
/// in the table's order, and one used element ends a batch. Nothing of a list is kept.
#[derive(Debug, Default)]
pub struct InOrder {
    /// The first descriptor of the next chain.
    head: u16,
    /// The first descriptor of the oldest chain that is lent.
    oldest: u16,
    free: u16,
    /// How many chains of the batch that was found last are not taken back; all of them are used.
    rest: u16,
    /// What its element says of the last of them.
    last_len: u32,
}

impl InOrder {
    /// Finds out how many chains the used element at `found.position` ends. Its id, the device's word, must be that of a
    /// chain that is lent and no further on than the used index says.
    fn begin_batch<T>(
        &mut self,
        slots: &[DriverSlot<T>],
        element: UsedElement,
        found: Found,
    ) -> Result<(), DriverFault> {
        let position = found.position;
        let id = element.id;
        let number_of = |id: usize| {
            let slot = slots.get(id)?;
            slot.cookie.is_some().then_some(slot.number)
        };
        let (Some(oldest), Some(last)) =
            (number_of(usize::from(self.oldest)), number_of(id as usize))
        else {
            return Err(DriverFault::NotLent { position, id });
        };
        // Chains are numbered as they are placed: the oldest that is lent has the lowest number.
        let chains = last - oldest + 1;
        if chains > u64::from(found.count) {
            return Err(DriverFault::BatchEnd {
                position,
                id,
                found: chains,
                expected: found.count,
            });
        }
        self.rest = chains as u16;
        self.last_len = element.len;
        Ok(())
    }
}

impl sealed::DriverOrder for InOrder {
    fn start<T>(&mut self, _: &mut [DriverSlot<T>], size: u16) {
        *self = Self {
            free: size,
            ..Self::default()
        };
    }

    #[inline(always)]
    fn free(&self) -> u16 {
        self.free
    }

    #[inline(always)]
    fn head(&self) -> u16 {
        self.head
    }

    #[inline(always)]
    fn following<T>(&self, _: &[DriverSlot<T>], index: u16, size: u16) -> u16 {
        (index + 1) & (size - 1)
    }

    #[inline(always)]
    fn lend<T>(&mut self, slots: &mut [DriverSlot<T>], _: u16, following: u16, count: u16) {
        slots[usize::from(self.head)].descriptors = count;
        self.head = following;
        self.free -= count;
    }

    #[inline(always)]
    fn resolve<T, W: Window>(
        &mut self,
        slots: &[DriverSlot<T>],
        used: &UsedElements<W>,
        found: Found,
    ) -> Result<UsedElement, DriverFault> {
        if self.rest == 0 {
            // Read once for the whole batch.
            self.begin_batch(slots, used.load(found.position), found)?;
        }
        Ok(UsedElement {
            id: u32::from(self.oldest),
            // Chains that a batch skips were used completely.
            len: if self.rest == 1 {
                self.last_len
            } else {
                slots[usize::from(self.oldest)].writable
            },
        })
    }

    #[inline(always)]
    fn release<T>(&mut self, slots: &mut [DriverSlot<T>], _: u16, size: u16) {
        let count = slots[usize::from(self.oldest)].descriptors;
        self.oldest = (self.oldest + count) & (size - 1);
        self.free += count;
        self.rest -= 1;
    }
}
