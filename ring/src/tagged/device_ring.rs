//! The device side of the tagged ring.

use core::sync::atomic::Ordering::{Acquire, Relaxed, Release, SeqCst};

use shmbus_shm::{AddressSpace, Field, Notify, RingFormat, Window};

use super::PLAIN;
use super::areas::{Areas, Descriptors};
use super::label::Label;
use super::saved;
use crate::descriptor::{Buffer, DESCRIPTOR_BYTES, INDIRECT, NEXT};
use crate::device::{
    ChainBuilder, ChainShape, Completed, DeviceSlot, FoundChain, check_table_place, sealed,
    walk_rows,
};
use crate::event::{Recheck, Untold};
use crate::fault::{ChainError, DeviceFault, SetupError};
use crate::features::RingFeatures;
use crate::kind::RingKind;
use crate::positions::Positions;
use crate::state::{DeviceState, DeviceStateWriter, SavedChain, StateError};
use crate::suppression::Suppression;

/// The device side of a tagged ring; a [`DeviceQueue`](crate::DeviceQueue) works over it.
///
/// A chain's tag must be below the queue's size.
#[derive(Debug)]
pub struct DeviceRing<W> {
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
    /// Where the next chain is found.
    next: u16,
    /// How many more chains the batch may have that the last poll began.
    credit: u16,
    /// Where the next completion goes.
    used: u16,
    /// The first completion that is not published. From here to `next` the entries are out: taken, and not yet the
    /// driver's again.
    unpublished: u16,
    untold: Untold,
    /// Its label, which is stored last.
    first: Label,
    /// What `own_wish` says, so that it is stored only when it changes.
    wish: Suppression,
}

impl<W: Window> DeviceRing<W> {
    /// The device side over `areas`, with what was negotiated.
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
            own_wish: areas.device,
            driver_wish: areas.driver,
            size: areas.size,
            indirect: features.indirect(),
            used_event: features.used_event(),
            avail_event: features.avail_event(),
            next: 0,
            credit: 0,
            used: 0,
            unpublished: 0,
            untold: Untold::default(),
            first: Label::WALL,
            wish: Suppression::ENABLE,
        })
    }

    /// The first label of the next chain, if it is there.
    #[inline(always)]
    fn look(&self) -> Option<Label> {
        // Acquire: the address, the rest of the chain, the wall behind it and the buffers' bytes come with the label.
        let label = self.descriptors.load_label(self.next, Acquire);
        label.is_available().then_some(label)
    }

    /// How many entries were taken and are not yet the driver's again.
    #[inline(always)]
    fn outstanding(&self) -> u16 {
        self.next.wrapping_sub(self.unpublished)
    }

    /// Reads a chain's descriptors, each once, into `segments`; returns also how many entries it takes up.
    #[inline(always)]
    fn walk(
        &self,
        space: &impl AddressSpace,
        first: Label,
        segments: &mut [Buffer],
    ) -> Result<(u16, ChainShape), ChainError> {
        match segments.first_mut() {
            // Most chains: nothing is counted, and nothing can be out of order.
            Some(segment) if !first.has(NEXT | INDIRECT) => {
                let buffer = Buffer::new(self.descriptors.load_address(self.next), first.len());
                *segment = buffer;
                Ok((1, ChainShape::of_one(buffer, first.flags())))
            }
            _ => self.walk_on(space, first, segments),
        }
    }

    /// As [`DeviceRing::walk`], for chains of more than one descriptor.
    #[inline(never)]
    fn walk_on(
        &self,
        space: &impl AddressSpace,
        first: Label,
        segments: &mut [Buffer],
    ) -> Result<(u16, ChainShape), ChainError> {
        let mut chain = ChainBuilder::new(segments, self.size);
        let mut at = self.next;
        let mut label = first;
        let mut count = 1;
        // The chain is bounded by what `push` takes, at most the ring's size.
        loop {
            let buffer = Buffer::new(self.descriptors.load_address(at), label.len());
            if label.has(INDIRECT) {
                check_table_place(self.indirect, self.place_of(at), label.flags(), count)?;
                walk_rows(space, buffer, &mut chain)?;
                break;
            }
            chain.push(self.place_of(at), buffer, label.flags())?;
            if !label.has(NEXT) {
                break;
            }
            at = at.wrapping_add(1);
            // Relaxed: it comes with the first.
            label = self.descriptors.load_label(at, Relaxed);
            if !label.is_available() {
                let descriptor = self.place_of(at);
                return Err(ChainError::NotAvailable { descriptor });
            }
            count += 1;
        }
        Ok((count, chain.finish()?))
    }

    /// Which entry of the ring lies at a position.
    fn place_of(&self, position: u16) -> u16 {
        position & (self.size - 1)
    }

    fn ask(&mut self, wish: Suppression) {
        if self.wish != wish {
            self.wish = wish;
            self.own_wish.store(wish.to_word(), Relaxed);
        }
    }
}

impl<W: Window> sealed::DeviceFormat for DeviceRing<W> {
    type Areas = Areas<W>;

    #[inline(always)]
    fn kind(&self) -> RingKind {
        RingKind::plain(RingFormat::Tagged)
    }

    #[inline(always)]
    fn size(&self) -> u16 {
        self.size
    }

    fn start(&mut self, _: &mut [DeviceSlot], position: u16) {
        self.next = position;
        self.credit = 0;
        self.used = position;
        self.unpublished = position;
        self.untold = Untold::default();
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
        // chain there is no batch: whoever was told so may go to sleep, and must not have missed one that came
        // meanwhile.
        let found = self.look().is_some();
        self.credit = if found { self.size } else { 0 };
        Ok(u16::from(found))
    }

