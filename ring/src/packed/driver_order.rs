//! Which ids the driver gives chains, and which chain a used descriptor stands for: in any order, or in the order in
//! which they were made available (`VIRTIO_F_IN_ORDER`).

use shmbus_shm::{RingFormat, Window};

use super::areas::{Descriptors, State};
use super::cursor::Cursor;
use crate::descriptor::UsedElement;
use crate::driver::DriverSlot;
use crate::fault::DriverFault;
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

        /// Chain `id` is lent.
        fn lend<T>(&mut self, slots: &[DriverSlot<T>], id: u16);

        /// What is lent is published.
        fn publish(&mut self);

        /// How many chains are known to be used without another look.
        fn known(&self) -> u16;

        /// The chain that was used next, if there is one. Its descriptor, or that of the batch it is in, is at `used`.
        fn resolve<T, W: Window>(
            &mut self,
            slots: &[DriverSlot<T>],
            descriptors: &Descriptors<W>,
            used: Cursor,
        ) -> Result<Option<UsedElement>, DriverFault>;

        /// Chain `id`, which was resolved, is taken back.
        fn release<T>(&mut self, slots: &mut [DriverSlot<T>], id: u16);

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
    free: u16,
}

impl sealed::DriverOrder for AnyOrder {
    const KIND: RingKind = RingKind::plain(RingFormat::Packed);

    fn start<T>(&mut self, slots: &mut [DriverSlot<T>], size: u16) {
        for (id, slot) in (0..size).zip(slots.iter_mut()) {
            slot.next = id + 1;
        }
        self.free = 0;
    }

    #[inline(always)]
    fn id(&self, _: Cursor) -> u16 {
        self.free
    }

    #[inline(always)]
    fn lend<T>(&mut self, slots: &[DriverSlot<T>], id: u16) {
        self.free = slots[usize::from(id)].next;
    }

    #[inline(always)]
    fn publish(&mut self) {}

    #[inline(always)]
    fn known(&self) -> u16 {
        0
    }

    #[inline(always)]
    fn resolve<T, W: Window>(
        &mut self,
        _: &[DriverSlot<T>],
        descriptors: &Descriptors<W>,
        used: Cursor,
    ) -> Result<Option<UsedElement>, DriverFault> {
        Ok(descriptors.load_used(used).map(State::used_element))
    }

    #[inline(always)]
    fn release<T>(&mut self, slots: &mut [DriverSlot<T>], id: u16) {
        slots[usize::from(id)].next = self.free;
        self.free = id;
    }

    fn resume<T>(
        &mut self,
        slots: &mut [DriverSlot<T>],
        state: &DriverState<'_>,
        _: Cursor,
    ) -> Result<(), StateError> {
        self.free = state.size();
        for (id, slot) in (0..state.size()).zip(slots.iter_mut()).rev() {
            if slot.cookie.is_none() {
                slot.next = self.free;
                self.free = id;
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
    /// How many chains are placed and not published.
    placed: u16,
    /// How many chains are published and not taken back.
    published: u16,
    /// How many chains of the batch that was found last are not taken back; all of them are used.
    rest: u16,
    /// What its descriptor says of the last of them.
    last_len: u32,
}

impl InOrder {
    /// Finds out how many chains the used descriptor at `used` ends. Its id, the device's word, must be that of a chain
    /// that is lent and published.
    fn begin_batch<T>(
        &mut self,
        slots: &[DriverSlot<T>],
        element: UsedElement,
        used: Cursor,
    ) -> Result<(), DriverFault> {
        let position = used.to_bits();
        let id = element.id;
        let number_of = |id: usize| {
            let slot = slots.get(id)?;
            slot.cookie.is_some().then_some(slot.number)
        };
        let (Some(oldest), Some(last)) = (
            number_of(usize::from(used.offset())),
            number_of(id as usize),
        ) else {
            return Err(DriverFault::NotLent { position, id });
        };
        // Chains are numbered as they are placed: the oldest that is lent has the lowest number.
        let chains = last - oldest + 1;
        if chains > u64::from(self.published) {
            return Err(DriverFault::BatchEnd {
                position,
                id,
                found: chains,
                expected: self.published,
            });
        }
        self.rest = chains as u16;
        self.last_len = element.len;
        Ok(())
    }
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
    fn lend<T>(&mut self, _: &[DriverSlot<T>], _: u16) {
        self.placed += 1;
    }

    #[inline(always)]
    fn publish(&mut self) {
        self.published += core::mem::take(&mut self.placed);
    }

    #[inline(always)]
    fn known(&self) -> u16 {
        self.rest
    }

    #[inline(always)]
    fn resolve<T, W: Window>(
        &mut self,
        slots: &[DriverSlot<T>],
        descriptors: &Descriptors<W>,
        used: Cursor,
    ) -> Result<Option<UsedElement>, DriverFault> {
        if self.rest == 0 {
            // Read once for the whole batch.
            let Some(state) = descriptors.load_used(used) else {
                return Ok(None);
            };
            self.begin_batch(slots, state.used_element(), used)?;
        }
        let id = used.offset();
        Ok(Some(UsedElement {
            id: u32::from(id),
            // Chains that a batch skips were used completely, whatever its one descriptor says of writing: its length
            // and its flag WRITE are the last chain's.
            len: if self.rest == 1 {
                self.last_len
            } else {
                slots[usize::from(id)].writable
            },
        }))
    }

    #[inline(always)]
    fn release<T>(&mut self, _: &mut [DriverSlot<T>], _: u16) {
        self.published -= 1;
        self.rest -= 1;
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
            published: state.positions().in_flight,
            ..Self::default()
        };
        Ok(())
    }
}
