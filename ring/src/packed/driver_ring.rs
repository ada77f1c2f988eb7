//! The driver side of the packed ring.

use core::hint;
use core::sync::atomic::Ordering::{Relaxed, Release, SeqCst};

use shmbus_shm::{Field, Notify, Window};

use super::areas::{Areas, Descriptors, State};
use super::cursor::Cursor;
use super::driver_order::{AnyOrder, DriverOrder, InOrder};
use super::saved;
use super::unpublished::Unpublished;
use super::{IN_ORDER, PLAIN};
use crate::descriptor::{Buffer, DESCRIPTOR_BYTES, INDIRECT, Row, UsedElement, WRITE, describe};
use crate::driver::{DriverSlot, sealed};
use crate::event::Recheck;
use crate::fault::{DriverFault, SetupError};
use crate::features::{RingFeatures, RingType};
use crate::kept::Kept;
use crate::kind::RingKind;
use crate::look_ahead::LookAhead;
use crate::positions::Positions;
use crate::state::{DriverState, DriverStateWriter, StateError};
use crate::suppression::Suppression;

/// The driver side of a packed ring whose chains come back in any order.
pub type DriverRing<W> = DriverRingIn<W, AnyOrder>;

/// The driver side of a packed ring whose chains come back in the order in which they were made available
/// (`VIRTIO_F_IN_ORDER`): one used descriptor is read for each batch. Its id, checked against what was lent, gives the
/// batch's end, and its length is the last chain's; the chains before that count as used completely.
pub type InOrderDriverRing<W> = DriverRingIn<W, InOrder>;

/// The driver side of a packed ring; a [`DriverQueue`](crate::DriverQueue) works over it.
///
/// Of what the device writes it reads only the next used descriptor and the device's event suppression structure; how
/// many descriptors a chain takes up, which ids are free and all positions are private.
#[derive(Debug)]
pub struct DriverRingIn<W, O> {
    descriptors: Descriptors<W>,
    /// What this side asks for.
    own_wish: Field<u32, W>,
    /// What the device asks for.
    device_wish: Field<u32, W>,
    size: u16,
    indirect: bool,
    /// The driver asks by position.
    used_event: bool,
    /// The device asks by position.
    avail_event: bool,
    order: O,
    /// How many descriptors are free.
    free: Kept,
    /// How many chains were placed, and how many were taken back: both wrap.
    placed: Kept,
    taken: Kept,
    available: Unpublished,
    /// Where the next used descriptor is found.
    used: Cursor,
    /// Where the batch ends that the last poll began, as `taken` counts.
    batch_end: Kept,
    look_ahead: LookAhead,
    /// What `own_wish` says, so that it is stored only when it changes.
    wish: Suppression,
}

impl<W: Window> DriverRing<W> {
    /// The driver side over `areas`, with what was negotiated.
    ///
    /// # Errors
    ///
    /// [`SetupError`]: the features cannot be used together, belong to another type of ring (`IN_ORDER`), or need
    /// memory with stronger fences.
    pub fn new(areas: Areas<W>, features: impl Into<RingFeatures>) -> Result<Self, SetupError> {
        Self::of_type(PLAIN, areas, features.into())
    }
}

