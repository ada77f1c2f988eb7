//! The driver side of the split ring.

use core::sync::atomic::Ordering::{Acquire, Relaxed, Release, SeqCst};

use shmbus_shm::{Notify, Window};

use super::areas::{Areas, Available, Descriptors, Used};
use super::driver_order::{AnyOrder, DriverOrder, Found, InOrder};
use super::suppression::Wish;
use super::{IN_ORDER, PLAIN};
use crate::descriptor::{
    Buffer, DESCRIPTOR_BYTES, Descriptor, INDIRECT, UsedElement, describe, only_buffer,
};
use crate::driver::{DriverSlot, sealed};
use crate::event::{Recheck, Untold};
use crate::fault::{DriverFault, SetupError};
use crate::features::{RingFeatures, RingType};
use crate::kept::Kept;
use crate::kind::RingKind;
use crate::positions::Positions;
use crate::state::{DriverState, DriverStateWriter, StateError};

/// No descriptor has this index: the available entry's content is not known.
const UNKNOWN: u16 = u16::MAX;

/// The driver side of a split ring whose chains come back in any order.
pub type DriverRing<W> = DriverRingIn<W, AnyOrder>;

/// The driver side of a split ring whose chains come back in the order in which they were made available
/// (`VIRTIO_F_IN_ORDER`): one used element is read for each batch. Its id, checked against what was lent, gives the
/// batch's end, and its length is the last chain's; the chains before that count as used completely.
pub type InOrderDriverRing<W> = DriverRingIn<W, InOrder>;

/// The driver side of a split ring; a [`DriverQueue`](crate::DriverQueue) works over it.
///
/// It only ever *writes* the descriptor area and the driver area: which descriptors are free and all positions are
/// private. An entry of the available ring that would not change is not stored, and its line stays shared between the
/// two sides.
#[derive(Debug)]
pub struct DriverRingIn<W, O> {
    descriptors: Descriptors<W>,
    available: Available<W>,
    used: Used<W>,
    size: u16,
    indirect: bool,
    /// The device asks by position.
    avail_event: bool,
    order: O,
    /// Where the next chain goes in the available ring.
    next_available: Kept,
    /// The available index as the device sees it.
    published: Kept,
    untold: Untold,
    /// The used index as it was last seen.
    used_seen: Kept,
    /// The used entry that is taken next.
    last_used: Kept,
    /// What this side asks for.
    wish: Wish,
}

impl<W: Window> DriverRing<W> {
    /// The driver side over `areas`, with what was negotiated.
    ///
    /// # Errors
    ///
    /// [`SetupError`]: the features cannot be used together, belong to another type of ring (`RING_PACKED`,
    /// `IN_ORDER`), or need memory with stronger fences.
    pub fn new(areas: Areas<W>, features: impl Into<RingFeatures>) -> Result<Self, SetupError> {
        Self::of_type(PLAIN, areas, features.into())
    }
}

impl<W: Window> InOrderDriverRing<W> {
    /// The driver side over `areas`, with what was negotiated.
    ///
    /// # Errors
    ///
    /// [`SetupError`]: the features cannot be used together, `IN_ORDER` is not among them, they belong to another type
    /// of ring (`RING_PACKED`), or need memory with stronger fences.
    pub fn new(areas: Areas<W>, features: impl Into<RingFeatures>) -> Result<Self, SetupError> {
        Self::of_type(IN_ORDER, areas, features.into())
    }
}

impl<W: Window, O: DriverOrder> DriverRingIn<W, O> {
    fn of_type(
        ring: RingType,
        areas: Areas<W>,
        features: RingFeatures,
    ) -> Result<Self, SetupError> {
        let features = features.check(ring, areas.fence_scope())?;
        Ok(Self {
            descriptors: areas.descriptors,
            available: areas.available,
            used: areas.used,
            size: areas.size,
            indirect: features.indirect(),
            avail_event: features.avail_event(),
            order: O::default(),
            next_available: Kept::default(),
            published: Kept::default(),
            untold: Untold::default(),
            used_seen: Kept::default(),
            last_used: Kept::default(),
            wish: Wish::new(features.used_event(), features.publish_indices()),
        })
    }

