//! The driver side of the packed ring.

use core::sync::atomic::Ordering::{Acquire, Relaxed, Release, SeqCst};

use shmbus_shm::{Field, Notify, RingFormat, Window};

use super::PLAIN;
use super::areas::{Areas, Descriptors, State};
use super::cursor::Cursor;
use super::saved;
use super::suppression::Suppression;
use crate::descriptor::{Buffer, DESCRIPTOR_BYTES, INDIRECT, UsedElement, WRITE, describe};
use crate::driver::{DriverSlot, sealed};
use crate::event::Recheck;
use crate::fault::{DriverFault, SetupError};
use crate::features::RingFeatures;
use crate::positions::Positions;
use crate::state::{DriverState, DriverStateWriter, RingKind, StateError};

/// The driver side of a packed ring; a [`DriverQueue`](crate::DriverQueue) works over it.
///
/// Of what the device writes it reads only the next used descriptor and the device's event suppression structure; how
/// many descriptors a chain takes up, which ids are free and all positions are private.
#[derive(Debug)]
pub struct DriverRing<W> {
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
    /// How many descriptors are free.
    free: u16,
    /// The id that the next chain gets; the others follow in the slots.
    free_id: u16,
    /// How many chains were placed and not taken back.
    in_flight: u16,
    /// Where the next descriptor goes.
    next: Cursor,
    /// The first descriptor that is not published.
    unpublished: Cursor,
    /// How many descriptors are not published, from there on.
    moved: u16,
    /// The state of the first of them, which is stored last.
    first: State,
    /// Where the next used descriptor is found.
    used: Cursor,
    /// How many more chains the batch may have that the last poll began.
    credit: u16,
    /// What `own_wish` says, so that it is stored only when it changes.
    wish: Suppression,
}

impl<W: Window> DriverRing<W> {
    /// The driver side over `areas`, with what was negotiated.
    ///
    /// # Errors
    ///
    /// [`SetupError`]: the features cannot be used together, belong to another type of ring (`IN_ORDER`), or need memory
    /// with stronger fences.
    pub fn new(areas: Areas<W>, features: impl Into<RingFeatures>) -> Result<Self, SetupError> {
        let features = features
            .into()
            .check(PLAIN, areas.descriptors.fence_scope())?;
        Ok(Self {
            descriptors: areas.descriptors,
            own_wish: areas.driver,
            device_wish: areas.device,
            size: areas.size,
            indirect: features.indirect(),
            used_event: features.used_event(),
            avail_event: features.avail_event(),
            free: 0,
            free_id: 0,
            in_flight: 0,
            next: Cursor::ORIGIN,
            unpublished: Cursor::ORIGIN,
            moved: 0,
            first: State::new(0, 0, 0, 0),
            used: Cursor::ORIGIN,
            credit: 0,
            wish: Suppression::ENABLE,
        })
    }

    /// Writes a chain into the next descriptors; returns its id.
    #[inline(always)]
    fn place_chain<T>(
        &mut self,
        slots: &mut [DriverSlot<T>],
        chain: impl Iterator<Item = (Buffer, u16)>,
    ) -> u16 {
        let id = self.free_id;
        let mut at = self.next;
        let mut count = 0;
        for (buffer, flags) in chain {
            // The id counts in the last descriptor of a chain, and does no harm in the others (section 2.8.6).
            let state = State::new(buffer.len, id, flags, at.available_mark());
            self.descriptors.store_address(at, buffer.address);
            if self.moved + count == 0 {
                // The device looks at this one: all that follows must be there first (section 2.8.17).
                self.first = state;
            } else {
                self.descriptors.store_state(at, state, Relaxed);
            }
            at = at.forward(1, self.size);
            count += 1;
        }
        self.next = at;
        self.moved += count;
        self.free -= count;
        self.in_flight += 1;
        let slot = &mut slots[usize::from(id)];
        slot.descriptors = count;
        self.free_id = slot.next;
        id
    }

    /// The next used descriptor's state, if it is there.
    #[inline(always)]
    fn look(&self) -> Option<State> {
        // Acquire: what the device wrote into buffers comes with the descriptor.
        let state = self.descriptors.load_state(self.used, Acquire);
        state.is_used(self.used).then_some(state)
    }

    fn ask(&mut self, wish: Suppression) {
        if self.wish != wish {
            self.wish = wish;
            self.own_wish.store(wish.to_word(), Relaxed);
        }
    }
}

impl<W: Window> sealed::DriverFormat for DriverRing<W> {
    const KIND: RingKind = RingKind::plain(RingFormat::Packed);
    const ORIGIN: u16 = Cursor::ORIGIN.to_bits();

    type Areas = Areas<W>;

    #[inline(always)]
    fn size(&self) -> u16 {
        self.size
    }

    fn check_position(&self, position: u16) -> Result<(), SetupError> {
        super::check_position(position, self.size)
    }

    #[inline(always)]
    fn free(&self) -> u16 {
        self.free
    }

    #[inline(always)]
    fn has_indirect(&self) -> bool {
        self.indirect
    }

