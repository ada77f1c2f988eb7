//! Which descriptors the driver takes for a chain, and which chain a used element stands for: in any order, or in the
//! order in which they were made available (`VIRTIO_F_IN_ORDER`).

use shmbus_shm::{RingFormat, Window};

use super::areas::UsedElements;
use crate::descriptor::UsedElement;
use crate::driver::{Batch, DriverSlot};
use crate::fault::DriverFault;
use crate::kept::Kept;
use crate::kind::RingKind;
use crate::state::{DriverState, DriverStateWriter, StateError};

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
        /// Which type of split ring this makes.
        const KIND: RingKind;

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

        /// How many chains are known to be used without another look at the used ring.
        fn known(&self) -> u16;

        /// The chain that was used next. `found` has at least one entry.
        fn resolve<T, W: Window>(
            &mut self,
            slots: &[DriverSlot<T>],
            used: &UsedElements<W>,
            found: Found,
        ) -> Result<UsedElement, DriverFault>;

        /// Chain `id`, which was resolved, is taken back.
        fn release<T>(&mut self, slots: &mut [DriverSlot<T>], id: u16, size: u16);

        /// Lists the descriptors of chain `id`, if they may lie anywhere.
        fn list<T>(
            &self,
            slots: &[DriverSlot<T>],
            id: u16,
            to: &mut DriverStateWriter<'_>,
        ) -> Result<(), StateError>;

        /// The chains of a state are lent, and all other descriptors are free.
        fn resume<T>(
            &mut self,
            slots: &mut [DriverSlot<T>],
            state: &DriverState<'_>,
        ) -> Result<(), StateError>;
    }
}

/// Chains come back in any order: free descriptors are a list, first in, first out, so that the available ring repeats
/// itself while the device completes in order.
#[derive(Debug, Default)]
pub struct AnyOrder {
    head: Kept,
    tail: Kept,
    free: Kept,
}

impl sealed::DriverOrder for AnyOrder {
    const KIND: RingKind = RingKind::plain(RingFormat::Split);

    fn start<T>(&mut self, slots: &mut [DriverSlot<T>], size: u16) {
        for (index, slot) in (0..size).zip(slots.iter_mut()) {
            slot.next = (index + 1) & (size - 1);
        }
        self.head = Kept::new(0);
        self.tail = Kept::new(size - 1);
        self.free = Kept::new(size);
    }

    #[inline(always)]
    fn free(&self) -> u16 {
        self.free.get()
    }

    #[inline(always)]
    fn head(&self) -> u16 {
        self.head.get()
    }

    #[inline(always)]
    fn following<T>(&self, slots: &[DriverSlot<T>], index: u16, _: u16) -> u16 {
        slots[usize::from(index)].next
    }

    #[inline(always)]
    fn lend<T>(&mut self, slots: &mut [DriverSlot<T>], last: u16, following: u16, count: u16) {
        let slot = &mut slots[usize::from(self.head.get())];
        slot.descriptors = count;
        slot.last = last;
        self.head = Kept::new(following);
        self.free.sub(count);
    }

    fn known(&self) -> u16 {
        0
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
        if self.free.get() == 0 {
            self.head = Kept::new(id);
        } else {
            slots[usize::from(self.tail.get())].next = id;
        }
        self.tail = Kept::new(last);
        self.free.add(count);
    }

    fn list<T>(
        &self,
        slots: &[DriverSlot<T>],
        id: u16,
        to: &mut DriverStateWriter<'_>,
    ) -> Result<(), StateError> {
        let mut index = id;
        for _ in 0..slots[usize::from(id)].descriptors {
            to.push_index(index)?;
            index = slots[usize::from(index)].next;
        }
        Ok(())
    }