    /// Writes a chain over free descriptors; returns its head.
    #[inline(always)]
    fn place_chain<T>(
        &mut self,
        slots: &mut [DriverSlot<T>],
        chain: impl Iterator<Item = (Buffer, u16)>,
    ) -> u16 {
        let head = self.order.head();
        let mut last = head;
        let mut following = head;
        let mut count = 0;
        for (buffer, flags) in chain {
            last = following;
            following = self.order.following(slots, last, self.size);
            self.descriptors.store(
                last,
                Descriptor {
                    buffer,
                    flags,
                    next: Descriptor::next_field(flags, following),
                },
            );
            count += 1;
        }
        self.order.lend(slots, last, following, count);

        let entry = self.next_available.get() & (self.size - 1);
        let shadow = &mut slots[usize::from(entry)].available;
        if *shadow != head {
            *shadow = head;
            self.available.ring.store(usize::from(entry), head, Relaxed);
        }
        self.next_available = Kept::new(self.next_available.get().wrapping_add(1));
        head
    }

    /// As [`DriverRing::place_chain`], for chains of more than one buffer.
    #[inline]
    fn place_many<T>(
        &mut self,
        slots: &mut [DriverSlot<T>],
        readable: &[Buffer],
        writable: &[Buffer],
    ) -> u16 {
        self.place_chain(slots, describe(readable, writable))
    }
}

impl<W: Window, O: DriverOrder> sealed::DriverFormat for DriverRingIn<W, O> {
    type Areas = Areas<W>;

    #[inline(always)]
    fn kind(&self) -> RingKind {
        O::KIND
    }

    #[inline(always)]
    fn size(&self) -> u16 {
        self.size
    }

    #[inline(always)]
    fn free(&self) -> u16 {
        self.order.free()
    }

    #[inline(always)]
    fn has_indirect(&self) -> bool {
        self.indirect
    }

    fn start<T>(&mut self, slots: &mut [DriverSlot<T>], position: u16) {
        for slot in slots.iter_mut() {
            slot.available = UNKNOWN;
        }
        self.order.start(slots, self.size);
        self.next_available = Kept::new(position);
        self.published = Kept::new(position);
        self.untold = Untold::default();
        self.used_seen = Kept::new(position);
        self.last_used = Kept::new(position);
        self.wish.start(&self.available.suppression, position);
        self.available.idx.store(position, Release);
    }

    fn rebind(&mut self, areas: Areas<W>) -> Result<(), SetupError> {
        super::check_rebinding(&areas, self.size, self.available.idx.fence_scope())?;
        self.descriptors = areas.descriptors;
        self.available = areas.available;
        self.used = areas.used;
        Ok(())
    }

    #[inline(always)]
    fn place<T>(
        &mut self,
        slots: &mut [DriverSlot<T>],
        readable: &[Buffer],
        writable: &[Buffer],
    ) -> u16 {
        match only_buffer(readable, writable) {
            Some(one) => self.place_chain(slots, core::iter::once(one)),
            None => self.place_many(slots, readable, writable),
        }
    }

    fn place_indirect<T>(&mut self, slots: &mut [DriverSlot<T>], table: Buffer) -> u16 {
        self.place_chain(slots, core::iter::once((table, INDIRECT)))
    }

    fn indirect_row(&self, index: u16, buffer: Buffer, flags: u16) -> [u8; DESCRIPTOR_BYTES] {
        Descriptor {
            buffer,
            flags,
            next: Descriptor::next_field(flags, index + 1),
        }
        .to_bytes()
    }

    #[inline(always)]
    fn show(&mut self) {
        let new = self.next_available.get();
        let count = new.wrapping_sub(self.published.get());
        if count == 0 {
            return;
        }
        self.published = Kept::new(new);
        self.untold.add(count);
        // Release: whoever sees the index sees the entries and the descriptors before it, and the buffers' bytes.
        self.available.idx.store(new, Release);
    }