    fn start<T>(&mut self, slots: &mut [DriverSlot<T>], position: u16) {
        for (id, slot) in (0..self.size).zip(slots.iter_mut()) {
            slot.next = id + 1;
        }
        let start = Cursor::from_bits(position, self.size).unwrap_or(Cursor::ORIGIN);
        self.free = self.size;
        self.free_id = 0;
        self.in_flight = 0;
        self.next = start;
        self.unpublished = start;
        self.moved = 0;
        self.used = start;
        self.credit = 0;
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

    #[inline]
    fn place<T>(
        &mut self,
        slots: &mut [DriverSlot<T>],
        readable: &[Buffer],
        writable: &[Buffer],
    ) -> u16 {
        self.place_chain(slots, describe(readable, writable))
    }

    fn place_indirect<T>(&mut self, slots: &mut [DriverSlot<T>], table: Buffer) -> u16 {
        self.place_chain(slots, core::iter::once((table, INDIRECT)))
    }

    /// Rows follow one another, and WRITE is the only flag that means something (section 2.8.7).
    fn indirect_row(_: u16, buffer: Buffer, flags: u16) -> [u8; DESCRIPTOR_BYTES] {
        State::to_row(buffer, flags & WRITE)
    }

    #[inline]
    fn publish(&mut self) -> Notify {
        let moved = core::mem::take(&mut self.moved);
        if moved == 0 {
            return Notify::No;
        }
        let old = self.unpublished;
        self.unpublished = self.next;
        // Release: whoever sees that the first descriptor is available sees its address, all the descriptors behind
        // it, and the buffers' bytes (section 2.8.21.1.1).
        self.descriptors.store_state(old, self.first, Release);
        // Between the descriptor and the look at what the device asked for (section 2.8.21.3.1): pairs with the fence
        // of its `enable_notifications`. Either we see its wish, or it sees our descriptor.
        self.descriptors.fence(SeqCst);
        let wish = Suppression::from_word(self.device_wish.load(Relaxed));
        if wish.is_wanted(self.avail_event, old, moved, self.size) {
            Notify::Yes
        } else {
            Notify::No
        }
    }

    #[inline]
    fn poll(&mut self) -> Result<u16, DriverFault> {
        // What is added from now on waits for the next batch. Without a first chain there is none: whoever was told so
        // may go to sleep, and must not have missed one that came meanwhile.
        let found = self.in_flight > 0 && self.look().is_some();
        self.credit = if found { self.in_flight } else { 0 };
        Ok(u16::from(found))
    }

    #[inline(always)]
    fn peek_used<T>(
        &mut self,
        _: &[DriverSlot<T>],
    ) -> Result<Option<(u16, UsedElement)>, DriverFault> {
        if self.credit == 0 {
            return Ok(None);
        }
        let Some(state) = self.look() else {
            return Ok(None);
        };
        // Without WRITE the length is reserved (section 2.8.4).
        let len = if state.has(WRITE) { state.len() } else { 0 };
        let id = u32::from(state.id());
        Ok(Some((self.used.to_bits(), UsedElement { id, len })))
    }

    #[inline(always)]
    fn release<T>(&mut self, slots: &mut [DriverSlot<T>], id: u16) {
        let slot = &mut slots[usize::from(id)];
        slot.next = self.free_id;
        self.free_id = id;
        self.free += slot.descriptors;
        self.in_flight -= 1;
        self.credit -= 1;
        // The device wrote one descriptor for the chain and left the others out (section 2.8.6).
        self.used = self.used.forward(slot.descriptors, self.size);
    }

    fn halt(&mut self) {
        self.credit = 0;
    }

    fn disable_notifications(&mut self) {
        self.ask(Suppression::DISABLE);
    }

    fn enable_notifications(&mut self, count: u16) -> Recheck {
        // Each chain takes up a descriptor at least: so this is no later than the `count`th.
        self.ask(if self.used_event {
            Suppression::at(self.used.forward(count - 1, self.size))
        } else {
            Suppression::ENABLE
        });
        // Between the wish and the look at the descriptor: pairs with the fence of the device's `publish`.
        self.descriptors.fence(SeqCst);
        let state = self.descriptors.load_state(self.used, Relaxed);
        if self.in_flight > 0 && state.is_used(self.used) {
            Recheck::Ready
        } else {
            Recheck::Empty
        }
    }

    fn positions(&self) -> Positions {
        Positions {
            available: self.unpublished.to_bits(),
            used: self.used.to_bits(),
            in_flight: self.in_flight,
        }
    }

    fn has_unpublished(&self) -> bool {
        self.moved > 0
    }

    /// Ids are given in any order.
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
        let (available, used) = saved::cursors(state.positions(), descriptors, self.size)?;
        let taken: u16 = state.chains().map(|chain| chain.descriptors).sum();
        self.free = self.size - taken;
        self.in_flight = state.positions().in_flight;
        self.free_id = self.size;
        for (id, slot) in (0..self.size).zip(slots.iter_mut()).rev() {
            if slot.cookie.is_none() {
                slot.next = self.free_id;
                self.free_id = id;
            }
        }
        self.next = available;
        self.unpublished = available;
        self.moved = 0;
        self.used = used;
        self.credit = 0;
        self.wish = Suppression::ENABLE;
        self.own_wish.store(self.wish.to_word(), Relaxed);
        Ok(())
    }
}
