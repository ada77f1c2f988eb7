//! The driver side of the split ring.

use core::sync::atomic::Ordering::{Acquire, Relaxed, Release, SeqCst};

use shmbus_shm::{Notify, Window};
use shmbus_virtio::Features;

use super::areas::{Areas, Available, Descriptors, Used};
use super::{NO_INTERRUPT, NO_NOTIFY, UNSUPPORTED};
use crate::descriptor::{Buffer, DESCRIPTOR_BYTES, Descriptor, INDIRECT, UsedElement, describe};
use crate::driver::{DriverSlot, sealed};
use crate::event::{Recheck, is_crossed};
use crate::fault::{DriverFault, SetupError};
use crate::positions::Positions;

/// No descriptor has this index: the available entry's content is not known.
const UNKNOWN: u16 = u16::MAX;

/// The driver side of a split ring; a [`DriverQueue`](crate::DriverQueue) works over it.
///
/// It only ever *writes* the descriptor area and the driver area: the list of free descriptors and all positions are
/// private. Free descriptors are used again in the order in which they came back, so that the available ring repeats
/// itself while the device completes in order; an entry that would not change is not stored, and its line stays
/// shared between the two sides.
#[derive(Debug)]
pub struct DriverRing<W> {
    descriptors: Descriptors<W>,
    available: Available<W>,
    used: Used<W>,
    size: u16,
    indirect: bool,
    event_idx: bool,
    free_head: u16,
    free_tail: u16,
    free: u16,
    /// Where the next chain goes in the available ring.
    next_available: u16,
    /// The available index as the device sees it.
    published: u16,
    /// The used index as it was last seen.
    used_seen: u16,
    /// The used entry that is taken next.
    last_used: u16,
    /// What `flags` or `used_event` say, so that they are stored only when they change.
    notifications: Notifications,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Notifications {
    Disabled,
    Enabled,
    /// Enabled at this entry of the used ring (`VIRTIO_F_EVENT_IDX`).
    At(u16),
}

impl<W: Window> DriverRing<W> {
    /// The driver side over `areas`, with what was negotiated. Of `features`, `INDIRECT_DESC` and `EVENT_IDX` matter
    /// here.
    ///
    /// # Errors
    ///
    /// [`SetupError::Unsupported`] if one of [`UNSUPPORTED`] was negotiated.
    pub fn new(areas: Areas<W>, features: Features) -> Result<Self, SetupError> {
        SetupError::check_features(features, UNSUPPORTED)?;
        Ok(Self {
            descriptors: areas.descriptors,
            available: areas.available,
            used: areas.used,
            size: areas.size,
            indirect: features.contains(Features::INDIRECT_DESC),
            event_idx: features.contains(Features::EVENT_IDX),
            free_head: 0,
            free_tail: 0,
            free: 0,
            next_available: 0,
            published: 0,
            used_seen: 0,
            last_used: 0,
            notifications: Notifications::Enabled,
        })
    }

    /// Writes a chain over free descriptors; returns its head.
    #[inline(always)]
    fn place_chain<T>(
        &mut self,
        slots: &mut [DriverSlot<T>],
        chain: impl Iterator<Item = (Buffer, u16)>,
    ) -> u16 {
        let head = self.free_head;
        let mut last = head;
        let mut following = head;
        let mut count = 0;
        for (buffer, flags) in chain {
            last = following;
            following = slots[usize::from(last)].next;
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
        self.free_head = following;
        self.free -= count;
        let slot = &mut slots[usize::from(head)];
        slot.descriptors = count;
        slot.last = last;

        let entry = self.next_available & (self.size - 1);
        let shadow = &mut slots[usize::from(entry)].available;
        if *shadow != head {
            *shadow = head;
            self.available.ring.store(usize::from(entry), head, Relaxed);
        }
        self.next_available = self.next_available.wrapping_add(1);
        head
    }
}

impl<W: Window> sealed::DriverFormat for DriverRing<W> {
    const ORIGIN: u16 = 0;

    #[inline(always)]
    fn size(&self) -> u16 {
        self.size
    }

