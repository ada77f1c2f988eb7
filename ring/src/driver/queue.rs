//! The driver side of a queue.

use core::fmt;
use core::marker::PhantomData;

use shmbus_shm::{Notify, SharedBytes};

use super::{DriverFormat, DriverSlot};
use crate::descriptor::{Buffer, DESCRIPTOR_BYTES, MAX_CHAIN_BYTES, describe};
use crate::event::Recheck;
use crate::fault::{AddError, DriverFault, Rejected, SetupError, check_storage};
use crate::kind::RingKind;
use crate::notification::NotificationData;
use crate::positions::Positions;
use crate::state::{DriverState, DriverStateWriter, SavedDriver, StateError};

/// A chain that the device returned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Used<T> {
    /// What was handed in with the chain.
    pub cookie: T,
    /// How many bytes the device wrote, from the first writable buffer on; never more than were writable. What lies
    /// behind them is undefined.
    pub written: u32,
}

/// The driver side of a queue: lends chains of buffers to a device, and gets them back.
///
/// Batches are the rule: [`add`](Self::add) chains, then [`publish`](Self::publish) them together. Then
/// [`poll`](Self::poll) for what came back, and [`take`](Self::take) it. A batch of one is no special case.
///
/// Each chain carries a cookie of the caller's type, which is moved in and handed back exactly once, with that chain:
/// a buffer, an index, a request. The device's answers are checked against a private record of what was lent. A wrong
/// one is latched as a [`DriverFault`]: the queue stops until [`reset`](Self::reset).
///
/// # Work
///
/// Whatever the device does, a call accesses the ring's memory so often at most, in every format:
///
/// | call | loads | stores |
/// | --- | --- | --- |
/// | [`add`](Self::add), a chain of n descriptors | | 2n + 1 |
/// | [`add_indirect`](Self::add_indirect), n descriptors | | 3, and 16n bytes of the table |
/// | [`publish`](Self::publish) | 1 | 2 |
/// | [`poll`](Self::poll) | 1 | |
/// | [`take`](Self::take) | 2 | 1 |
/// | [`enable_notifications`](Self::enable_notifications) | 1 | 1 |
/// | [`disable_notifications`](Self::disable_notifications) | | 1 |
///
/// With `VIRTIO_F_IN_ORDER`, only the first `take` of a batch loads anything. Nothing is retried. Only
/// [`new`](Self::new) and [`reset`](Self::reset) take time in proportion to the queue's size.
///
/// `F` is the ring format, `S` the storage: an array, a slice or a vector of at least as many slots as the queue has
/// entries.
pub struct DriverQueue<F, T, S> {
    ring: F,
    slots: S,
    /// The number of the next chain that is placed.
    placed: u64,
    /// The number of the first chain that is not published.
    published: u64,
    fault: Option<DriverFault>,
    cookie: PhantomData<T>,
}

impl<F: DriverFormat, T, S: AsMut<[DriverSlot<T>]>> DriverQueue<F, T, S> {
    /// A queue at its start, with nothing available and notifications enabled. Formats the memory that the driver
    /// writes.
    ///
    /// # Errors
    ///
    /// [`SetupError::Storage`].
    pub fn new(ring: F, slots: S) -> Result<Self, SetupError> {
        let origin = ring.kind().origin();
        Self::starting_at(ring, slots, origin)
    }

    /// A queue whose two sides both start at `position` (as [`Positions`] counts), as after a migration with nothing
    /// in flight.
    ///
    /// # Errors
    ///
    /// [`SetupError::Storage`]; [`SetupError::Position`] if the ring has no such position.
    pub fn starting_at(mut ring: F, mut slots: S, position: u16) -> Result<Self, SetupError> {
        let size = ring.size();
        if !ring.kind().has_position(position, size) {
            return Err(SetupError::Position { position, size });
        }
        check_storage(slots.as_mut().len(), ring.size())?;
        slots.as_mut().fill_with(DriverSlot::new);
        ring.start(slots.as_mut(), position);
        Ok(Self {
            ring,
            slots,
            placed: 0,
            published: 0,
            fault: None,
            cookie: PhantomData,
        })
    }

