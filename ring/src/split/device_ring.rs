//! The device side of the split ring.

use core::sync::atomic::Ordering::{Acquire, Relaxed, Release, SeqCst};

use shmbus_shm::{AddressSpace, Notify, Window};

use super::areas::{Areas, Available, Descriptors, Used};
use super::device_order::{AnyOrder, DeviceOrder, InOrder};
use super::indirect::walk_table;
use super::suppression::Wish;
use super::{IN_ORDER, PLAIN};
use crate::descriptor::{Buffer, DESCRIPTOR_BYTES, Descriptor, INDIRECT, NEXT};
use crate::device::{ChainBuilder, ChainShape, Completed, DeviceSlot, FoundChain, sealed};
use crate::event::{Recheck, Untold};
use crate::fault::{ChainError, DeviceFault, SetupError};
use crate::features::{RingFeatures, RingType};
use crate::kept::Kept;
use crate::kind::RingKind;
use crate::positions::Positions;
use crate::state::{DeviceState, DeviceStateWriter, SavedChain, StateError};

/// The device side of a split ring whose chains are completed in any order.
pub type DeviceRing<W> = DeviceRingIn<W, AnyOrder>;

/// The device side of a split ring that shows completed chains in the order in which they were made available
/// (`VIRTIO_F_IN_ORDER`), with one used element for a batch. The device may complete them in any order: they wait for
/// their turn.
pub type InOrderDeviceRing<W> = DeviceRingIn<W, InOrder>;

/// The device side of a split ring; a [`DeviceQueue`](crate::DeviceQueue) works over it.
///
/// It only ever *writes* the device area. A used element that would not change is not stored, and its line stays
/// shared between the two sides.
#[derive(Debug)]
pub struct DeviceRingIn<W, O> {
    descriptors: Descriptors<W>,
    available: Available<W>,
    used: Used<W>,
    size: u16,
    indirect: bool,
    /// The driver asks by position.
    used_event: bool,
    notify_on_empty: bool,
    order: O,
    /// The available index as it was last seen.
    available_seen: Kept,
    /// The available entry that is taken next.
    last_available: Kept,
    /// The used index as the driver sees it.
    published: Kept,
    untold: Untold,
    /// What this side asks for.
    wish: Wish,
}

impl<W: Window> DeviceRing<W> {
    /// The device side over `areas`, with what was negotiated.
    ///
    /// # Errors
    ///
    /// [`SetupError`]: the features cannot be used together, belong to another type of ring (`RING_PACKED`,
    /// `IN_ORDER`), or need memory with stronger fences.
    pub fn new(areas: Areas<W>, features: impl Into<RingFeatures>) -> Result<Self, SetupError> {
        Self::of_type(PLAIN, areas, features.into())
    }
}

impl<W: Window> InOrderDeviceRing<W> {
    /// The device side over `areas`, with what was negotiated.
    ///
    /// # Errors
    ///
    /// [`SetupError`]: the features cannot be used together, `IN_ORDER` is not among them, they belong to another type
    /// of ring (`RING_PACKED`), or need memory with stronger fences.
    pub fn new(areas: Areas<W>, features: impl Into<RingFeatures>) -> Result<Self, SetupError> {
        Self::of_type(IN_ORDER, areas, features.into())
    }
}

