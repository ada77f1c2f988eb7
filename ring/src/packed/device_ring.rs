//! The device side of the packed ring.

use core::sync::atomic::Ordering::{Relaxed, SeqCst};

use shmbus_shm::{AddressSpace, Field, Notify, Window};

use super::areas::{Areas, Descriptors, State};
use super::cursor::Cursor;
use super::device_order::{AnyOrder, DeviceOrder, InOrder, UsedRing};
use super::saved::{self, InFlight};
use super::unpublished::Unpublished;
use super::{IN_ORDER, PLAIN};
use crate::descriptor::{Buffer, DESCRIPTOR_BYTES, INDIRECT, NEXT};
use crate::device::{
    ChainBuilder, ChainShape, Completed, DeviceSlot, FoundChain, check_table_place, sealed,
    walk_rows,
};
use crate::event::Recheck;
use crate::fault::{ChainError, DeviceFault, SetupError};
use crate::features::{RingFeatures, RingType};
use crate::kept::Kept;
use crate::kind::RingKind;
use crate::look_ahead::LookAhead;
use crate::positions::Positions;
use crate::state::{DeviceState, DeviceStateWriter, SavedChain, StateError};
use crate::suppression::Suppression;

/// The device side of a packed ring whose chains are completed in any order.
pub type DeviceRing<W> = DeviceRingIn<W, AnyOrder>;

/// The device side of a packed ring that shows completed chains in the order in which they were made available
/// (`VIRTIO_F_IN_ORDER`), with one used descriptor for a batch. The device may complete them in any order: they wait
/// for their turn.
pub type InOrderDeviceRing<W> = DeviceRingIn<W, InOrder>;

/// The device side of a packed ring; a [`DeviceQueue`](crate::DeviceQueue) works over it.
///
/// A chain's buffer id must be below the queue's size: the specification lets drivers choose ids, and what it shows of
/// a driver chooses them so.
#[derive(Debug)]
pub struct DeviceRingIn<W, O> {
    descriptors: Descriptors<W>,
    /// What this side asks for.
    own_wish: Field<u32, W>,
    /// What the driver asks for.
    driver_wish: Field<u32, W>,
    size: u16,
    indirect: bool,
    /// The driver asks by position.
    used_event: bool,
    /// The device asks by position.
    avail_event: bool,
    order: O,
    /// Where the next chain is found.
    next: Cursor,
    /// How many more chains the batch may have that the last poll began.
    credit: Kept,
    look_ahead: LookAhead,
    /// How many descriptors were taken since the start.
    taken: u64,
    used: Unpublished,
    /// What `own_wish` says, so that it is stored only when it changes.
    wish: Suppression,
}

/// A chain's id, how many descriptors it takes up, and its buffers.
pub(super) type Walked = (u16, u16, ChainShape);

impl<W: Window> DeviceRing<W> {
    /// The device side over `areas`, with what was negotiated.
    ///
    /// # Errors
    ///
    /// [`SetupError`]: the features cannot be used together, belong to another type of ring (`IN_ORDER`), or need
    /// memory with stronger fences.
    pub fn new(areas: Areas<W>, features: impl Into<RingFeatures>) -> Result<Self, SetupError> {
        Self::of_type(PLAIN, areas, features.into())
    }
}