    /// Places a chain: `readable` buffers, then `writable` ones. The device sees it after the next
    /// [`publish`](Self::publish). Until it comes back the buffers belong to the device.
    ///
    /// # Errors
    ///
    /// [`Rejected`] with the cookie: [`AddError::Full`] if there is no room now, and other reasons for chains that
    /// would never do.
    #[inline(always)]
    pub fn add(
        &mut self,
        readable: &[Buffer],
        writable: &[Buffer],
        cookie: T,
    ) -> Result<(), Rejected<T>> {
        let limit = self.ring.capacity();
        let writable_bytes = match self.check_chain(readable, writable, limit) {
            Ok(bytes) => bytes,
            Err(reason) => return Err(Rejected { reason, cookie }),
        };
        let needed = readable.len() + writable.len();
        if let Err(reason) = self.check_room(needed) {
            return Err(Rejected { reason, cookie });
        }
        let slots = self.slots.as_mut();
        let id = self.ring.place(slots, readable, writable);
        self.lend(id, writable_bytes, cookie);
        Ok(())
    }

    /// Places a chain whose descriptors are written to a table of its own, so that it takes up one descriptor of the
    /// queue (`VIRTIO_F_INDIRECT_DESC`). `table` is memory for 16 bytes a buffer, which the device finds at
    /// `table_address`; like the buffers, it belongs to the device until the chain comes back.
    ///
    /// # Errors
    ///
    /// [`Rejected`] with the cookie, as for [`add`](Self::add); [`AddError::TooManyDescriptors`] if the table is too
    /// short, [`AddError::IndirectNotNegotiated`].
    pub fn add_indirect(
        &mut self,
        readable: &[Buffer],
        writable: &[Buffer],
        table: &impl SharedBytes,
        table_address: u64,
        cookie: T,
    ) -> Result<(), Rejected<T>> {
        let writable_bytes = match self.check_indirect(readable, writable, table.len()) {
            Ok(bytes) => bytes,
            Err(reason) => return Err(Rejected { reason, cookie }),
        };
        for (index, (buffer, flags)) in (0_u16..).zip(describe(readable, writable)) {
            table.copy_from(
                DESCRIPTOR_BYTES * usize::from(index),
                &self.ring.indirect_row(index, buffer, flags),
            );
        }
        let bytes = DESCRIPTOR_BYTES * (readable.len() + writable.len());
        let table = Buffer::new(table_address, bytes as u32);
        let id = self.ring.place_indirect(self.slots.as_mut(), table);
        self.lend(id, writable_bytes, cookie);
        Ok(())
    }

    /// Makes all chains placed since the last call available to the device, together, and answers whether the device
    /// must be told. Nothing happens if there are none, or the queue has stopped.
    #[inline]
    pub fn publish(&mut self) -> Notify {
        if self.fault.is_some() {
            return Notify::No;
        }
        self.expose();
        self.ring.notify()
    }

    /// Makes all chains placed since the last call available, as [`publish`](Self::publish) does, to a device that looks
    /// by itself: whether it must be told is left open. That saves a full barrier, and a look at what the device asks
    /// for. The next `publish` answers for what was exposed before, too: a device that may sleep needs one, in the end.
    #[inline(always)]
    pub fn expose(&mut self) {
        if self.fault.is_none() {
            self.published = self.placed;
            self.ring.show();
        }
    }

    /// Looks how far the device has come, with one load; returns how many chains [`take`](Self::take) will hand back
    /// at least: 0 only if there are none. The split ring knows their number. The packed ring knows of the next one
    /// alone, and `take` finds those behind it, at most as many as the queue has entries.
    ///
    /// # Errors
    ///
    /// The latched [`DriverFault`].
    #[inline(always)]
    pub fn poll(&mut self) -> Result<u16, DriverFault> {
        if let Some(fault) = self.fault {
            return Err(fault);
        }
        self.ring.poll().map_err(|fault| self.stop(fault))
    }

