//! How the device shows completed chains: in any order, an element each; or in the order in which they were made
//! available (`VIRTIO_F_IN_ORDER`), an element for a batch.

use shmbus_shm::{RingFormat, Window};

use super::areas::UsedElements;
use crate::descriptor::UsedElement;
use crate::device::{Completed, Completion, DeviceSlot};
use crate::kept::Kept;
use crate::kind::RingKind;

/// A device's bookkeeping of completed chains.
pub trait DeviceOrder: sealed::DeviceOrder {}

impl<O: sealed::DeviceOrder> DeviceOrder for O {}

pub(super) mod sealed {
    use super::*;

    pub trait DeviceOrder: Default {
        /// Which type of split ring this makes.
        const KIND: RingKind;

        /// Nothing is completed, and the next used element goes to `position`.
        fn start(&mut self, position: u16);

        /// Where the next used element goes, behind those that were written.
        fn next(&self) -> u16;

        /// Takes note of a completed chain.
        fn place<W: Window>(
            &mut self,
            slots: &mut [DeviceSlot],
            used: &UsedElements<W>,
            chain: Completed,
            size: u16,
        );

        /// Writes what is still to be written of the chains completed so far, of which none lies at `taken` or behind
        /// it; returns the used index that shows them.
        fn settle<W: Window>(
            &mut self,
            slots: &mut [DeviceSlot],
            used: &UsedElements<W>,
            taken: u16,
            size: u16,
        ) -> u16;
    }
}

/// Each chain gets a used element when it is completed.
#[derive(Debug, Default)]
pub struct AnyOrder {
    /// Where the next used element goes.
    next: Kept,
}

impl sealed::DeviceOrder for AnyOrder {
    const KIND: RingKind = RingKind::plain(RingFormat::Split);

    fn start(&mut self, position: u16) {
        self.next = Kept::new(position);
    }

    #[inline(always)]
    fn next(&self) -> u16 {
        self.next.get()
    }

    #[inline(always)]
    fn place<W: Window>(
        &mut self,
        slots: &mut [DeviceSlot],
        used: &UsedElements<W>,
        chain: Completed,
        size: u16,
    ) {
        store(slots, used, self.next.get() & (size - 1), chain.element());
        self.next = Kept::new(self.next.get().wrapping_add(1));
    }

    #[inline(always)]
    fn settle<W: Window>(
        &mut self,
        _: &mut [DeviceSlot],
        _: &UsedElements<W>,
        _: u16,
        _: u16,
    ) -> u16 {
        self.next.get()
    }
}

/// Chains are shown in the order in which they were taken (virtio 1.4, section 2.7.9): one that is completed before its
/// turn waits for those before it. One used element is written for a batch, at the place of its first chain, with the id
/// of its last. The driver takes the others as used completely, so a chain that was not ends a batch.
#[derive(Debug, Default)]
pub struct InOrder {
    /// The first chain that is not shown.
    next: Kept,
}

impl sealed::DeviceOrder for InOrder {
    const KIND: RingKind = RingKind::in_order(RingFormat::Split);

    fn start(&mut self, position: u16) {
        self.next = Kept::new(position);
    }

    #[inline(always)]
    fn next(&self) -> u16 {
        self.next.get()
    }

    #[inline(always)]
    fn place<W: Window>(
        &mut self,
        slots: &mut [DeviceSlot],
        _: &UsedElements<W>,
        chain: Completed,
        size: u16,
    ) {
        let slot = &mut slots[usize::from(chain.position & (size - 1))];
        slot.completion = Some(Completion::from(chain));
    }

    #[inline(always)]
    fn settle<W: Window>(
        &mut self,
        slots: &mut [DeviceSlot],
        used: &UsedElements<W>,
        taken: u16,
        size: u16,
    ) -> u16 {
        let mut first = self.next.get();
        let mut at = first;
        let mut last = None;
        while at != taken {
            let slot = &mut slots[usize::from(at & (size - 1))];
            let Some(completion) = slot.completion.take() else {
                break;
            };
            at = at.wrapping_add(1);
            if completion.completely {
                last = Some(completion.element);
            } else {
                store(slots, used, first & (size - 1), completion.element);
                first = at;
                last = None;
            }
        }
        if let Some(element) = last {
            store(slots, used, first & (size - 1), element);
        }
        self.next = Kept::new(at);
        at
    }
}

/// An element that would not change is not stored, and its line stays shared between the two sides.
#[inline(always)]
fn store<W: Window>(
    slots: &mut [DeviceSlot],
    used: &UsedElements<W>,
    entry: u16,
    element: UsedElement,
) {
    let shadow = &mut slots[usize::from(entry)].used;
    if *shadow != element {
        *shadow = element;
        used.store(entry, element);
    }
}
