//! How the device shows completed chains: in any order, a used descriptor each; or in the order in which they were made
//! available (`VIRTIO_F_IN_ORDER`), a used descriptor for a batch.

use shmbus_shm::{RingFormat, Window};

use super::areas::{Descriptors, State};
use super::cursor::Cursor;
use super::unpublished::Unpublished;
use crate::descriptor::{UsedElement, WRITE};
use crate::device::{Completed, Completion, DeviceSlot};
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

        /// Takes note of a completed chain.
        fn place<W: Window>(slots: &mut [DeviceSlot], used: UsedRing<'_, W>, chain: Completed);

        /// Writes what is still to be written of the chains completed so far, of which none lies at `taken` or behind
        /// it; one used descriptor and no more if that is to be shown by itself.
        fn settle<W: Window>(
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

    #[inline(always)]
    fn place<W: Window>(_: &mut [DeviceSlot], mut used: UsedRing<'_, W>, chain: Completed) {
        used.write(chain.element(), chain.entries);
    }

    #[inline(always)]
    fn settle<W: Window>(_: &mut [DeviceSlot], _: UsedRing<'_, W>, _: Cursor, _: bool) {}
}

/// Chains are shown in the order in which they were taken (virtio 1.4, section 2.8.8): one that is completed before its
/// turn waits for those before it. One used descriptor is written for a batch, in the place of its first chain, with
/// the id of its last. The driver takes the others as used completely, so a chain that was not ends a batch.
#[derive(Debug, Default)]
pub struct InOrder;

impl sealed::DeviceOrder for InOrder {
    const KIND: RingKind = RingKind::in_order(RingFormat::Packed);

    #[inline(always)]
    fn place<W: Window>(slots: &mut [DeviceSlot], _: UsedRing<'_, W>, chain: Completed) {
        let offset = Cursor::offset_of(chain.position);
        slots[usize::from(offset)].completion = Some(Completion::from(chain));
    }

    #[inline(always)]
    fn settle<W: Window>(
        slots: &mut [DeviceSlot],
        mut used: UsedRing<'_, W>,
        taken: Cursor,
        stepwise: bool,
    ) {
        let mut at = used.unpublished.next();
        let mut last = None;
        let mut entries = 0;
        while at != taken {
            let slot = &mut slots[usize::from(at.offset())];
            let Some(completion) = slot.completion.take() else {
                break;
            };
            at = at.forward(completion.entries, used.size);
            entries += completion.entries;
            if completion.completely {
                last = Some(completion.element);
            } else {
                used.write(completion.element, entries);
                if stepwise {
                    return;
                }
                entries = 0;
                last = None;
            }
        }
        if let Some(element) = last {
            used.write(element, entries);
        }
    }
}