    /// As [`poll`](Self::poll), for a driver that has nothing else to do and looks again and again.
    ///
    /// A side that looks at the very entry that the other side is about to write takes that line away from it, at each
    /// look. This one keeps its distance, where the format allows it and while entries come fast. So 0 may also mean
    /// that few have come: but at most [`PATIENCE`](crate::PATIENCE) calls in a row answer 0 although there is one. Any
    /// other answer is as true as that of `poll`; the batch may be shorter than its.
    ///
    /// Nothing is lost on a side that then goes to sleep: [`enable_notifications`](Self::enable_notifications)
    /// overlooks nothing.
    ///
    /// # Errors
    ///
    /// The latched [`DriverFault`].
    #[inline]
    pub fn poll_spinning(&mut self) -> Result<u16, DriverFault> {
        if let Some(fault) = self.fault {
            return Err(fault);
        }
        self.ring.poll_spinning().map_err(|fault| self.stop(fault))
    }

    /// Takes back the next chain of the batch that the last [`poll`](Self::poll) began, if any is left.
    ///
    /// # Errors
    ///
    /// The latched [`DriverFault`]. The chain that is next then stays lent.
    #[inline(always)]
    pub fn take(&mut self) -> Result<Option<Used<T>>, DriverFault> {
        let slots = self.slots.as_mut();
        let (position, element) = match self.ring.peek_used(slots) {
            Ok(Some(found)) => found,
            Ok(None) => return self.fault.map_or(Ok(None), Err),
            Err(fault) => return Err(self.stop(fault)),
        };
        // The id is the device's word: it must name a chain that it has now. That refuses a second completion, and
        // one of a chain that was placed and not yet published.
        let lent = slots.get_mut(element.id as usize);
        let published = self.published;
        let Some(slot) = lent.filter(|slot| slot.cookie.is_some() && slot.number < published)
        else {
            return Err(self.stop(DriverFault::NotLent {
                position,
                id: element.id,
            }));
        };
        let id = element.id as u16;
        if element.len > slot.writable {
            let writable = slot.writable;
            return Err(self.stop(DriverFault::TooLong {
                position,
                id,
                written: element.len,
                writable,
            }));
        }
        let cookie = slot.cookie.take();
        self.ring.release(slots, id);
        Ok(cookie.map(|cookie| Used {
            cookie,
            written: element.len,
        }))
    }

    /// Asks the device not to tell of used chains, for a driver that looks anyway. It may tell all the same.
    pub fn disable_notifications(&mut self) {
        self.ring.disable_notifications();
    }

    /// Asks the device to tell of the next used chain; sleep only if the answer is [`Recheck::Empty`].
    pub fn enable_notifications(&mut self) -> Recheck {
        self.ring.enable_notifications(1)
    }

    /// Asks the device to tell when `count` chains more than were taken are used, or sooner; sleep only if the answer
    /// is [`Recheck::Empty`]. Without `VIRTIO_F_EVENT_IDX` the device tells of the next one.
    pub fn enable_notifications_after(&mut self, count: u16) -> Recheck {
        let in_flight = self.ring.positions().in_flight;
        self.ring.enable_notifications(count.min(in_flight).max(1))
    }

    /// How many descriptors are free.
    pub fn free(&self) -> u16 {
        self.ring.free()
    }

    /// Which type of ring the queue is.
    pub fn kind(&self) -> RingKind {
        self.ring.kind()
    }

    /// How many descriptors are free while nothing is lent: the queue's size, but for a tagged ring.
    pub fn capacity(&self) -> u16 {
        self.ring.capacity()
    }

    /// The queue's size, in entries.
    pub fn size(&self) -> u16 {
        self.ring.size()
    }

    /// How far this side has come.
    pub fn positions(&self) -> Positions {
        self.ring.positions()
    }

    /// What to tell the device of with `VIRTIO_F_NOTIFICATION_DATA`, when [`publish`](Self::publish) says that it must
    /// be told: `queue` is this queue's index, or what the device supplied in its place.
    pub fn notification_data(&self, queue: u16) -> NotificationData {
        NotificationData {
            queue,
            available: self.positions().available,
        }
    }

    /// Why the queue has stopped, if it has.
    pub fn fault(&self) -> Option<DriverFault> {
        self.fault
    }