    fn check_position(&self, _: u16) -> Result<(), SetupError> {
        Ok(())
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
        for (index, slot) in (0..self.size).zip(slots.iter_mut()) {
            slot.next = (index + 1) & (self.size - 1);
            slot.available = UNKNOWN;
        }
        self.free_head = 0;
        self.free_tail = self.size - 1;
        self.free = self.size;
        self.next_available = position;
        self.published = position;
        self.used_seen = position;
        self.last_used = position;
        self.notifications = if self.event_idx {
            Notifications::At(position)
        } else {
            Notifications::Enabled
        };
        self.available.flags.store(0, Relaxed);
        self.available.used_event.store(position, Relaxed);
        self.available.idx.store(position, Release);
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

    fn indirect_row(index: u16, buffer: Buffer, flags: u16) -> [u8; DESCRIPTOR_BYTES] {
        Descriptor {
            buffer,
            flags,
            next: Descriptor::next_field(flags, index + 1),
        }
        .to_bytes()
    }

    #[inline]
    fn publish(&mut self) -> Notify {
        let (old, new) = (self.published, self.next_available);
        if old == new {
            return Notify::No;
        }
        self.published = new;
        // Release: whoever sees the index sees the entries and the descriptors before it, and the buffers' bytes.
        self.available.idx.store(new, Release);
        // Between the index and the look at what the device asked for: pairs with the fence of its
        // `enable_notifications`. Either we see its wish, or it sees our index.
        self.available.idx.fence(SeqCst);
        let wanted = if self.event_idx {
            is_crossed(self.used.avail_event.load(Relaxed), new, old)
        } else {
            self.used.flags.load(Relaxed) & NO_NOTIFY == 0
        };
        if wanted { Notify::Yes } else { Notify::No }
    }

    #[inline]
    fn poll(&mut self) -> Result<u16, DriverFault> {
        // Acquire: the used elements, and what the device wrote into buffers, come with the index.
        let found = self.used.idx.load(Acquire);
        let used = found.wrapping_sub(self.last_used);
        let published = self.published.wrapping_sub(self.last_used);
        let seen = self.used_seen.wrapping_sub(self.last_used);
        if used > published || used < seen {
            return Err(DriverFault::UsedIndex {
                found,
                expected: self.last_used,
                published,
            });
        }
        self.used_seen = found;
        Ok(used)
    }

    #[inline(always)]
    fn peek_used(&self) -> Option<(u16, UsedElement)> {
        (self.last_used != self.used_seen)
            .then(|| (self.last_used, self.used.ring.load(self.last_used)))
    }

    #[inline(always)]
    fn release<T>(&mut self, slots: &mut [DriverSlot<T>], id: u16) {
        self.last_used = self.last_used.wrapping_add(1);
        let (count, last) = {
            let slot = &slots[usize::from(id)];
            (slot.descriptors, slot.last)
        };
        if self.free == 0 {
            self.free_head = id;
        } else {
            slots[usize::from(self.free_tail)].next = id;
        }
        self.free_tail = last;
        self.free += count;
    }

    fn halt(&mut self) {
        self.used_seen = self.last_used;
    }

    fn disable_notifications(&mut self) {
        // With EVENT_IDX `flags` stays 0, and `used_event` is left behind: the device tells once in 65536 chains.
        if !self.event_idx && self.notifications == Notifications::Enabled {
            self.available.flags.store(NO_INTERRUPT, Relaxed);
            self.notifications = Notifications::Disabled;
        }
    }

    fn enable_notifications(&mut self, count: u16) -> Recheck {
        let wanted = if self.event_idx {
            Notifications::At(self.last_used.wrapping_add(count - 1))
        } else {
            Notifications::Enabled
        };
        if self.notifications != wanted {
            self.notifications = wanted;
            match wanted {
                Notifications::At(event) => self.available.used_event.store(event, Relaxed),
                _ => self.available.flags.store(0, Relaxed),
            }
        }
        // Between the wish and the look at the index: pairs with the fence of the device's `publish`.
        self.available.idx.fence(SeqCst);
        let used = self.used.idx.load(Relaxed).wrapping_sub(self.last_used);
        let threshold = if self.event_idx { count } else { 1 };
        if used < threshold {
            Recheck::Empty
        } else {
            Recheck::Ready
        }
    }

    fn positions(&self) -> Positions {
        Positions {
            available: self.published,
            used: self.last_used,
            in_flight: self.next_available.wrapping_sub(self.last_used),
        }
    }
}
