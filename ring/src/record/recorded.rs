//! The device ring that keeps a record.

use core::fmt;
use core::sync::atomic::Ordering::{Relaxed, Release};

use shmbus_shm::{AddressSpace, Notify, RingFormat, Window};

use super::layout::{Record, RecordLayout};
use super::pool::{Pool, RecordSlot};
use super::recover::{ChainWord, Place, Publication};
use crate::descriptor::{Buffer, DESCRIPTOR_BYTES};
use crate::device::{Completed, DeviceFormat, DeviceSlot, FoundChain, sealed};
use crate::event::Recheck;
use crate::fault::{DeviceFault, SetupError, check_storage};
use crate::kind::RingKind;
use crate::positions::Positions;
use crate::state::{DeviceState, DeviceStateWriter, SavedChain, StateError, copies_descriptors};

/// A device ring that writes what it has in flight to a [`Record`]; a [`DeviceQueue`](crate::DeviceQueue) works over it as
/// over `F` itself.
///
/// Each step is one store, in this order: a chain is written down as taken before the device gets it; as completed, with
/// the number of its batch, before the batch's publication is announced; that is announced before the driver is shown it;
/// and forgotten after that. The stores' order is the program's (Release where it matters), which is all that a death by
/// signal respects.
///
/// `S` is the storage: an array, a slice or a vector of at least as many slots as the queue has entries.
pub struct Recorded<F, W, S> {
    ring: F,
    record: Record<W>,
    slots: S,
    pool: Pool,
    /// The number of the next chain.
    number: u32,
    /// The batch that is not published.
    batch: u16,
}

impl<F: DeviceFormat, W: Window, S: AsMut<[RecordSlot]>> Recorded<F, W, S> {
    /// `ring` with a record in `memory`, which the device writes and nobody else, and which has at least
    /// [`RecordLayout::bytes`] bytes, aligned to 8.
    ///
    /// # Errors
    ///
    /// [`SetupError::Area`], [`SetupError::Storage`].
    pub fn new(ring: F, memory: &W, mut slots: S) -> Result<Self, SetupError> {
        check_storage(slots.as_mut().len(), ring.size())?;
        Ok(Self {
            record: Record::new(RecordLayout::of(&ring), memory)?,
            pool: Pool::new(slots.as_mut(), ring.size()),
            ring,
            slots,
            number: 0,
            batch: 0,
        })
    }

    /// An empty record, of a ring whose used position this is.
    fn format(&mut self, used: u16) {
        self.pool = Pool::new(self.slots.as_mut(), self.ring.size());
        self.number = 0;
        self.batch = 0;
        let publication = Publication {
            from: used,
            to: used,
            batch: self.batch,
        };
        self.record.format(publication.to_word());
        self.batch = self.batch.wrapping_add(1);
    }

    /// Writes down a chain that is taken, with its descriptors where they may be overwritten.
    #[inline(always)]
    fn note(
        &mut self,
        (id, position, entries): (u16, u16, u16),
        descriptor: impl Fn(&F, u16) -> [u8; DESCRIPTOR_BYTES],
    ) {
        let slots = self.slots.as_mut();
        let mut first = 0;
        if copies_descriptors(self.ring.kind()) {
            first = self.pool.take(slots, id, entries);
            let mut at = first;
            for index in 0..entries {
                let following = self.pool.following(slots, at);
                self.record
                    .store_copy(at, descriptor(&self.ring, index), following);
                at = following;
            }
        }
        let place = Place {
            position,
            first,
            entries,
        };
        self.record.store_place(id, place.to_word());
        let number = self.number;
        if let Some(slot) = slots.get_mut(usize::from(id)) {
            slot.number = number;
        }
        self.number = number.wrapping_add(1);
        // Release: the chain is taken once all that is to be known of it is there.
        self.record
            .store_chain(id, ChainWord::taken(number).to_word(), Release);
    }
}

#[cfg(feature = "std")]
impl<F: DeviceFormat, W: Window> Recorded<F, W, Vec<RecordSlot>> {
    /// As [`new`](Self::new), with its storage on the heap.
    ///
    /// # Errors
    ///
    /// [`SetupError::Area`].
    pub fn with_heap(ring: F, memory: &W) -> Result<Self, SetupError> {
        let slots = vec![RecordSlot::new(); usize::from(ring.size())];
        Self::new(ring, memory, slots)
    }
}

