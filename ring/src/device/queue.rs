//! The device side of a queue.

use core::fmt;

use shmbus_shm::{AddressError, AddressSpace, Notify};

use super::{Chain, ChainHead, Completed, DeviceFormat, DeviceSlot};
use crate::descriptor::Buffer;
use crate::event::Recheck;
use crate::fault::{
    ChainError, CompleteError, DeviceFault, SetupError, Uncompleted, check_storage,
};
use crate::kept::Kept;
use crate::kind::RingKind;
use crate::notification::NotificationData;
use crate::positions::Positions;
use crate::state::{DeviceState, DeviceStateWriter, SavedChain, SavedDevice, StateError};

/// The device side of a queue: takes chains of buffers that a driver lends, and returns them.
///
/// Batches are the rule: [`poll`](Self::poll) once, [`take`](Self::take) what it found,
/// [`complete`](Self::complete) chains in any order, and [`publish`](Self::publish) them together. What a driver makes
/// available meanwhile waits for the next poll, so a batch is never longer than the queue's size.
///
/// What the driver wrote is read once and checked. A wrong index or a malformed chain is latched as a
/// [`DeviceFault`]: the queue stops until [`reset`](Self::reset); the chain was not taken, so nothing is lost.
///
/// # Work
///
/// Whatever the driver does, a call accesses the ring's memory so often at most, in every format:
///
/// | call | loads | stores |
/// | --- | --- | --- |
/// | [`poll`](Self::poll) | 1 | |
/// | [`take`](Self::take) | 2n + 1 | 1 |
/// | [`complete`](Self::complete) | | 2 |
/// | [`publish`](Self::publish) | 2 | 2b + 1 |
/// | [`enable_notifications`](Self::enable_notifications) | 1 | 1 |
/// | [`disable_notifications`](Self::disable_notifications) | | 1 |
///
/// n is how many descriptors the chain has. That is no more than the queue's size and the length of the scratch memory
/// allow; one more is looked at before a longer chain is refused. Of an indirect table 16 descriptors are copied at a
/// time, and that n times at most: 256n bytes. b is how many chains are shown. The private record is looked at as
/// often, and nothing is retried. Only [`new`](Self::new) and [`reset`](Self::reset) look at all of it.
///
/// `F` is the ring format, `S` the storage: an array, a slice or a vector of at least as many slots as the queue has
/// entries.
pub struct DeviceQueue<F, S> {
    ring: F,
    slots: S,
    fault: Option<DeviceFault>,
    in_flight: Kept,
    life: u32,
}

