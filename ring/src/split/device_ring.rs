//! The device side of the split ring.

use core::sync::atomic::Ordering::{Acquire, Relaxed, Release, SeqCst};

use shmbus_shm::{AddressSpace, Notify, Window};
use shmbus_virtio::Features;

use super::areas::{Areas, Available, Descriptors, Used};
use super::indirect::walk_table;
use super::{NO_INTERRUPT, NO_NOTIFY, UNSUPPORTED};
use crate::descriptor::{Buffer, Descriptor, INDIRECT, NEXT, UsedElement};
use crate::device::{ChainBuilder, ChainShape, DeviceSlot, FoundChain, sealed};
use crate::event::{Recheck, is_crossed};
use crate::fault::{ChainError, DeviceFault, SetupError};
use crate::positions::Positions;

/// The device side of a split ring; a [`DeviceQueue`](crate::DeviceQueue) works over it.
///
/// It only ever *writes* the device area. A used element that would not change is not stored, and its line stays
/// shared between the two sides.
#[derive(Debug)]
pub struct DeviceRing<W> {
    descriptors: Descriptors<W>,
    available: Available<W>,
    used: Used<W>,
    size: u16,
    indirect: bool,
    event_idx: bool,
    /// The available index as it was last seen.
    available_seen: u16,
    /// The available entry that is taken next.
    last_available: u16,
    /// Where the next used element goes.
    next_used: u16,
    /// The used index as the driver sees it.
    published: u16,
    /// What `flags` or `avail_event` say, so that they are stored only when they change.
    notifications: Notifications,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Notifications {
    Disabled,
    Enabled,
    /// Enabled at this entry of the available ring (`VIRTIO_F_EVENT_IDX`).
    At(u16),
}

impl<W: Window> DeviceRing<W> {
    /// The device side over `areas`, with what was negotiated. Of `features`, `INDIRECT_DESC` and `EVENT_IDX` matter
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
            available_seen: 0,
            last_available: 0,
            next_used: 0,
            published: 0,
            notifications: Notifications::Enabled,
        })
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

impl<W: Window> sealed::DeviceFormat for DeviceRing<W> {
    const ORIGIN: u16 = 0;

    #[inline(always)]
    fn size(&self) -> u16 {
        self.size
    }

    fn check_position(&self, _: u16) -> Result<(), SetupError> {
        Ok(())
    }

    fn start(&mut self, _: &mut [DeviceSlot], position: u16) {
        self.available_seen = position;
        self.last_available = position;
        self.next_used = position;
        self.published = position;
        self.notifications = if self.event_idx {
            Notifications::At(position)
        } else {
            Notifications::Enabled
        };
        self.used.flags.store(0, Relaxed);
        self.used.avail_event.store(position, Relaxed);
        self.used.idx.store(position, Release);
    }

    #[inline]
    fn poll(&mut self) -> Result<u16, DeviceFault> {
        // Acquire: entries, descriptors and the buffers' bytes come with the index.
        let found = self.available.idx.load(Acquire);
        let available = found.wrapping_sub(self.last_available);
        let seen = self.available_seen.wrapping_sub(self.last_available);
        // An honest driver has no more chains out than the queue has entries, from the last one that it saw used on.
        let outstanding = self.last_available.wrapping_sub(self.published);
        if u32::from(available) + u32::from(outstanding) > u32::from(self.size) || available < seen
        {
            return Err(DeviceFault::AvailableIndex {
                found,
                expected: self.last_available,
                outstanding,
                size: self.size,
            });
        }
        self.available_seen = found;
        Ok(available)
    }

    #[inline(always)]
    fn peek(
        &self,
        space: &impl AddressSpace,
        segments: &mut [Buffer],
    ) -> Result<Option<FoundChain>, DeviceFault> {
        let position = self.last_available;
        if position == self.available_seen {
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
        match self.walk(space, head, segments) {
            Ok(shape) => Ok(Some(FoundChain {
                head,
                position,
                entries: 1,
                shape,
            })),
            Err(reason) => Err(DeviceFault::Chain {
                position,
                head,
                reason,
            }),
        }
    }

    #[inline(always)]
    fn advance(&mut self, _: u16) {
        self.last_available = self.last_available.wrapping_add(1);
    }

    #[inline(always)]
    fn place_used(&mut self, slots: &mut [DeviceSlot], element: UsedElement, _: u16) {
        let entry = self.next_used & (self.size - 1);
        let shadow = &mut slots[usize::from(entry)].used;
        if *shadow != element {
            *shadow = element;
            self.used.ring.store(entry, element);
        }
        self.next_used = self.next_used.wrapping_add(1);
    }

    #[inline]
    fn publish(&mut self) -> Notify {
        let (old, new) = (self.published, self.next_used);
        if old == new {
            return Notify::No;
        }
        self.published = new;
        // Release: whoever sees the index sees the used elements before it, and what was written into buffers.
        self.used.idx.store(new, Release);
        // Between the index and the look at what the driver asked for: pairs with the fence of its
        // `enable_notifications`. Either we see its wish, or it sees our index.
        self.used.idx.fence(SeqCst);
        let wanted = if self.event_idx {
            is_crossed(self.available.used_event.load(Relaxed), new, old)
        } else {
            self.available.flags.load(Relaxed) & NO_INTERRUPT == 0
        };
        if wanted { Notify::Yes } else { Notify::No }
    }

    fn halt(&mut self) {
        self.available_seen = self.last_available;
    }

    fn disable_notifications(&mut self) {
        // With EVENT_IDX `flags` stays 0, and `avail_event` is left behind: the driver tells once in 65536 chains.
        if !self.event_idx && self.notifications == Notifications::Enabled {
            self.used.flags.store(NO_NOTIFY, Relaxed);
            self.notifications = Notifications::Disabled;
        }
    }

    fn enable_notifications(&mut self) -> Recheck {
        let wanted = if self.event_idx {
            Notifications::At(self.last_available)
        } else {
            Notifications::Enabled
        };
        if self.notifications != wanted {
            self.notifications = wanted;
            match wanted {
                Notifications::At(event) => self.used.avail_event.store(event, Relaxed),
                _ => self.used.flags.store(0, Relaxed),
            }
        }
        // Between the wish and the look at the index: pairs with the fence of the driver's `publish`.
        self.used.idx.fence(SeqCst);
        if self.available.idx.load(Relaxed) == self.last_available {
            Recheck::Empty
        } else {
            Recheck::Ready
        }
    }

    fn positions(&self) -> Positions {
        Positions {
            available: self.last_available,
            used: self.published,
            in_flight: self.last_available.wrapping_sub(self.next_used),
        }
    }
}