    #[inline(always)]
    fn notify(&mut self) -> Notify {
        let untold = core::mem::take(&mut self.untold);
        if untold.is_empty() {
            return Notify::No;
        }
        // Between the index and the look at what the device asked for: pairs with the fence of its
        // `enable_notifications`. Either we see its wish, or it sees our index.
        self.available.idx.fence(SeqCst);
        let device = &self.used.suppression;
        if device.is_wanted(self.avail_event, untold, self.published.get()) {
            Notify::Yes
        } else {
            Notify::No
        }
    }

    #[inline(always)]
    fn poll(&mut self) -> Result<u16, DriverFault> {
        // Acquire: the used elements, and what the device wrote into buffers, come with the index.
        let found = self.used.idx.load(Acquire);
        let used = found.wrapping_sub(self.last_used.get());
        let published = self.published.get().wrapping_sub(self.last_used.get());
        let seen = self.used_seen.get().wrapping_sub(self.last_used.get());
        if used > published || used < seen {
            return Err(DriverFault::UsedIndex {
                found,
                expected: self.last_used.get(),
                published,
            });
        }
        self.used_seen = Kept::new(found);
        Ok(used)
    }

    #[inline(always)]
    fn peek_used<T>(
        &mut self,
        slots: &[DriverSlot<T>],
    ) -> Result<Option<(u16, UsedElement)>, DriverFault> {
        let found = Found {
            position: self.last_used.get(),
            count: self.used_seen.get().wrapping_sub(self.last_used.get()),
        };
        if found.count == 0 {
            return Ok(None);
        }
        let element = self.order.resolve(slots, &self.used.ring, found)?;
        Ok(Some((found.position, element)))
    }

    #[inline(always)]
    fn release<T>(&mut self, slots: &mut [DriverSlot<T>], id: u16) {
        self.last_used = Kept::new(self.last_used.get().wrapping_add(1));
        self.order.release(slots, id, self.size);
        if self.last_used.get() == self.used_seen.get() {
            self.wish
                .tell_position(&self.available.suppression, self.last_used.get());
        }
    }

    fn halt(&mut self) {
        self.used_seen = Kept::new(self.last_used.get());
    }

    fn disable_notifications(&mut self) {
        self.wish.disable(&self.available.suppression);
    }

    fn enable_notifications(&mut self, count: u16) -> Recheck {
        let own = &self.available.suppression;
        let event = self.last_used.get().wrapping_add(count - 1);
        self.wish.enable(own, event);
        // Between the wish and the look at the index: pairs with the fence of the device's `publish`.
        self.available.idx.fence(SeqCst);
        let used = self
            .used
            .idx
            .load(Relaxed)
            .wrapping_sub(self.last_used.get());
        let threshold = if self.wish.is_by_position() { count } else { 1 };
        if used < threshold {
            Recheck::Empty
        } else {
            Recheck::Ready
        }
    }

    fn positions(&self) -> Positions {
        Positions {
            available: self.published.get(),
            used: self.last_used.get(),
            in_flight: self.next_available.get().wrapping_sub(self.last_used.get()),
        }
    }

    fn has_unpublished(&self) -> bool {
        !self.untold.is_empty() || self.next_available.get() != self.published.get()
    }

    fn has_untaken(&self) -> bool {
        self.order.known() > 0
    }

    fn head(&self) -> u16 {
        if O::KIND.in_order {
            self.order.head()
        } else {
            0
        }
    }

    fn list_descriptors<T>(
        &self,
        slots: &[DriverSlot<T>],
        id: u16,
        to: &mut DriverStateWriter<'_>,
    ) -> Result<(), StateError> {
        self.order.list(slots, id, to)
    }

    fn resume<T>(
        &mut self,
        slots: &mut [DriverSlot<T>],
        state: &DriverState<'_>,
    ) -> Result<(), StateError> {
        let positions = state.positions();
        super::check_positions(positions)?;
        super::check_index(
            "available",
            positions.available,
            self.available.idx.load(Acquire),
        )?;
        for slot in slots.iter_mut() {
            slot.available = UNKNOWN;
        }
        self.order.resume(slots, state)?;
        self.next_available = Kept::new(positions.available);
        self.published = Kept::new(positions.available);
        self.untold = Untold::default();
        self.used_seen = Kept::new(positions.used);
        self.last_used = Kept::new(positions.used);
        self.wish.start(&self.available.suppression, positions.used);
        Ok(())
    }
}