impl<W: Window> InOrderDeviceRing<W> {
    /// The device side over `areas`, with what was negotiated.
    ///
    /// # Errors
    ///
    /// [`SetupError`]: the features cannot be used together, `IN_ORDER` is not among them, or they need memory with
    /// stronger fences.
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
        let features = features.check(ring, areas.descriptors.fence_scope())?;
        Ok(Self {
            descriptors: areas.descriptors,
            own_wish: areas.device,
            driver_wish: areas.driver,
            size: areas.size,
            indirect: features.indirect(),
            used_event: features.used_event(),
            avail_event: features.avail_event(),
            order: O::default(),
            next: Cursor::ORIGIN,
            credit: Kept::default(),
            look_ahead: LookAhead::new(areas.size),
            taken: 0,
            used: Unpublished::starting_at(Cursor::ORIGIN),
            wish: Suppression::ENABLE,
        })
    }

    /// The first state of the next chain, if it is there.
    #[inline(always)]
    fn look(&self) -> Option<State> {
        self.descriptors.load_available(self.next)
    }

    /// Reads a chain's descriptors, each once, into `segments`.
    #[inline(always)]
    fn walk(
        &self,
        space: &impl AddressSpace,
        first: State,
        segments: &mut [Buffer],
    ) -> Result<Walked, ChainError> {
        match segments.first_mut() {
            // Most chains: nothing is counted, and nothing can be out of order.
            Some(segment) if !first.has(NEXT | INDIRECT) => {
                let buffer = Buffer::new(self.descriptors.load_address(self.next), first.len());
                *segment = buffer;
                Ok((first.id(), 1, ChainShape::of_one(buffer, first.flags())))
            }
            _ => self.walk_on(space, first, segments),
        }
    }

    /// As [`DeviceRing::walk`], for chains of more than one descriptor.
    #[inline(never)]
    fn walk_on(
        &self,
        space: &impl AddressSpace,
        first: State,
        segments: &mut [Buffer],
    ) -> Result<Walked, ChainError> {
        let mut chain = ChainBuilder::new(segments, self.size);
        let mut at = self.next;
        let mut state = first;
        let mut count = 1;
        // The chain is bounded by what `push` takes, at most the ring's size.
        loop {
            let buffer = Buffer::new(self.descriptors.load_address(at), state.len());
            if state.has(INDIRECT) {
                check_table_place(self.indirect, at.offset(), state.flags(), count)?;
                walk_rows(space, buffer, &mut chain)?;
                break;
            }
            chain.push(at.offset(), buffer, state.flags())?;
            if !state.has(NEXT) {
                break;
            }
            at = at.forward(1, self.size);
            // Relaxed: it comes with the first.
            state = self.descriptors.load_state(at, Relaxed);
            if !state.is_available(at) {
                let descriptor = at.offset();
                return Err(ChainError::NotAvailable { descriptor });
            }
            count += 1;
        }
        // The id is in the last descriptor (section 2.8.6).
        Ok((state.id(), count, chain.finish()?))
    }

    /// How many descriptors were taken and are not yet shown as used: at most as many as the ring has.
    #[inline(always)]
    fn outstanding(&self) -> u16 {
        (self.taken - self.used.shown()) as u16
    }

    fn ask(&mut self, wish: Suppression) {
        if self.wish != wish {
            self.wish = wish;
            self.own_wish.store(wish.to_word(), Relaxed);
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
        let start = Cursor::from_bits(position, self.size).unwrap_or(Cursor::ORIGIN);
        self.next = start;
        self.credit = Kept::new(0);
        self.taken = 0;
        self.used = Unpublished::starting_at(start);
        self.order.start(start);
        self.look_ahead = LookAhead::new(self.size);
        self.wish = Suppression::ENABLE;
        self.own_wish.store(self.wish.to_word(), Relaxed);
    }

    fn rebind(&mut self, areas: Areas<W>) -> Result<(), SetupError> {
        super::check_rebinding(&areas, self.size, self.descriptors.fence_scope())?;
        self.descriptors = areas.descriptors;
        self.own_wish = areas.device;
        self.driver_wish = areas.driver;
        Ok(())
    }

    #[inline]
    fn poll(&mut self) -> Result<u16, DeviceFault> {
        // What is made available while a batch goes on, beyond a ring's worth, waits for the next one. Without a first
        // chain there is no batch: whoever was told so may go to sleep, and must not have missed one that came meanwhile.
        let found = self.look().is_some();
        self.credit = Kept::new(if found { self.size } else { 0 });
        Ok(u16::from(found))
    }

    #[inline]
    fn poll_spinning(&mut self) -> Result<u16, DeviceFault> {
        let (descriptors, next, size) = (&self.descriptors, self.next, self.size);
        let found = self.look_ahead.look(self.taken as u16, size, |entry| {
            descriptors
                .load_available(next.forward(entry, size))
                .is_some()
        });
        self.credit = Kept::new(if found == 1 { size } else { found });
        Ok(found.min(1))
    }

    #[inline(always)]
    fn peek(
        &self,
        space: &impl AddressSpace,
        segments: &mut [Buffer],
    ) -> Result<Option<FoundChain>, DeviceFault> {
        if self.credit.get() == 0 {
            return Ok(None);
        }
        let Some(first) = self.look() else {
            return Ok(None);
        };
        let position = self.next.to_bits();
        let (head, entries, shape) = match self.walk(space, first, segments) {
            Ok(walked) => walked,
            Err(reason) => {
                let head = first.id();
                return Err(DeviceFault::Chain {
                    position,
                    head,
                    reason,
                });
            }
        };
        // An honest driver reuses a descriptor only once it has seen it, or what stands for it, used.
        let outstanding = self.outstanding();
        if u32::from(outstanding) + u32::from(entries) > u32::from(self.size) {
            return Err(DeviceFault::Overrun {
                position,
                entries,
                outstanding,
                size: self.size,
            });
        }
        if head >= self.size {
            return Err(DeviceFault::Head {
                position,
                head,
                size: self.size,
            });
        }
        Ok(Some(FoundChain {
            head,
            position,
            entries,
            shape,
        }))
    }

    #[inline(always)]
    fn advance(&mut self, found: &FoundChain) {
        self.next = self.next.forward(found.entries, self.size);
        self.taken += u64::from(found.entries);
        self.credit.sub(1);
    }

    #[inline(always)]
    fn place_used(&mut self, slots: &mut [DeviceSlot], chain: Completed) {
        let used = UsedRing {
            descriptors: &self.descriptors,
            unpublished: &mut self.used,
            size: self.size,
        };
        self.order.place(slots, used, chain);
    }

    #[inline(always)]
    fn settle(&mut self, slots: &mut [DeviceSlot], stepwise: bool) -> [u16; 2] {
        let taken = self.next;
        let used = UsedRing {
            descriptors: &self.descriptors,
            unpublished: &mut self.used,
            size: self.size,
        };
        self.order.settle(slots, used, taken, stepwise);
        [self.used.from(), self.used.next()].map(Cursor::to_bits)
    }

    #[inline(always)]
    fn show(&mut self) {
        self.used.show(&self.descriptors);
    }

    #[inline(always)]
    fn notify(&mut self) -> Notify {
        let untold = self.used.take_untold();
        if untold.is_empty() {
            return Notify::No;
        }
        // Between the descriptor and the look at what the driver asked for: pairs with the fence of its
        // `enable_notifications`. Either we see its wish, or it sees our descriptor.
        self.descriptors.fence(SeqCst);
        let wish = Suppression::from_word(self.driver_wish.load(Relaxed));
        if wish.is_wanted(self.used_event, |event| {
            self.used.from().is_told_of(event, untold, self.size)
        }) {
            Notify::Yes
        } else {
            Notify::No
        }
    }

    fn halt(&mut self) {
        self.credit = Kept::new(0);
    }

    fn disable_notifications(&mut self) {
        self.ask(Suppression::DISABLE);
    }

    fn enable_notifications(&mut self) -> Recheck {
        self.ask(if self.avail_event {
            Suppression::at(self.next.to_bits())
        } else {
            Suppression::ENABLE
        });
        // Between the wish and the look at the descriptor: pairs with the fence of the driver's `publish`.
        self.descriptors.fence(SeqCst);
        let state = self.descriptors.load_state(self.next, Relaxed);
        if state.is_available(self.next) {
            Recheck::Ready
        } else {
            Recheck::Empty
        }
    }

    fn positions(&self) -> Positions {
        Positions {
            available: self.next.to_bits(),
            used: self.used.from().to_bits(),
            // The queue knows how many chains are in flight.
            in_flight: 0,
        }
    }

    fn age(&self, position: u16) -> u32 {
        Cursor::from_bits(position, self.size).map_or(0, |at| at.distance_to(self.next, self.size))
    }

    fn has_unpublished(&self) -> bool {
        !self.used.is_empty()
    }

    fn load_descriptor(&self, position: u16, index: u16) -> [u8; DESCRIPTOR_BYTES] {
        let at = Cursor::from_bits(position, self.size).unwrap_or(Cursor::ORIGIN);
        self.descriptors.load_row(at.forward(index, self.size))
    }

    fn copy_descriptors(
        &mut self,
        chain: SavedChain<'_>,
        to: &mut DeviceStateWriter<'_>,
    ) -> Result<(), StateError> {
        let in_flight = InFlight {
            used: self.used.from(),
            taken: self.outstanding(),
            size: self.size,
        };
        saved::copy(&self.descriptors, in_flight, chain, to)
    }

    fn resume(&mut self, _: &mut [DeviceSlot], state: &DeviceState<'_>) -> Result<(), StateError> {
        let entries = state.chains().map(|chain| chain.entries);
        let taken: u16 = entries.clone().sum();
        let (available, used) = saved::cursors(state.positions(), entries, self.size)?;
        // What the driver has been shown decides: a completion is never published twice.
        if self.descriptors.load_used(used).is_some() {
            return Err(StateError::Field {
                field: "used",
                found: u64::from(used.to_bits()),
                expected: "a position at which no used descriptor lies",
            });
        }
        self.next = available;
        self.credit = Kept::new(0);
        self.taken = u64::from(taken);
        self.used = Unpublished::starting_at(used);
        self.order.start(used);
        self.wish = Suppression::ENABLE;
        self.own_wish.store(self.wish.to_word(), Relaxed);
        Ok(())
    }

    fn walk_again(
        &self,
        space: &impl AddressSpace,
        chain: SavedChain<'_>,
        segments: &mut [Buffer],
    ) -> Result<FoundChain, DeviceFault> {
        let (head, position) = (chain.id, chain.position);
        match saved::walk(space, chain, self.indirect, segments, self.size) {
            Ok((head, entries, shape)) => Ok(FoundChain {
                head,
                position,
                entries,
                shape,
            }),
            Err(reason) => Err(DeviceFault::Chain {
                position,
                head,
                reason,
            }),
        }
    }
}
