//! The driver side of the tagged ring.

use core::sync::atomic::Ordering::{Acquire, Relaxed, Release, SeqCst};

use shmbus_shm::{Field, Notify, RingFormat, Window};

use super::PLAIN;
use super::areas::{Areas, Descriptors};
use super::label::Label;
use super::saved;
use crate::descriptor::{
    Buffer, DESCRIPTOR_BYTES, INDIRECT, Row, UsedElement, describe, only_buffer,
};
use crate::driver::{DriverSlot, sealed};
use crate::event::{Recheck, Untold};
use crate::fault::{DriverFault, SetupError};
use crate::features::RingFeatures;
use crate::kind::RingKind;
use crate::positions::Positions;
use crate::state::{DriverState, DriverStateWriter, StateError};
use crate::suppression::Suppression;

/// The driver side of a tagged ring; a [`DriverQueue`](crate::DriverQueue) works over it.
///
/// Of what the device writes it reads only the next completion and the device's event suppression structure; how many
/// entries a chain takes up, which tags are free and all positions are private.
#[derive(Debug)]
pub struct DriverRing<W> {
    descriptors: Descriptors<W>,
    /// What this side asks for.
    own_wish: Field<u32, W>,
    /// What the device asks for.
    device_wish: Field<u32, W>,
    size: u16,
    /// How many entries chains may take up.
    capacity: u16,
    indirect: bool,
    /// The driver asks by position.
    used_event: bool,
    /// The device asks by position.
    avail_event: bool,
    /// The tag that the next chain gets; the others follow in the slots.
    free_tag: u16,
    /// How many chains were placed and not taken back.
    in_flight: u16,
    /// Where the next entry goes.
    next: u16,
    /// The first entry that is not published.
    unpublished: u16,
    untold: Untold,
    /// Its label, which is stored last.
    first: Label,
    /// Where the next completion is found.
    used: u16,
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
    /// [`SetupError`]: the features cannot be used together, belong to another type of ring, or need memory with
    /// stronger fences.
    pub fn new(areas: Areas<W>, features: impl Into<RingFeatures>) -> Result<Self, SetupError> {
        let features = features
            .into()
            .check(PLAIN, areas.descriptors.fence_scope())?;
        Ok(Self {
            descriptors: areas.descriptors,
            own_wish: areas.driver,
            device_wish: areas.device,
            size: areas.size,
            capacity: areas.size - 1,
            indirect: features.indirect(),
            used_event: features.used_event(),
            avail_event: features.avail_event(),
            free_tag: 0,
            in_flight: 0,
            next: 0,
            unpublished: 0,
            untold: Untold::default(),
            first: Label::WALL,
            used: 0,
            credit: 0,
            wish: Suppression::ENABLE,
        })
    }

    /// Uses half of the entries at most, so that what this side writes next lies half a ring from what the device
    /// writes next. The device needs not know of it.
    #[must_use]
    pub fn with_half_distance(mut self) -> Self {
        self.capacity = self.size / 2;
        self
    }

    /// Writes a chain into the next entries; returns its tag.
    #[inline(always)]
    fn place_chain<T>(
        &mut self,
        slots: &mut [DriverSlot<T>],
        chain: impl Iterator<Item = (Buffer, u16)>,
    ) -> u16 {
        let tag = self.free_tag;
        let start = self.next;
        let mut at = start;
        for (buffer, flags) in chain {
            let label = Label::available(buffer.len, tag, flags);
            self.descriptors.store_address(at, buffer.address);
            if at == self.unpublished {
                // The wall: as long as it stands, the device looks at nothing from here on.
                self.first = label;
            } else {
                self.descriptors.store_label(at, label, Relaxed);
            }
            at = at.wrapping_add(1);
        }
        self.next = at;
        self.in_flight += 1;
        let slot = &mut slots[usize::from(tag)];
        slot.descriptors = at.wrapping_sub(start);
        self.free_tag = slot.next;
        tag
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

    /// The next completion, if it is there.
    #[inline(always)]
    fn look(&self) -> Option<Label> {
        // Acquire: what the device wrote into buffers comes with the completion.
        let label = self.descriptors.load_label(self.used, Acquire);
        label.is_used().then_some(label)
    }

    fn ask(&mut self, wish: Suppression) {
        if self.wish != wish {
            self.wish = wish;
            self.own_wish.store(wish.to_word(), Relaxed);
        }
    }
}

impl<W: Window> sealed::DriverFormat for DriverRing<W> {
    type Areas = Areas<W>;

    #[inline(always)]
    fn kind(&self) -> RingKind {
        RingKind::plain(RingFormat::Tagged)
    }

    #[inline(always)]
    fn size(&self) -> u16 {
        self.size
    }

    #[inline(always)]
    fn capacity(&self) -> u16 {
        self.capacity
    }

    #[inline(always)]
    fn free(&self) -> u16 {
        self.capacity - self.next.wrapping_sub(self.used)
    }

    #[inline(always)]
    fn has_indirect(&self) -> bool {
        self.indirect
    }