    /// Takes back all that is lent and starts over. Only for a queue that the device has let go of (by a
    /// reset of the queue or of the device): before that it may still write to the buffers.
    pub fn reset(&mut self, mut returned: impl FnMut(T)) {
        let slots = self.slots.as_mut();
        for slot in slots.iter_mut() {
            if let Some(cookie) = slot.cookie.take() {
                returned(cookie);
            }
        }
        self.ring.start(slots, self.ring.kind().origin());
        self.published = self.placed;
        self.fault = None;
    }

    /// Goes on over the same memory, which this process now finds at other addresses: as after a hot-plug, when a
    /// virtual machine's memory is mapped anew. `areas` are carved from the new mapping. Chains in flight stay so.
    ///
    /// The areas' windows keep the old mapping there until now, so it was never too late to come here; now they are let
    /// go of, and nothing of this queue refers to it any more. The other side need not do the same, nor at the same
    /// time.
    ///
    /// # Errors
    ///
    /// [`SetupError::OtherSize`] if the areas are not of this queue's size, [`SetupError::FenceScope`] if the memory is
    /// of another kind: a queue's geometry never changes. The queue then goes on as before.
    pub fn rebind(&mut self, areas: F::Areas) -> Result<(), SetupError> {
        self.ring.rebind(areas)
    }