impl<F, W, S> sealed::DeviceFormat for Recorded<F, W, S>
where
    F: DeviceFormat,
    W: Window,
    S: AsMut<[RecordSlot]>,
{
    type Areas = F::Areas;

    #[inline(always)]
    fn kind(&self) -> RingKind {
        self.ring.kind()
    }

    /// The used descriptors of a packed ring overwrite others, of which a ring in order has no copies: so those of a batch
    /// are not written before the first one is shown.
    #[inline(always)]
    fn is_stepwise(&self) -> bool {
        self.kind() == RingKind::in_order(RingFormat::Packed)
    }

    #[inline(always)]
    fn size(&self) -> u16 {
        self.ring.size()
    }

    fn start(&mut self, slots: &mut [DeviceSlot], position: u16) {
        self.ring.start(slots, position);
        self.format(position);
    }

    fn rebind(&mut self, areas: F::Areas) -> Result<(), SetupError> {
        self.ring.rebind(areas)
    }

    #[inline]
    fn poll(&mut self) -> Result<u16, DeviceFault> {
        self.ring.poll()
    }

    #[inline]
    fn poll_spinning(&mut self) -> Result<u16, DeviceFault> {
        self.ring.poll_spinning()
    }

    #[inline(always)]
    fn peek(
        &self,
        space: &impl AddressSpace,
        segments: &mut [Buffer],
    ) -> Result<Option<FoundChain>, DeviceFault> {
        self.ring.peek(space, segments)
    }

    #[inline(always)]
    fn advance(&mut self, found: &FoundChain) {
        if !self.kind().in_order {
            // The driver may have changed them since they were walked: that chain is then another one when it is handed
            // out again, and checked as such.
            let position = found.position;
            self.note((found.head, position, found.entries), |ring, index| {
                ring.load_descriptor(position, index)
            });
        }
        self.ring.advance(found);
    }

    #[inline(always)]
    fn place_used(&mut self, slots: &mut [DeviceSlot], chain: Completed) {
        if !self.kind().in_order {
            let id = chain.head;
            let own = self.slots.as_mut();
            let number = own.get(usize::from(id)).map_or(0, |slot| slot.number);
            self.pool.complete(own, id);
            let word = ChainWord::completed(number, self.batch);
            self.record.store_chain(id, word.to_word(), Relaxed);
        }
        self.ring.place_used(slots, chain);
    }

    #[inline]
    fn settle(&mut self, slots: &mut [DeviceSlot], stepwise: bool) -> [u16; 2] {
        let [from, to] = self.ring.settle(slots, stepwise);
        if from != to {
            self.ring.claim();
            let batch = self.batch;
            let publication = Publication { from, to, batch };
            self.record.store_publication(publication.to_word());
        }
        [from, to]
    }

    #[inline]
    fn show(&mut self) {
        self.ring.show();
        // What the driver was shown is forgotten; Release: not before it was shown.
        while let Some(id) = self.pool.next_completed(self.slots.as_mut()) {
            self.record.store_chain(id, 0, Release);
        }
        self.batch = self.batch.wrapping_add(1);
    }

    #[inline]
    fn notify(&mut self) -> Notify {
        self.ring.notify()
    }

    fn halt(&mut self) {
        self.ring.halt();
    }

    fn disable_notifications(&mut self) {
        self.ring.disable_notifications();
    }

    fn enable_notifications(&mut self) -> Recheck {
        self.ring.enable_notifications()
    }

    fn positions(&self) -> Positions {
        self.ring.positions()
    }

    fn age(&self, position: u16) -> u32 {
        self.ring.age(position)
    }

    fn has_unpublished(&self) -> bool {
        self.ring.has_unpublished()
    }

    fn load_descriptor(&self, position: u16, index: u16) -> [u8; DESCRIPTOR_BYTES] {
        self.ring.load_descriptor(position, index)
    }

    /// From the record, which has them also where the ring does not.
    fn copy_descriptors(
        &mut self,
        chain: SavedChain<'_>,
        to: &mut DeviceStateWriter<'_>,
    ) -> Result<(), StateError> {
        if !copies_descriptors(self.kind()) {
            return Ok(());
        }
        let mut at = self.pool.first(self.slots.as_mut(), chain.id);
        for _ in 0..chain.entries {
            to.push_descriptor(self.record.load_copy(at).0)?;
            at = self.pool.following(self.slots.as_mut(), at);
        }
        Ok(())
    }

    fn resume(
        &mut self,
        slots: &mut [DeviceSlot],
        state: &DeviceState<'_>,
    ) -> Result<(), StateError> {
        self.ring.resume(slots, state)?;
        self.format(state.positions().used);
        for chain in state.chains() {
            self.note((chain.id, chain.position, chain.entries), |_, index| {
                chain.descriptor(index)
            });
        }
        Ok(())
    }

    fn walk_again(
        &self,
        space: &impl AddressSpace,
        chain: SavedChain<'_>,
        segments: &mut [Buffer],
    ) -> Result<FoundChain, DeviceFault> {
        self.ring.walk_again(space, chain, segments)
    }
}

impl<F: fmt::Debug, W, S> fmt::Debug for Recorded<F, W, S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Recorded")
            .field("ring", &self.ring)
            .field("number", &self.number)
            .field("batch", &self.batch)
            .finish_non_exhaustive()
    }
}