    fn start<T>(&mut self, slots: &mut [DriverSlot<T>], position: u16) {
        for (tag, slot) in (0..self.size).zip(slots.iter_mut()) {
            slot.next = tag + 1;
        }
        self.free_tag = 0;
        self.in_flight = 0;
        self.next = position;
        self.unpublished = position;
        self.untold = Untold::default();
        self.used = position;
        self.credit = 0;
        self.wish = Suppression::ENABLE;
        self.own_wish.store(self.wish.to_word(), Relaxed);
        for at in 0..self.size {
            self.descriptors.store_address(at, 0);
            self.descriptors.store_label(at, Label::WALL, Release);
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
        match only_buffer(readable, writable) {
            Some(one) => self.place_chain(slots, core::iter::once(one)),
            None => self.place_many(slots, readable, writable),
        }
    }

    fn place_indirect<T>(&mut self, slots: &mut [DriverSlot<T>], table: Buffer) -> u16 {
        self.place_chain(slots, core::iter::once((table, INDIRECT)))
    }

    fn indirect_row(&self, _: u16, buffer: Buffer, flags: u16) -> [u8; DESCRIPTOR_BYTES] {
        Row { buffer, flags }.to_bytes()
    }

    #[inline(always)]
    fn show(&mut self) {
        let (old, new) = (self.unpublished, self.next);
        if old == new {
            return;
        }
        self.unpublished = new;
        self.untold.add(new.wrapping_sub(old));
        // What lies behind may say AVAILABLE since the last lap: the new wall first, then down with the old one.
        self.descriptors.store_label(new, Label::WALL, Relaxed);
        // Release: whoever sees that the first entry is available sees its address, the entries behind it up to the
        // new wall, and the buffers' bytes.
        self.descriptors.store_label(old, self.first, Release);
    }

    #[inline(always)]
    fn notify(&mut self) -> Notify {
        let untold = core::mem::take(&mut self.untold);
        if untold.is_empty() {
            return Notify::No;
        }
        // Between the entry and the look at what the device asked for: pairs with the fence of its
        // `enable_notifications`. Either we see its wish, or it sees our entry.
        self.descriptors.fence(SeqCst);
        let wish = Suppression::from_word(self.device_wish.load(Relaxed));
        if wish.is_wanted(self.avail_event, |event| {
            untold.includes_entry(event, self.unpublished)
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
        let Some(label) = self.look() else {
            return Ok(None);
        };
        let element = UsedElement {
            id: u32::from(label.tag()),
            len: label.len(),
        };
        Ok(Some((self.used, element)))
    }

    #[inline(always)]
    fn release<T>(&mut self, slots: &mut [DriverSlot<T>], id: u16) {
        let slot = &mut slots[usize::from(id)];
        slot.next = self.free_tag;
        self.free_tag = id;
        self.in_flight -= 1;
        self.credit -= 1;
        // The device wrote one completion for the chain, and left out as many entries as the chain has besides.
        self.used = self.used.wrapping_add(slot.descriptors);
    }

    fn halt(&mut self) {
        self.credit = 0;
    }

    fn disable_notifications(&mut self) {
        self.ask(Suppression::DISABLE);
    }

    fn enable_notifications(&mut self, count: u16) -> Recheck {
        // Each chain takes up an entry at least: so this is no later than the `count`th.
        self.ask(if self.used_event {
            Suppression::at(self.used.wrapping_add(count - 1))
        } else {
            Suppression::ENABLE
        });
        // Between the wish and the look at the entry: pairs with the fence of the device's `publish`.
        self.descriptors.fence(SeqCst);
        if self.in_flight > 0 && self.descriptors.load_label(self.used, Relaxed).is_used() {
            Recheck::Ready
        } else {
            Recheck::Empty
        }
    }

    fn positions(&self) -> Positions {
        Positions {
            available: self.unpublished,
            used: self.used,
            in_flight: self.in_flight,
        }
    }
    fn has_unpublished(&self) -> bool {
        !self.untold.is_empty() || self.next != self.unpublished
    }

    /// Each completion stands for one chain.
    fn has_untaken(&self) -> bool {
        false
    }

    /// Where the next chain lies, its position says.
    fn head(&self) -> u16 {
        0
    }

    /// Only how many entries a chain takes up matters.
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
        let Positions {
            available,
            used,
            in_flight,
        } = state.positions();
        let entries = state.chains().map(|chain| chain.descriptors);
        saved::check_distance(state.positions(), entries, self.capacity)?;
        self.free_tag = self.size;
        for (tag, slot) in (0..self.size).zip(slots.iter_mut()).rev() {
            if slot.cookie.is_none() {
                slot.next = self.free_tag;
                self.free_tag = tag;
            }
        }
        self.in_flight = in_flight;
        self.next = available;
        self.unpublished = available;
        self.untold = Untold::default();
        self.used = used;
        self.credit = 0;
        self.wish = Suppression::ENABLE;
        self.own_wish.store(self.wish.to_word(), Relaxed);
        Ok(())
    }
}
