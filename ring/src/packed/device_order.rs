//! How the device shows completed chains: in any order, a used descriptor each; or in the order in which they were made
//! available (`VIRTIO_F_IN_ORDER`), a used descriptor for a batch.

use shmbus_shm::{RingFormat, Window};

use super::areas::{Descriptors, State};
use super::cursor::Cursor;
use super::unpublished::Unpublished;
use crate::descriptor::{UsedElement, WRITE};
use crate::device::{Completed, Completion, DeviceSlot};
use crate::kept::Kept;
use crate::kind::RingKind;

/// A device's bookkeeping of completed chains.
pub trait DeviceOrder: sealed::DeviceOrder {}

impl<O: sealed::DeviceOrder> DeviceOrder for O {}

/// Where used descriptors go.
#[derive(Debug)]
pub struct UsedRing<'r, W> {
    pub(super) descriptors: &'r Descriptors<W>,
    pub(super) unpublished: &'r mut Unpublished,
    pub(super) size: u16,
}

impl<W: Window> UsedRing<'_, W> {
    /// Writes the used descriptor of chains that take up `entries` descriptors, of which `element` is the last: one
    /// stands for all of them, and the others are left out (virtio 1.4, sections 2.8.6 and 2.8.8).
    #[inline(always)]
    fn write(&mut self, element: UsedElement, entries: u16) {
        // Whether anything was written to the last chain, as the length is its length too.
        let flags = if element.len > 0 { WRITE } else { 0 };
        let mark = self.unpublished.next().used_mark();
        // The id is below the queue's size.
        let state = State::new(element.len, element.id as u16, flags, mark);
        self.unpublished
            .write(self.descriptors, state, entries, self.size);
    }
}

pub(super) mod sealed {
    use super::*;

    pub trait DeviceOrder: Default {
        /// Which type of packed ring this makes.
        const KIND: RingKind;

        /// Nothing is completed, and the next used descriptor goes to `position`.
        fn start(&mut self, position: Cursor);

        /// Takes note of a completed chain.
        fn place<W: Window>(
            &mut self,
            slots: &mut [DeviceSlot],
            used: UsedRing<'_, W>,
            chain: Completed,
        );

        /// Writes what is still to be written of the chains completed so far, of which none lies at `taken` or behind
        /// it; one used descriptor and no more if that is to be shown by itself.
        fn settle<W: Window>(
            &mut self,
            slots: &mut [DeviceSlot],
            used: UsedRing<'_, W>,
            taken: Cursor,
            stepwise: bool,
        );
    }
}

/// Each chain gets a used descriptor when it is completed.
#[derive(Debug, Default)]
pub struct AnyOrder;

impl sealed::DeviceOrder for AnyOrder {
    const KIND: RingKind = RingKind::plain(RingFormat::Packed);

    fn start(&mut self, _: Cursor) {}

    #[inline(always)]
    fn place<W: Window>(
        &mut self,
        _: &mut [DeviceSlot],
        mut used: UsedRing<'_, W>,
        chain: Completed,
    ) {
        used.write(chain.element(), chain.entries);
    }

    #[inline(always)]
    fn settle<W: Window>(&mut self, _: &mut [DeviceSlot], _: UsedRing<'_, W>, _: Cursor, _: bool) {}
}

/// Chains are shown in the order in which they were taken (virtio 1.4, section 2.8.8): one that is completed before its
/// turn waits for those before it, in the slots. One used descriptor is written for a batch, in the place of its first
/// chain, with the id of its last. The driver takes the others as used completely, so a chain that was not ends a batch.
#[derive(Debug, Default)]
pub struct InOrder {
    /// The chain whose turn it is.
    turn: Cursor,
    /// How many descriptors the chains take up whose turn it was and that are not written. All were used completely.
    entries: Kept,
    /// The last of them.
    last: UsedElement,
}

impl sealed::DeviceOrder for InOrder {
    const KIND: RingKind = RingKind::in_order(RingFormat::Packed);

    fn start(&mut self, position: Cursor) {
        *self = Self {
            turn: position,
            ..Self::default()
        };
    }

    #[inline(always)]
    fn place<W: Window>(
        &mut self,
        slots: &mut [DeviceSlot],
        used: UsedRing<'_, W>,
        chain: Completed,
    ) {
        let offset = Cursor::offset_of(chain.position);
        // Chains in flight have an offset each. Most are completed when it is their turn.
        if chain.completely && offset == self.turn.offset() {
            self.last = chain.element();
            self.entries.add(chain.entries);
            self.turn = self.turn.forward(chain.entries, used.size);
        } else {
            slots[usize::from(offset)].completion = Some(Completion::from(chain));
        }
    }

    #[inline(always)]
    fn settle<W: Window>(
        &mut self,
        slots: &mut [DeviceSlot],
        mut used: UsedRing<'_, W>,
        taken: Cursor,
        stepwise: bool,
    ) {
        while self.turn != taken {
            let slot = &mut slots[usize::from(self.turn.offset())];
            let Some(completion) = slot.completion.take() else {
                break;
            };
            self.last = completion.element;
            self.entries.add(completion.entries);
            self.turn = self.turn.forward(completion.entries, used.size);
            if !completion.completely {
                used.write(self.last, core::mem::take(&mut self.entries).get());
                if stepwise {
                    return;
                }
            }
        }
        if self.entries.get() > 0 {
            used.write(self.last, core::mem::take(&mut self.entries).get());
        }
    }
}