    /// Writes the queue's state to `to`, which is at most [`DriverState::max_bytes`] long. Whoever restores it goes on from
    /// here: this queue is done, and [`take_cookies`](Self::take_cookies) hands out what it keeps for its chains. Other
    /// queues of the driver go on.
    ///
    /// # Errors
    ///
    /// [`StateError::Length`]; [`StateError::Unpublished`] for chains that the device has not been shown;
    /// [`StateError::Untaken`] in the middle of a batch that came back in order.
    pub fn save<'b>(&mut self, to: &'b mut [u8]) -> Result<DriverState<'b>, StateError> {
        if self.ring.has_unpublished() {
            return Err(StateError::Unpublished);
        }
        if self.ring.has_untaken() {
            return Err(StateError::Untaken);
        }
        let slots = self.slots.as_mut();
        let mut state = DriverStateWriter::new(to);
        for (id, slot) in (0..self.ring.size()).zip(slots.iter()) {
            if slot.cookie.is_some() {
                state.push_chain(id, slot.descriptors, slot.writable)?;
            }
        }
        state.sort_chains(|id| slots.get(usize::from(id)).map_or(0, |slot| slot.number));
        for index in 0..state.in_flight() {
            self.ring
                .list_descriptors(slots, state.id(index), &mut state)?;
        }
        let Positions {
            available, used, ..
        } = self.ring.positions();
        state.finish(SavedDriver {
            kind: self.ring.kind(),
            size: self.ring.size(),
            available,
            used,
            head: self.ring.head(),
        })
    }

    /// Hands out what is lent, each with its chain's id, for a queue whose state was saved: nothing is written to shared
    /// memory, and the buffers stay with the device. To this queue they are not lent any more.
    pub fn take_cookies(&mut self, mut kept: impl FnMut(u16, T)) {
        for (id, slot) in (0..self.ring.size()).zip(self.slots.as_mut()) {
            if let Some(cookie) = slot.cookie.take() {
                kept(id, cookie);
            }
        }
    }

    /// A queue that goes on where a state was saved. `ring` lies over the same memory, or a copy of it, and `cookie` gives
    /// what to hand back with each chain that was lent, by its id.
    ///
    /// # Errors
    ///
    /// [`StateError`], naming what the state has wrong, for this ring; [`SetupError::Storage`].
    pub fn restore(
        mut ring: F,
        mut slots: S,
        state: &DriverState<'_>,
        mut cookie: impl FnMut(u16) -> Option<T>,
    ) -> Result<Self, StateError> {
        state.check(ring.kind(), ring.size())?;
        let storage = slots.as_mut();
        check_storage(storage.len(), ring.size())?;
        storage.fill_with(DriverSlot::new);
        let mut placed = 0;
        for chain in state.chains() {
            let id = chain.id;
            let cookie = cookie(id).ok_or(StateError::NoCookie { id })?;
            // The state's ids are below its size, which the storage reaches.
            if let Some(slot) = storage.get_mut(usize::from(id)) {
                slot.cookie = Some(cookie);
                slot.number = placed;
                slot.writable = chain.writable;
                slot.descriptors = chain.descriptors;
            }
            placed += 1;
        }
        ring.resume(storage, state)?;
        Ok(Self {
            ring,
            slots,
            placed,
            published: placed,
            fault: None,
            cookie: PhantomData,
        })
    }

    /// Checks what a chain of at most `limit` descriptors must always meet; returns how many of its bytes are writable.
    #[inline(always)]
    fn check_chain(
        &self,
        readable: &[Buffer],
        writable: &[Buffer],
        limit: u16,
    ) -> Result<u32, AddError> {
        if let Some(fault) = self.fault {
            return Err(AddError::Faulted(fault));
        }
        let needed = readable.len() + writable.len();
        if needed == 0 {
            return Err(AddError::Empty);
        }
        let limit = usize::from(limit);
        if needed > limit {
            return Err(AddError::TooManyDescriptors { needed, limit });
        }
        // At most 32768 lengths of 32 bits: no overflow.
        let sum = |buffers: &[Buffer]| buffers.iter().map(|b| u64::from(b.len)).sum::<u64>();
        let writable_bytes = sum(writable);
        if sum(readable) + writable_bytes > MAX_CHAIN_BYTES {
            return Err(AddError::TooManyBytes);
        }
        // 2^32 writable bytes are one more than a used length can say.
        Ok(u32::try_from(writable_bytes).unwrap_or(u32::MAX))
    }

    #[inline(always)]
    fn check_room(&self, needed: usize) -> Result<(), AddError> {
        let free = self.ring.free();
        if needed > usize::from(free) {
            return Err(AddError::Full { needed, free });
        }
        Ok(())
    }

    fn check_indirect(
        &self,
        readable: &[Buffer],
        writable: &[Buffer],
        table_bytes: usize,
    ) -> Result<u32, AddError> {
        let writable_bytes = self.check_chain(readable, writable, self.ring.size())?;
        if !self.ring.has_indirect() {
            return Err(AddError::IndirectNotNegotiated);
        }
        let needed = readable.len() + writable.len();
        let limit = table_bytes / DESCRIPTOR_BYTES;
        if needed > limit {
            return Err(AddError::TooManyDescriptors { needed, limit });
        }
        self.check_room(1)?;
        Ok(writable_bytes)
    }

    #[inline(always)]
    fn lend(&mut self, id: u16, writable: u32, cookie: T) {
        // Ids are the ring's own and below its size.
        if let Some(slot) = self.slots.as_mut().get_mut(usize::from(id)) {
            slot.writable = writable;
            slot.number = self.placed;
            slot.cookie = Some(cookie);
        }
        self.placed += 1;
    }

    #[cold]
    fn stop(&mut self, fault: DriverFault) -> DriverFault {
        self.ring.halt();
        *self.fault.get_or_insert(fault)
    }
}

#[cfg(feature = "std")]
impl<F: DriverFormat, T> DriverQueue<F, T, Vec<DriverSlot<T>>> {
    /// A queue at its start, with its storage on the heap.
    pub fn with_heap(mut ring: F) -> Self {
        let mut slots: Vec<_> = (0..ring.size()).map(|_| DriverSlot::new()).collect();
        let origin = ring.kind().origin();
        ring.start(&mut slots, origin);
        Self {
            ring,
            slots,
            placed: 0,
            published: 0,
            fault: None,
            cookie: PhantomData,
        }
    }

    /// As [`starting_at`](Self::starting_at), with its storage on the heap.
    ///
    /// # Errors
    ///
    /// [`SetupError::Position`].
    pub fn with_heap_at(ring: F, position: u16) -> Result<Self, SetupError> {
        let slots = (0..ring.size()).map(|_| DriverSlot::new()).collect();
        Self::starting_at(ring, slots, position)
    }
}

impl<F: DriverFormat, T, S> fmt::Debug for DriverQueue<F, T, S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DriverQueue")
            .field("size", &self.ring.size())
            .field("positions", &self.ring.positions())
            .field("fault", &self.fault)
            .finish_non_exhaustive()
    }
}