    #[inline(always)]
    fn peek(
        &self,
        space: &impl AddressSpace,
        segments: &mut [Buffer],
    ) -> Result<Option<FoundChain>, DeviceFault> {
        if self.credit == 0 {
            return Ok(None);
        }
        let Some(first) = self.look() else {
            return Ok(None);
        };
        let position = self.next;
        let head = first.tag();
        let (entries, shape) = match self.walk(space, first, segments) {
            Ok(walked) => walked,
            Err(reason) => {
                return Err(DeviceFault::Chain {
                    position,
                    head,
                    reason,
                });
            }
        };
        // An honest driver reuses an entry only once it has seen the completion in it, or the one that stands for it,
        // and keeps one entry for the wall. A ring without a wall has no end: here it does.
        let outstanding = self.outstanding();
        if u32::from(outstanding) + u32::from(entries) >= u32::from(self.size) {
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
        self.next = self.next.wrapping_add(found.entries);
        self.credit -= 1;
    }

    #[inline(always)]
    fn place_used(&mut self, _: &mut [DeviceSlot], chain: Completed) {
        let label = Label::used(chain.written, chain.head);
        if self.used == self.unpublished {
            // The driver looks at this one: all that follows must be there first.
            self.first = label;
        } else {
            self.descriptors.store_label(self.used, label, Relaxed);
        }
        // One completion stands for the chain; as many entries as it has besides are left out.
        self.used = self.used.wrapping_add(chain.entries);
    }

    #[inline(always)]
    fn settle(&mut self, _: &mut [DeviceSlot], _: bool) -> [u16; 2] {
        [self.unpublished, self.used]
    }

    /// Once the driver was shown a completion it may lend what lies there again, and the entry says AVAILABLE as it did
    /// before. It never says this again.
    #[inline(always)]
    fn claim(&mut self) {
        self.descriptors
            .store_label(self.unpublished, Label::CLAIMED, Relaxed);
    }

    #[inline(always)]
    fn show(&mut self) {
        let (old, new) = (self.unpublished, self.used);
        if old == new {
            return;
        }
        self.unpublished = new;
        self.untold.add(new.wrapping_sub(old));
        // Release: whoever sees the first completion sees those behind it, and what was written into buffers.
        self.descriptors.store_label(old, self.first, Release);
    }

    #[inline(always)]
    fn notify(&mut self) -> Notify {
        let untold = core::mem::take(&mut self.untold);
        if untold.is_empty() {
            return Notify::No;
        }
        // Between the completion and the look at what the driver asked for: pairs with the fence of its
        // `enable_notifications`. Either we see its wish, or it sees our completion.
        self.descriptors.fence(SeqCst);
        let wish = Suppression::from_word(self.driver_wish.load(Relaxed));
        if wish.is_wanted(self.used_event, |event| {
            untold.includes_entry(event, self.unpublished)
        }) {
            Notify::Yes
        } else {
            Notify::No
        }
    }

    fn halt(&mut self) {
        self.credit = 0;
    }

    fn disable_notifications(&mut self) {
        self.ask(Suppression::DISABLE);
    }

    fn enable_notifications(&mut self) -> Recheck {
        self.ask(if self.avail_event {
            Suppression::at(self.next)
        } else {
            Suppression::ENABLE
        });
        // Between the wish and the look at the entry: pairs with the fence of the driver's `publish`.
        self.descriptors.fence(SeqCst);
        if self
            .descriptors
            .load_label(self.next, Relaxed)
            .is_available()
        {
            Recheck::Ready
        } else {
            Recheck::Empty
        }
    }

    fn positions(&self) -> Positions {
        Positions {
            available: self.next,
            used: self.unpublished,
            // The queue knows how many chains are in flight.
            in_flight: 0,
        }
    }
    fn age(&self, position: u16) -> u32 {
        u32::from(self.next.wrapping_sub(position))
    }

    fn has_unpublished(&self) -> bool {
        !self.untold.is_empty() || self.used != self.unpublished
    }

    fn load_descriptor(&self, position: u16, index: u16) -> [u8; DESCRIPTOR_BYTES] {
        self.descriptors.load_row(position.wrapping_add(index))
    }

    fn copy_descriptors(
        &mut self,
        chain: SavedChain<'_>,
        to: &mut DeviceStateWriter<'_>,
    ) -> Result<(), StateError> {
        // Completions lie where the entries before were.
        if chain.position.wrapping_sub(self.unpublished) >= self.outstanding() {
            return Err(StateError::Overwritten { id: chain.id });
        }
        for index in 0..chain.entries {
            to.push_descriptor(self.load_descriptor(chain.position, index))?;
        }
        Ok(())
    }

    fn resume(&mut self, _: &mut [DeviceSlot], state: &DeviceState<'_>) -> Result<(), StateError> {
        let Positions {
            available, used, ..
        } = state.positions();
        let entries = state.chains().map(|chain| chain.entries);
        saved::check_distance(state.positions(), entries, self.size - 1)?;
        // What the driver has been shown decides: a completion is never published twice.
        if self.descriptors.load_label(used, Acquire).is_used() {
            return Err(StateError::Field {
                field: "used",
                found: u64::from(used),
                expected: "a position at which no completion lies",
            });
        }
        self.next = available;
        self.credit = 0;
        self.used = used;
        self.unpublished = used;
        self.untold = Untold::default();
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
            Ok((entries, shape)) => Ok(FoundChain {
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