impl<W: Window, O: DeviceOrder> DeviceRingIn<W, O> {
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
            used_event: features.used_event(),
            notify_on_empty: features.notify_on_empty(),
            order: O::default(),
            available_seen: Kept::default(),
            last_available: Kept::default(),
            published: Kept::default(),
            untold: Untold::default(),
            wish: Wish::new(features.avail_event(), features.publish_indices()),
        })
    }

    /// Whether a legacy driver is owed a notification although it asked for none (`VIRTIO_F_NOTIFY_ON_EMPTY`): all that
    /// it made available is used.
    #[inline(always)]
    fn is_drained(&self) -> bool {
        self.notify_on_empty
            && self.published.get() == self.last_available.get()
            && self.available.idx.load(Relaxed) == self.last_available.get()
    }

    /// The chain with this head, which was found at `position`.
    #[inline(always)]
    fn find(
        &self,
        space: &impl AddressSpace,
        head: u16,
        position: u16,
        segments: &mut [Buffer],
    ) -> Result<FoundChain, DeviceFault> {
        match self.walk(space, head, segments) {
            Ok(shape) => Ok(FoundChain {
                head,
                position,
                entries: 1,
                shape,
            }),
            Err(reason) => Err(DeviceFault::Chain {
                position,
                head,
                reason,
            }),
        }
    }

    /// Reads a chain's descriptors, each once, into `segments`.
    #[inline(always)]
    fn walk(
        &self,
        space: &impl AddressSpace,
        head: u16,
        segments: &mut [Buffer],
    ) -> Result<ChainShape, ChainError> {
        let first = self.descriptors.load(head);
        match segments.first_mut() {
            // Most chains: nothing is counted, and nothing can be out of order.
            Some(segment) if !first.has(NEXT | INDIRECT) => {
                *segment = first.buffer;
                Ok(ChainShape::of_one(first.buffer, first.flags))
            }
            _ => self.walk_on(space, head, first, segments),
        }
    }

    /// As [`DeviceRing::walk`], for chains of more than one descriptor.
    #[inline(never)]
    fn walk_on(
        &self,
        space: &impl AddressSpace,
        head: u16,
        first: Descriptor,
        segments: &mut [Buffer],
    ) -> Result<ChainShape, ChainError> {
        let mut chain = ChainBuilder::new(segments, self.size);
        let mut index = head;
        let mut descriptor = first;
        // The chain is bounded by what `push` takes, so a loop of descriptors ends there.
        loop {
            if descriptor.has(INDIRECT) {
                if !self.indirect {
                    return Err(ChainError::IndirectNotNegotiated);
                }
                if descriptor.has(NEXT) {
                    return Err(ChainError::IndirectWithNext { descriptor: index });
                }
                walk_table(space, descriptor.buffer, &mut chain)?;
                return chain.finish();
            }
            chain.push(index, descriptor.buffer, descriptor.flags)?;
            if !descriptor.has(NEXT) {
                return chain.finish();
            }
            index = descriptor.next;
            if index >= self.size {
                return Err(ChainError::Next {
                    next: index,
                    descriptors: self.size,
                });
            }
            descriptor = self.descriptors.load(index);
        }
    }
}

impl<W: Window, O: DeviceOrder> sealed::DeviceFormat for DeviceRingIn<W, O> {
    type Areas = Areas<W>;

    #[inline(always)]
    fn kind(&self) -> RingKind {
        O::KIND
    }

    #[inline(always)]
    fn size(&self) -> u16 {
        self.size
    }

    fn start(&mut self, _: &mut [DeviceSlot], position: u16) {
        self.available_seen = Kept::new(position);
        self.last_available = Kept::new(position);
        self.published = Kept::new(position);
        self.untold = Untold::default();
        self.order.start(position);
        self.wish.start(&self.used.suppression, position);
        self.used.idx.store(position, Release);
    }

    fn rebind(&mut self, areas: Areas<W>) -> Result<(), SetupError> {
        super::check_rebinding(&areas, self.size, self.used.idx.fence_scope())?;
        self.descriptors = areas.descriptors;
        self.available = areas.available;
        self.used = areas.used;
        Ok(())
    }

    #[inline]
    fn poll(&mut self) -> Result<u16, DeviceFault> {
        // Acquire: entries, descriptors and the buffers' bytes come with the index.
        let found = self.available.idx.load(Acquire);
        let available = found.wrapping_sub(self.last_available.get());
        let seen = self
            .available_seen
            .get()
            .wrapping_sub(self.last_available.get());
        // An honest driver has no more chains out than the queue has entries, from the last one that it saw used on.
        let outstanding = self.last_available.get().wrapping_sub(self.published.get());
        if u32::from(available) + u32::from(outstanding) > u32::from(self.size) || available < seen
        {
            return Err(DeviceFault::AvailableIndex {
                found,
                expected: self.last_available.get(),
                outstanding,
                size: self.size,
            });
        }
        self.available_seen = Kept::new(found);
        Ok(available)
    }

    #[inline(always)]
    fn peek(
        &self,
        space: &impl AddressSpace,
        segments: &mut [Buffer],
    ) -> Result<Option<FoundChain>, DeviceFault> {
        let position = self.last_available.get();
        if position == self.available_seen.get() {
            return Ok(None);
        }
        let head = self.available.ring.load(usize::from(position), Relaxed);
        if head >= self.size {
            return Err(DeviceFault::Head {
                position,
                head,
                size: self.size,
            });
        }
        self.find(space, head, position, segments).map(Some)
    }