impl<F: DeviceFormat, S: AsMut<[DeviceSlot]>> DeviceQueue<F, S> {
    /// A queue at its start, with nothing used and notifications enabled. Formats the memory that the device writes.
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
        slots.as_mut().fill(DeviceSlot::new());
        ring.start(slots.as_mut(), position);
        Ok(Self {
            ring,
            slots,
            fault: None,
            in_flight: Kept::default(),
            life: 0,
        })
    }

    /// Looks how far the driver has come, with one load; returns how many chains [`take`](Self::take) will hand out
    /// at least: 0 only if there are none. The split ring knows their number. The packed ring knows of the next one
    /// alone, and `take` finds those behind it, at most as many as the queue has entries.
    ///
    /// # Errors
    ///
    /// The latched [`DeviceFault`].
    #[inline]
    pub fn poll(&mut self) -> Result<u16, DeviceFault> {
        if let Some(fault) = self.fault {
            return Err(fault);
        }
        self.ring.poll().map_err(|fault| self.stop(fault))
    }

    /// As [`poll`](Self::poll), for a device that has nothing else to do and looks again and again.
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
    /// The latched [`DeviceFault`].
    #[inline]
    pub fn poll_spinning(&mut self) -> Result<u16, DeviceFault> {
        if let Some(fault) = self.fault {
            return Err(fault);
        }
        self.ring.poll_spinning().map_err(|fault| self.stop(fault))
    }

    /// Takes the next chain of the batch that the last [`poll`](Self::poll) began, if any is left.
    ///
    /// `segments` is scratch memory for the chain's buffers: it bounds the descriptors of a chain that this device
    /// takes, where that is less than the queue's size. `space` is where indirect tables are found.
    ///
    /// # Errors
    ///
    /// The latched [`DeviceFault`].
    // A chain is a dozen words: inlined, they stay in registers, which halves the time.
    #[inline(always)]
    pub fn take<'s>(
        &mut self,
        space: &impl AddressSpace,
        segments: &'s mut [Buffer],
    ) -> Result<Option<Chain<'s>>, DeviceFault> {
        let found = match self.ring.peek(space, segments) {
            Ok(Some(found)) => found,
            Ok(None) => return self.fault.map_or(Ok(None), Err),
            Err(fault) => return Err(self.stop(fault)),
        };
        let (head, position) = (found.head, found.position);
        // The format checked that the head is below the queue's size, which the storage reaches.
        match self.slots.as_mut().get_mut(usize::from(head)) {
            Some(slot) if slot.entries == 0 => {
                slot.entries = found.entries;
                slot.position = position;
            }
            _ => return Err(self.stop(DeviceFault::HeadInFlight { position, head })),
        }
        self.in_flight.add(1);
        self.ring.advance(&found);
        Ok(Some(Chain::new(found, self.life, segments)))
    }

    /// Returns a chain to the driver, who sees it after the next [`publish`](Self::publish). `written` is how many
    /// bytes were written, from the first writable byte on without a gap.
    ///
    /// # Errors
    ///
    /// [`Uncompleted`], with the chain, if it is not this queue's, or `written` is more than it has writable bytes:
    /// mistakes of the device, which change nothing in the queue.
    #[inline]
    pub fn complete(
        &mut self,
        chain: impl Into<ChainHead>,
        written: u32,
    ) -> Result<(), Uncompleted> {
        let chain = chain.into();
        let head = chain.head;
        if u64::from(written) > chain.writable_bytes {
            let reason = CompleteError::TooLong {
                head,
                written,
                writable: chain.writable_bytes,
            };
            return Err(Uncompleted { reason, chain });
        }
        let slots = self.slots.as_mut();
        let entries = match slots.get_mut(usize::from(head)) {
            Some(slot) if slot.entries != 0 && chain.life == self.life => {
                core::mem::take(&mut slot.entries)
            }
            _ => {
                let reason = CompleteError::NotTaken { head };
                return Err(Uncompleted { reason, chain });
            }
        };
        self.in_flight.sub(1);
        let completed = Completed {
            head,
            position: chain.position,
            entries,
            written,
            completely: u64::from(written) == chain.writable_bytes,
        };
        self.ring.place_used(slots, completed);
        Ok(())
    }

    /// Shows the driver all chains completed since the last call, together, and answers whether it must be told.
    #[inline]
    pub fn publish(&mut self) -> Notify {
        self.expose();
        self.ring.notify()
    }

    /// Shows all chains completed since the last call, as [`publish`](Self::publish) does, to a driver that looks by
    /// itself: whether it must be told is left open. That saves a full barrier, and a look at what the driver asks for.
    /// The next `publish` answers for what was exposed before, too: a driver that may sleep needs one, in the end.
    #[inline]
    pub fn expose(&mut self) {
        let slots = self.slots.as_mut();
        let stepwise = self.ring.is_stepwise();
        let [mut from, mut to] = self.ring.settle(slots, stepwise);
        self.ring.show();
        while stepwise && from != to {
            [from, to] = self.ring.settle(slots, stepwise);
            self.ring.show();
        }
    }

    /// Stops the queue because a buffer of `chain`, which was taken, cannot be accessed: the driver gave a wrong
    /// address. Returns the fault that is now latched.
    pub fn fail(&mut self, chain: impl Into<ChainHead>, reason: AddressError) -> DeviceFault {
        let chain = chain.into();
        self.stop(DeviceFault::Chain {
            position: chain.position,
            head: chain.head,
            reason: ChainError::Address(reason),
        })
    }

    /// Asks the driver not to tell of available chains, for a device that looks anyway. It may tell all the same.
    pub fn disable_notifications(&mut self) {
        self.ring.disable_notifications();
    }

    /// Asks the driver to tell of the next available chain; sleep only if the answer is [`Recheck::Empty`].
    pub fn enable_notifications(&mut self) -> Recheck {
        self.ring.enable_notifications()
    }

    /// Which type of ring the queue is.
    pub fn kind(&self) -> RingKind {
        self.ring.kind()
    }

    /// The queue's size, in entries.
    pub fn size(&self) -> u16 {
        self.ring.size()
    }

    /// How far this side has come.
    pub fn positions(&self) -> Positions {
        Positions {
            in_flight: self.in_flight.get(),
            ..self.ring.positions()
        }
    }

    /// How many entries a notification says are available and were not taken; `None` if no driver of this ring can
    /// have come to where it says, or it is older than what was taken since. Nothing is looked at, and nothing changes:
    /// it is a hint of how much there is, and [`poll`](Self::poll) tells what is true.
    pub fn announced(&self, notification: NotificationData) -> Option<u16> {
        let taken = self.ring.positions().available;
        self.kind()
            .entries_between(taken, notification.available, self.size())
    }

    /// Why the queue has stopped, if it has.
    pub fn fault(&self) -> Option<DeviceFault> {
        self.fault
    }

    /// Starts over. Chains taken before can no longer be completed; the driver takes back what it lent.
    pub fn reset(&mut self) {
        let slots = self.slots.as_mut();
        slots.fill(DeviceSlot::new());
        self.ring.start(slots, self.ring.kind().origin());
        self.fault = None;
        self.in_flight = Kept::new(0);
        self.life = self.life.wrapping_add(1);
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

    /// Writes the queue's state to `to`, which is at most [`DeviceState::max_bytes`] long. Whoever restores it goes on from
    /// here: this queue is done, and is dropped. Other queues of the device go on.
    ///
    /// Chains that were taken and not completed are part of the state. On a ring in order they are not: there all chains
    /// that are not yet returned, completed or not, are taken anew.
    ///
    /// # Errors
    ///
    /// [`StateError::Length`]; [`StateError::Unpublished`] for completed chains that the driver has not been shown;
    /// [`StateError::Overwritten`] for a chain in flight on a packed or tagged ring behind which another was completed.
    pub fn save<'b>(&mut self, to: &'b mut [u8]) -> Result<DeviceState<'b>, StateError> {
        if self.ring.has_unpublished() {
            return Err(StateError::Unpublished);
        }
        let mut state = DeviceStateWriter::new(to);
        let Positions {
            mut available,
            used,
            ..
        } = self.ring.positions();
        if self.ring.kind().in_order {
            available = used;
        } else {
            for (id, slot) in (0..self.ring.size()).zip(self.slots.as_mut()) {
                if slot.entries != 0 {
                    state.push_chain(id, slot.position, slot.entries)?;
                }
            }
            state.sort_chains(|chain| self.ring.age(chain.position));
            for index in 0..state.in_flight() {
                self.ring.copy_descriptors(state.chain(index), &mut state)?;
            }
        }
        state.finish(SavedDevice {
            kind: self.ring.kind(),
            size: self.ring.size(),
            available,
            used,
        })
    }

    /// A queue that goes on where a state was saved. `ring` lies over the same memory, or a copy of it. The state's chains
    /// are in flight: [`retake`](Self::retake) hands each of them out again.
    ///
    /// # Errors
    ///
    /// [`StateError`], naming what the state has wrong, for this ring; [`SetupError::Storage`].
    pub fn restore(mut ring: F, mut slots: S, state: &DeviceState<'_>) -> Result<Self, StateError> {
        state.check(ring.kind(), ring.size())?;
        let storage = slots.as_mut();
        check_storage(storage.len(), ring.size())?;
        storage.fill(DeviceSlot::new());
        for chain in state.chains() {
            // The state's ids are below its size, which the storage reaches.
            if let Some(slot) = storage.get_mut(usize::from(chain.id)) {
                slot.entries = chain.entries;
                slot.position = chain.position;
            }
        }
        ring.resume(storage, state)?;
        Ok(Self {
            ring,
            slots,
            fault: None,
            in_flight: Kept::new(state.positions().in_flight),
            life: 0,
        })
    }

    /// Hands out again a chain that was in flight when the queue's state was saved, for one chain after the other of
    /// [`DeviceState::chains`]; nothing if the queue has no such chain in flight. Its descriptors are read and checked as
    /// in [`take`](Self::take).
    ///
    /// # Errors
    ///
    /// The latched [`DeviceFault`].
    pub fn retake<'s>(
        &mut self,
        chain: SavedChain<'_>,
        space: &impl AddressSpace,
        segments: &'s mut [Buffer],
    ) -> Result<Option<Chain<'s>>, DeviceFault> {
        if let Some(fault) = self.fault {
            return Err(fault);
        }
        match self.slots.as_mut().get(usize::from(chain.id)) {
            Some(slot) if slot.entries == chain.entries && slot.position == chain.position => {}
            _ => return Ok(None),
        }
        match self.ring.walk_again(space, chain, segments) {
            Ok(found) => Ok(Some(Chain::new(found, self.life, segments))),
            Err(fault) => Err(self.stop(fault)),
        }
    }

    /// Latches the first fault.
    #[cold]
    fn stop(&mut self, fault: DeviceFault) -> DeviceFault {
        self.ring.halt();
        *self.fault.get_or_insert(fault)
    }
}

#[cfg(feature = "std")]
impl<F: DeviceFormat> DeviceQueue<F, Vec<DeviceSlot>> {
    /// A queue at its start, with its storage on the heap.
    pub fn with_heap(mut ring: F) -> Self {
        let mut slots = vec![DeviceSlot::new(); usize::from(ring.size())];
        let origin = ring.kind().origin();
        ring.start(&mut slots, origin);
        Self {
            ring,
            slots,
            fault: None,
            in_flight: Kept::default(),
            life: 0,
        }
    }

    /// As [`starting_at`](Self::starting_at), with its storage on the heap.
    ///
    /// # Errors
    ///
    /// [`SetupError::Position`].
    pub fn with_heap_at(ring: F, position: u16) -> Result<Self, SetupError> {
        let slots = vec![DeviceSlot::new(); usize::from(ring.size())];
        Self::starting_at(ring, slots, position)
    }
}

impl<F: DeviceFormat, S> fmt::Debug for DeviceQueue<F, S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DeviceQueue")
            .field("size", &self.ring.size())
            .field("positions", &self.ring.positions())
            .field("in_flight", &self.in_flight.get())
            .field("fault", &self.fault)
            .finish_non_exhaustive()
    }
}