impl<W: Window> InOrderDriverRing<W> {
    /// The driver side over `areas`, with what was negotiated.
    ///
    /// # Errors
    ///
    /// [`SetupError`]: the features cannot be used together, `IN_ORDER` is not among them, or they need memory with
    /// stronger fences.
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
        let features = features.check(ring, areas.descriptors.fence_scope())?;
        Ok(Self {
            descriptors: areas.descriptors,
            own_wish: areas.driver,
            device_wish: areas.device,
            size: areas.size,
            indirect: features.indirect(),
            used_event: features.used_event(),
            avail_event: features.avail_event(),
            order: O::default(),
            free: Kept::default(),
            placed: Kept::default(),
            taken: Kept::default(),
            available: Unpublished::starting_at(Cursor::ORIGIN),
            used: Cursor::ORIGIN,
            batch_end: Kept::default(),
            look_ahead: LookAhead::new(areas.size),
            wish: Suppression::ENABLE,
        })
    }

    /// Writes a chain of one descriptor; returns its id.
    #[inline(always)]
    fn place_one<T>(&mut self, slots: &mut [DriverSlot<T>], buffer: Buffer, flags: u16) -> u16 {
        let at = self.available.next();
        let id = self.order.id(at);
        self.descriptors.store_address(at, buffer.address);
        let state = State::new(buffer.len, id, flags, at.available_mark());
        self.available.write(&self.descriptors, state, 1, self.size);
        self.lend(slots, id, 1);
        id
    }

    /// Writes a chain into the next descriptors; returns its id.
    #[inline(never)]
    fn place_chain<T>(
        &mut self,
        slots: &mut [DriverSlot<T>],
        chain: impl Iterator<Item = (Buffer, u16)>,
    ) -> u16 {
        let id = self.order.id(self.available.next());
        let mut count = 0;
        for (buffer, flags) in chain {
            let at = self.available.next();
            self.descriptors.store_address(at, buffer.address);
            // The id counts in the last descriptor of a chain, and does no harm in the others (section 2.8.6).
            let state = State::new(buffer.len, id, flags, at.available_mark());
            self.available.write(&self.descriptors, state, 1, self.size);
            count += 1;
        }
        self.lend(slots, id, count);
        id
    }

    #[inline(always)]
    fn lend<T>(&mut self, slots: &mut [DriverSlot<T>], id: u16, descriptors: u16) {
        self.free.sub(descriptors);
        self.placed.step();
        let slot = &mut slots[usize::from(id)];
        slot.descriptors = descriptors;
        self.order.lend(slot);
    }

    /// How many chains were placed and not taken back.
    #[inline(always)]
    fn in_flight(&self) -> u16 {
        self.placed.since(self.taken)
    }

    fn ask(&mut self, wish: Suppression) {
        if self.wish != wish {
            self.wish = wish;
            self.own_wish.store(wish.to_word(), Relaxed);
        }
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
        self.free.get()
    }

    #[inline(always)]
    fn has_indirect(&self) -> bool {
        self.indirect
    }

    fn start<T>(&mut self, slots: &mut [DriverSlot<T>], position: u16) {
        let start = Cursor::from_bits(position, self.size).unwrap_or(Cursor::ORIGIN);
        self.order.start(slots, self.size);
        self.free = Kept::new(self.size);
        self.placed = Kept::new(0);
        self.taken = Kept::new(0);
        self.available = Unpublished::starting_at(start);
        self.used = start;
        self.batch_end = self.taken;
        self.look_ahead = LookAhead::new(self.size);
        self.wish = Suppression::ENABLE;
        self.own_wish.store(self.wish.to_word(), Relaxed);
        // Every descriptor as if it had been used one lap ago; zeros, for a ring that starts at its origin.
        let mut at = start;
        for _ in 0..self.size {
            let past = at.forward(self.size, self.size);
            let state = State::new(0, 0, 0, past.used_mark());
            self.descriptors.store_address(at, 0);
            self.descriptors.store_state(at, state, Release);
            at = at.forward(1, self.size);
        }
    }

    fn rebind(&mut self, areas: Areas<W>) -> Result<(), SetupError> {
        super::check_rebinding(&areas, self.size, self.descriptors.fence_scope())?;
        self.descriptors = areas.descriptors;
        self.own_wish = areas.driver;
        self.device_wish = areas.device;
        Ok(())
    }

    #[inline(always)]
    fn place<T>(
        &mut self,
        slots: &mut [DriverSlot<T>],
        readable: &[Buffer],
        writable: &[Buffer],
    ) -> u16 {
        match (readable, writable) {
            ([buffer], []) => self.place_one(slots, *buffer, 0),
            ([], [buffer]) => self.place_one(slots, *buffer, WRITE),
            _ => self.place_chain(slots, describe(readable, writable)),
        }
    }

    fn place_indirect<T>(&mut self, slots: &mut [DriverSlot<T>], table: Buffer) -> u16 {
        self.place_one(slots, table, INDIRECT)
    }

    fn indirect_row(&self, _: u16, buffer: Buffer, flags: u16) -> [u8; DESCRIPTOR_BYTES] {
        Row { buffer, flags }.to_bytes()
    }

    #[inline(always)]
    fn show(&mut self) {
        self.available.show(&self.descriptors);
        self.order.publish(self.placed);
    }

    #[inline(always)]
    fn notify(&mut self) -> Notify {
        let untold = self.available.take_untold();
        if untold.is_empty() {
            return Notify::No;
        }
        // Between the descriptor and the look at what the device asked for (section 2.8.21.3.1): pairs with the fence
        // of its `enable_notifications`. Either we see its wish, or it sees our descriptor.
        self.descriptors.fence(SeqCst);
        let wish = Suppression::from_word(self.device_wish.load(Relaxed));
        if wish.is_wanted(self.avail_event, |event| {
            self.available.from().is_told_of(event, untold, self.size)
        }) {
            Notify::Yes
        } else {
            Notify::No
        }
    }

    #[inline(always)]
    fn poll(&mut self) -> Result<u16, DriverFault> {
        // What is added from now on waits for the next batch. Without a first chain there is none: whoever was told so
        // may go to sleep, and must not have missed one that came meanwhile.
        let mut found = self.order.known();
        if found == 0 && self.in_flight() > 0 && self.descriptors.load_used(self.used).is_some() {
            found = 1;
        }
        self.batch_end = if found > 0 { self.placed } else { self.taken };
        Ok(found)
    }

    #[inline]
    fn poll_spinning(&mut self) -> Result<u16, DriverFault> {
        let mut found = self.order.known();
        if found == 0 && self.in_flight() > 0 {
            let (descriptors, used, size) = (&self.descriptors, self.used, self.size);
            let in_flight = self.in_flight();
            found = self.look_ahead.look(self.taken.get(), in_flight, |entry| {
                descriptors.load_used(used.forward(entry, size)).is_some()
            });
        }
        self.batch_end = match found {
            0 => self.taken,
            1 => self.placed,
            _ => self.taken.after(found),
        };
        Ok(found.min(1))
    }

    #[inline(always)]
    fn peek_used<T>(
        &mut self,
        slots: &[DriverSlot<T>],
    ) -> Result<Option<(u16, UsedElement)>, DriverFault> {
        if self.taken == self.batch_end {
            return Ok(None);
        }
        let element = self
            .order
            .resolve(slots, &self.descriptors, self.used, self.taken)?;
        Ok(element.map(|element| (self.used.to_bits(), element)))
    }

    #[inline(always)]
    fn release<T>(&mut self, slots: &mut [DriverSlot<T>], id: u16) {
        let slot = &mut slots[usize::from(id)];
        let descriptors = slot.descriptors;
        self.order.release(slot, id);
        self.free.add(descriptors);
        self.taken.step();
        // The device wrote one descriptor for the chain and left the others out (section 2.8.6).
        self.used = if descriptors == 1 {
            self.used.forward(1, self.size)
        } else {
            hint::cold_path();
            self.used.forward(descriptors, self.size)
        };
    }

    fn halt(&mut self) {
        self.batch_end = self.taken;
    }

    fn disable_notifications(&mut self) {
        self.ask(Suppression::DISABLE);
    }

    fn enable_notifications(&mut self, count: u16) -> Recheck {
        // Each chain takes up a descriptor at least: so this is no later than the `count`th.
        self.ask(if self.used_event {
            Suppression::at(self.used.forward(count - 1, self.size).to_bits())
        } else {
            Suppression::ENABLE
        });
        // Between the wish and the look at the descriptor: pairs with the fence of the device's `publish`.
        self.descriptors.fence(SeqCst);
        let state = self.descriptors.load_state(self.used, Relaxed);
        if self.order.known() > 0 || self.in_flight() > 0 && state.is_used(self.used) {
            Recheck::Ready
        } else {
            Recheck::Empty
        }
    }

    fn positions(&self) -> Positions {
        Positions {
            available: self.available.from().to_bits(),
            used: self.used.to_bits(),
            in_flight: self.in_flight(),
        }
    }

    fn has_unpublished(&self) -> bool {
        !self.available.is_empty()
    }

    fn has_untaken(&self) -> bool {
        self.order.known() > 0
    }

    /// Where the next chain lies, its position says.
    fn head(&self) -> u16 {
        0
    }

    /// Only how many descriptors a chain takes up matters.
    fn list_descriptors<T>(
        &self,
        _: &[DriverSlot<T>],
        _: u16,
        _: &mut DriverStateWriter<'_>,
    ) -> Result<(), StateError> {
        Ok(())
    }

    fn resume<T>(
        &mut self,
        slots: &mut [DriverSlot<T>],
        state: &DriverState<'_>,
    ) -> Result<(), StateError> {
        let descriptors = state.chains().map(|chain| chain.descriptors);
        let taken: u16 = descriptors.clone().sum();
        let (available, used) = saved::cursors(state.positions(), descriptors, self.size)?;
        self.order.resume(slots, state, used)?;
        self.free = Kept::new(self.size - taken);
        self.placed = Kept::new(state.positions().in_flight);
        self.taken = Kept::new(0);
        self.available = Unpublished::starting_at(available);
        self.used = used;
        self.batch_end = self.taken;
        self.wish = Suppression::ENABLE;
        self.own_wish.store(self.wish.to_word(), Relaxed);
        Ok(())
    }
}
