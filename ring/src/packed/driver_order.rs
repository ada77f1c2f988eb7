//! Which ids the driver gives chains, and which chain a used descriptor stands for: in any order, or in the order in
//! which they were made available (`VIRTIO_F_IN_ORDER`).

use shmbus_shm::{RingFormat, Window};

use super::areas::Descriptors;
use super::cursor::Cursor;
use crate::descriptor::UsedElement;
use crate::driver::{Batch, DriverSlot};
use crate::fault::DriverFault;
use crate::kept::Kept;
use crate::kind::RingKind;
use crate::state::{DriverState, StateError};

/// A driver's bookkeeping of buffer ids.
pub trait DriverOrder: sealed::DriverOrder {}

impl<O: sealed::DriverOrder> DriverOrder for O {}

pub(super) mod sealed {
    use super::*;

    pub trait DriverOrder: Default {
        /// Which type of packed ring this makes.
        const KIND: RingKind;

        /// All ids are free.
        fn start<T>(&mut self, slots: &mut [DriverSlot<T>], size: u16);

        /// The id of the chain that is placed at `next`.
        fn id(&self, next: Cursor) -> u16;

        /// The chain whose id this slot's index is, and was the last that was asked for, is lent.
        fn lend<T>(&mut self, slot: &DriverSlot<T>);

        /// What is lent is published: as many chains as were `placed`.
        fn publish(&mut self, placed: Kept);

        /// How many chains are known to be used without another look.
        fn known(&self) -> u16;

        /// The chain that was used next, behind those that were `taken`, if there is one. Its descriptor, or that of the
        /// batch that it begins, is at `used`.
        fn resolve<T, W: Window>(
            &mut self,
            slots: &[DriverSlot<T>],
            descriptors: &Descriptors<W>,
            used: Cursor,
            taken: Kept,
        ) -> Result<Option<UsedElement>, DriverFault>;

        /// Chain `id`, which was resolved, is taken back; its slot.
        fn release<T>(&mut self, slot: &mut DriverSlot<T>, id: u16);

        /// The chains of a state are lent, from `used` on; their cookies are in the slots.
        fn resume<T>(
            &mut self,
            slots: &mut [DriverSlot<T>],
            state: &DriverState<'_>,
            used: Cursor,
        ) -> Result<(), StateError>;
    }
}

/// Chains come back in any order: free ids are a list in the slots.
#[derive(Debug, Default)]
pub struct AnyOrder {
    /// The id that the next chain gets.
    free: Kept,
}

impl sealed::DriverOrder for AnyOrder {
    const KIND: RingKind = RingKind::plain(RingFormat::Packed);

    fn start<T>(&mut self, slots: &mut [DriverSlot<T>], size: u16) {
        for (id, slot) in (0..size).zip(slots.iter_mut()) {
            slot.next = id + 1;
        }
        self.free = Kept::new(0);
    }

    #[inline(always)]
    fn id(&self, _: Cursor) -> u16 {
        self.free.get()
    }

    #[inline(always)]
    fn lend<T>(&mut self, slot: &DriverSlot<T>) {
        self.free = Kept::new(slot.next);
    }

    #[inline(always)]
    fn publish(&mut self, _: Kept) {}

    #[inline(always)]
    fn known(&self) -> u16 {
        0
    }

    #[inline(always)]
    fn resolve<T, W: Window>(
        &mut self,
        slots: &[DriverSlot<T>],
        descriptors: &Descriptors<W>,
        used: Cursor,
        _: Kept,
    ) -> Result<Option<UsedElement>, DriverFault> {
        let state = descriptors.load_used(used);
        Ok(state.map(|state| state.used_element(slots)))
    }

    #[inline(always)]
    fn release<T>(&mut self, slot: &mut DriverSlot<T>, id: u16) {
        slot.next = self.free.get();
        self.free = Kept::new(id);
    }

    fn resume<T>(
        &mut self,
        slots: &mut [DriverSlot<T>],
        state: &DriverState<'_>,
        _: Cursor,
    ) -> Result<(), StateError> {
        self.free = Kept::new(state.size());
        for (id, slot) in (0..state.size()).zip(slots.iter_mut()).rev() {
            if slot.cookie.is_none() {
                slot.next = self.free.get();
                self.free = Kept::new(id);
            }
        }
        Ok(())
    }
}

/// Chains come back in the order in which they were made available (virtio 1.4, section 2.8.8), and one used descriptor
/// ends a batch. A chain's id is the offset of its first descriptor: so nothing of a list is kept, and the oldest chain
/// that is lent is the one whose turn it is.
#[derive(Debug, Default)]
pub struct InOrder {
    /// How many chains were published. Like the ring's counts of chains it wraps.
    published: Kept,
    batch: Batch,
}

impl sealed::DriverOrder for InOrder {
    const KIND: RingKind = RingKind::in_order(RingFormat::Packed);

    fn start<T>(&mut self, _: &mut [DriverSlot<T>], _: u16) {
        *self = Self::default();
    }

    #[inline(always)]
    fn id(&self, next: Cursor) -> u16 {
        next.offset()
    }

    #[inline(always)]
    fn lend<T>(&mut self, _: &DriverSlot<T>) {}

    #[inline(always)]
    fn publish(&mut self, placed: Kept) {
        self.published = placed;
    }

    #[inline(always)]
    fn known(&self) -> u16 {
        self.batch.rest()
    }

    #[inline(always)]
    fn resolve<T, W: Window>(
        &mut self,
        slots: &[DriverSlot<T>],
        descriptors: &Descriptors<W>,
        used: Cursor,
        taken: Kept,
    ) -> Result<Option<UsedElement>, DriverFault> {
        let oldest = used.offset();
        if self.batch.rest() == 0 {
            // Read once for the whole batch.
            let Some(state) = descriptors.load_used(used) else {
                return Ok(None);
            };
            let element = state.used_element(slots);
            let published = self.published.since(taken);
            self.batch = Batch::begin(slots, oldest, element, used.to_bits(), published)?;
        }
        Ok(Some(self.batch.element(slots, oldest)))
    }

    #[inline(always)]
    fn release<T>(&mut self, _: &mut DriverSlot<T>, _: u16) {
        self.batch.take();
    }

    fn resume<T>(
        &mut self,
        _: &mut [DriverSlot<T>],
        state: &DriverState<'_>,
        used: Cursor,
    ) -> Result<(), StateError> {
        let mut at = used;
        for (index, chain) in (0..).zip(state.chains()) {
            if chain.id != at.offset() {
                return Err(StateError::Chain {
                    chain: index,
                    field: "id",
                    found: u64::from(chain.id),
                    expected: "the offset of its first descriptor",
                });
            }
            at = at.forward(chain.descriptors, state.size());
        }
        *self = Self {
            published: Kept::new(state.positions().in_flight),
            ..Self::default()
        };
        Ok(())
    }
}