    #[inline(always)]
    fn advance(&mut self, _: &FoundChain) {
        self.last_available = Kept::new(self.last_available.get().wrapping_add(1));
        if self.last_available.get() == self.available_seen.get() {
            self.wish
                .tell_position(&self.used.suppression, self.last_available.get());
        }
    }

    #[inline(always)]
    fn place_used(&mut self, slots: &mut [DeviceSlot], chain: Completed) {
        self.order.place(slots, &self.used.ring, chain, self.size);
    }

    #[inline(always)]
    fn settle(&mut self, slots: &mut [DeviceSlot], _: bool) -> [u16; 2] {
        let taken = self.last_available.get();
        let new = self.order.settle(slots, &self.used.ring, taken, self.size);
        [self.published.get(), new]
    }

    #[inline(always)]
    fn show(&mut self) {
        let new = self.order.next();
        let count = new.wrapping_sub(self.published.get());
        if count == 0 {
            return;
        }
        self.published = Kept::new(new);
        self.untold.add(count);
        // Release: whoever sees the index sees the used elements before it, and what was written into buffers.
        self.used.idx.store(new, Release);
    }

    #[inline(always)]
    fn notify(&mut self) -> Notify {
        let untold = core::mem::take(&mut self.untold);
        if untold.is_empty() {
            return Notify::No;
        }
        // Between the index and the look at what the driver asked for: pairs with the fence of its
        // `enable_notifications`. Either we see its wish, or it sees our index.
        self.used.idx.fence(SeqCst);
        let driver = &self.available.suppression;
        if driver.is_wanted(self.used_event, untold, self.published.get()) || self.is_drained() {
            Notify::Yes
        } else {
            Notify::No
        }
    }

    fn halt(&mut self) {
        self.available_seen = Kept::new(self.last_available.get());
    }

    fn disable_notifications(&mut self) {
        self.wish.disable(&self.used.suppression);
    }

    fn enable_notifications(&mut self) -> Recheck {
        self.wish
            .enable(&self.used.suppression, self.last_available.get());
        // Between the wish and the look at the index: pairs with the fence of the driver's `publish`.
        self.used.idx.fence(SeqCst);
        if self.available.idx.load(Relaxed) == self.last_available.get() {
            Recheck::Empty
        } else {
            Recheck::Ready
        }
    }

    fn positions(&self) -> Positions {
        Positions {
            available: self.last_available.get(),
            used: self.published.get(),
            // The queue knows how many chains are in flight.
            in_flight: 0,
        }
    }

    fn age(&self, position: u16) -> u32 {
        u32::from(self.last_available.get().wrapping_sub(position))
    }

    fn has_unpublished(&self) -> bool {
        !self.untold.is_empty() || !O::KIND.in_order && self.order.next() != self.published.get()
    }

    /// The descriptor table is the driver's alone, and has them until the chain comes back: nobody asks for copies.
    fn load_descriptor(&self, _: u16, _: u16) -> [u8; DESCRIPTOR_BYTES] {
        [0; DESCRIPTOR_BYTES]
    }

    fn copy_descriptors(
        &mut self,
        _: SavedChain<'_>,
        _: &mut DeviceStateWriter<'_>,
    ) -> Result<(), StateError> {
        Ok(())
    }

    fn resume(&mut self, _: &mut [DeviceSlot], state: &DeviceState<'_>) -> Result<(), StateError> {
        let positions = state.positions();
        super::check_positions(positions)?;
        // What the driver has been shown decides: a completion is never published twice.
        super::check_index("used", positions.used, self.used.idx.load(Acquire))?;
        self.available_seen = Kept::new(positions.available);
        self.last_available = Kept::new(positions.available);
        self.published = Kept::new(positions.used);
        self.untold = Untold::default();
        self.order.start(positions.used);
        self.wish.start(&self.used.suppression, positions.available);
        Ok(())
    }

    fn walk_again(
        &self,
        space: &impl AddressSpace,
        chain: SavedChain<'_>,
        segments: &mut [Buffer],
    ) -> Result<FoundChain, DeviceFault> {
        // A state's ids are below its size, and this ring is of that size.
        self.find(space, chain.id, chain.position, segments)
    }
}