    fn resume<T>(
        &mut self,
        slots: &mut [DriverSlot<T>],
        state: &DriverState<'_>,
    ) -> Result<(), StateError> {
        let size = state.size();
        // The state's indices are below its size, and each belongs to one chain.
        let none = size;
        for slot in slots.iter_mut() {
            slot.next = none;
        }
        for chain in state.chains() {
            let mut last = chain.id;
            for index in chain.indices() {
                slots[usize::from(last)].next = index;
                last = index;
            }
            // What follows the last of a chain does not matter, but that it is lent.
            slots[usize::from(last)].next = last;
            slots[usize::from(chain.id)].last = last;
        }
        self.free = Kept::new(0);
        for index in 0..size {
            if slots[usize::from(index)].next != none {
                continue;
            }
            if self.free.get() == 0 {
                self.head = Kept::new(index);
            } else {
                slots[usize::from(self.tail.get())].next = index;
            }
            self.tail = Kept::new(index);
            self.free.add(1);
        }
        Ok(())
    }
}

/// Chains come back in the order in which they were made available (virtio 1.4, section 2.7.9): descriptors are taken
/// in the table's order, and one used element ends a batch. Nothing of a list is kept.
#[derive(Debug, Default)]
pub struct InOrder {
    /// The first descriptor of the next chain.
    head: Kept,
    /// The first descriptor of the oldest chain that is lent.
    oldest: Kept,
    free: Kept,
    batch: Batch,
}

impl sealed::DriverOrder for InOrder {
    const KIND: RingKind = RingKind::in_order(RingFormat::Split);

    fn start<T>(&mut self, _: &mut [DriverSlot<T>], size: u16) {
        *self = Self {
            free: Kept::new(size),
            ..Self::default()
        };
    }

    #[inline(always)]
    fn free(&self) -> u16 {
        self.free.get()
    }

    #[inline(always)]
    fn head(&self) -> u16 {
        self.head.get()
    }

    #[inline(always)]
    fn following<T>(&self, _: &[DriverSlot<T>], index: u16, size: u16) -> u16 {
        (index + 1) & (size - 1)
    }

    #[inline(always)]
    fn lend<T>(&mut self, slots: &mut [DriverSlot<T>], _: u16, following: u16, count: u16) {
        slots[usize::from(self.head.get())].descriptors = count;
        self.head = Kept::new(following);
        self.free.sub(count);
    }

    fn known(&self) -> u16 {
        self.batch.rest()
    }

    #[inline(always)]
    fn resolve<T, W: Window>(
        &mut self,
        slots: &[DriverSlot<T>],
        used: &UsedElements<W>,
        found: Found,
    ) -> Result<UsedElement, DriverFault> {
        if self.batch.rest() == 0 {
            // Read once for the whole batch, which reaches no further than the used index says.
            let element = used.load(found.position);
            let oldest = self.oldest.get();
            self.batch = Batch::begin(slots, oldest, element, found.position, found.count)?;
        }
        Ok(self.batch.element(slots, self.oldest.get()))
    }

    #[inline(always)]
    fn release<T>(&mut self, slots: &mut [DriverSlot<T>], _: u16, size: u16) {
        let count = slots[usize::from(self.oldest.get())].descriptors;
        self.oldest = Kept::new((self.oldest.get() + count) & (size - 1));
        self.free.add(count);
        self.batch.take();
    }

    fn list<T>(
        &self,
        _: &[DriverSlot<T>],
        _: u16,
        _: &mut DriverStateWriter<'_>,
    ) -> Result<(), StateError> {
        Ok(())
    }

    fn resume<T>(
        &mut self,
        _: &mut [DriverSlot<T>],
        state: &DriverState<'_>,
    ) -> Result<(), StateError> {
        let size = state.size();
        let mut next = state
            .chains()
            .next()
            .map_or(state.head(), |oldest| oldest.id);
        let mut free = size;
        self.oldest = Kept::new(next);
        for (index, chain) in (0..).zip(state.chains()) {
            if chain.id != next {
                return Err(StateError::Chain {
                    chain: index,
                    field: "id",
                    found: u64::from(chain.id),
                    expected: "the descriptor behind the chain before it",
                });
            }
            next = (next + chain.descriptors) & (size - 1);
            free -= chain.descriptors;
        }
        if next != state.head() {
            return Err(StateError::Field {
                field: "head",
                found: u64::from(state.head()),
                expected: "the descriptor behind the last chain",
            });
        }
        self.head = Kept::new(next);
        self.free = Kept::new(free);
        self.batch = Batch::default();
        Ok(())
    }
}
