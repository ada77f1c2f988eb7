//! Our driver's queue.

use shmbus_ring::{AddError, Buffer, DESCRIPTOR_BYTES, DriverFormat, DriverQueue, DriverSlot};
use shmbus_shm::{Access, AddressSpace, SharedBytes};

use super::traffic::Dice;

/// A queue of ours, as its user sees it: with a number for a cookie.
pub trait Lending {
    fn size(&self) -> u16;

    /// Lends a chain, with the descriptors in a table at that address if there is one; false if there is no room now.
    fn add(
        &mut self,
        readable: &[Buffer],
        writable: &[Buffer],
        table: Option<u64>,
        space: &impl AddressSpace,
        cookie: u64,
    ) -> bool;

    fn publish(&mut self) -> bool;

    /// Looks for used chains, if none is left that was found; returns one's cookie, and how much was written.
    fn take(&mut self) -> Option<(u64, u32)>;

    fn disable_notifications(&mut self);

    fn enable_notifications(&mut self) -> bool;
}

/// Our queue in Rust. Its user does now this and now that.
pub struct OurQueue<D> {
    queue: DriverQueue<D, u64, Vec<DriverSlot<u64>>>,
    dice: Dice,
}

impl<D> OurQueue<D> {
    pub fn new(queue: DriverQueue<D, u64, Vec<DriverSlot<u64>>>) -> Self {
        Self {
            queue,
            dice: Dice::new(2),
        }
    }
}

impl<D: DriverFormat> Lending for OurQueue<D> {
    fn size(&self) -> u16 {
        self.queue.size()
    }

    fn add(
        &mut self,
        readable: &[Buffer],
        writable: &[Buffer],
        table: Option<u64>,
        space: &impl AddressSpace,
        cookie: u64,
    ) -> bool {
        let table_bytes = DESCRIPTOR_BYTES * (readable.len() + writable.len());
        let table = table.map(|address| {
            let table = space.translate(address, table_bytes as u32, Access::Write);
            (table.unwrap(), address)
        });
        let result = match table {
            // Where a table would lie in two regions it has no one piece of memory to be written to.
            Some((table, address)) if table.len() == table_bytes => self
                .queue
                .add_indirect(readable, writable, &table, address, cookie),
            _ => self.queue.add(readable, writable, cookie),
        };
        match result {
            Ok(()) => true,
            Err(rejected) => {
                assert!(matches!(rejected.reason, AddError::Full { .. }));
                false
            }
        }
    }

    fn publish(&mut self) -> bool {
        self.queue.publish().is_needed()
    }

    fn take(&mut self) -> Option<(u64, u32)> {
        let used = match self.queue.take().unwrap() {
            Some(used) => used,
            None => {
                let found = if self.dice.once_in(2) {
                    self.queue.poll_spinning()
                } else {
                    self.queue.poll()
                };
                if found.unwrap() == 0 {
                    return None;
                }
                self.queue.take().unwrap()?
            }
        };
        Some((used.cookie, used.written))
    }

    fn disable_notifications(&mut self) {
        self.queue.disable_notifications();
    }

    /// Now and then for several chains at a time: the device has to find the event inside a batch.
    fn enable_notifications(&mut self) -> bool {
        let recheck = if self.dice.once_in(2) {
            let count = 1 + self.dice.below(8) as u16;
            self.queue.enable_notifications_after(count)
        } else {
            self.queue.enable_notifications()
        };
        recheck.is_empty()
    }
}
