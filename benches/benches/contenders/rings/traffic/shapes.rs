//! What an element consists of.

use shmbus_ring::{Buffer, DriverFormat};
use shmbus_shm::{Access, AddressSpace, Mapped, OffsetSpace};

use super::super::{BUFFER_BYTES, HONEST, SIZE};
use super::{COOKIE, Driver};

/// Where an element's buffers lie, and their table: by its number, which comes round.
const BUFFERS_BYTES: u64 = 4 * BUFFER_BYTES as u64;
const TABLE_BYTES: u64 = 4 * 16;
const TABLES: u64 = SIZE as u64 * BUFFERS_BYTES;

/// How many bytes all of them need.
pub(super) const BYTES: u64 = TABLES + SIZE as u64 * TABLE_BYTES;

/// What the driver lends for an element.
pub(super) trait Shape {
    /// Places the element with this number; whether there was room.
    fn place<D: DriverFormat>(&self, driver: &mut Driver<D>, number: u64) -> bool;
}

fn buffer(number: u64, index: u64) -> Buffer {
    let element = number % u64::from(SIZE);
    let offset = element * BUFFERS_BYTES + index * u64::from(BUFFER_BYTES);
    Buffer::new(offset, BUFFER_BYTES)
}

/// A buffer to write.
pub(super) struct One;

impl Shape for One {
    #[inline(always)]
    fn place<D: DriverFormat>(&self, driver: &mut Driver<D>, number: u64) -> bool {
        driver.add(&[], &[buffer(number, 0)], COOKIE).is_ok()
    }
}

/// A buffer to read and one to write.
pub(super) struct Chain2;

impl Shape for Chain2 {
    #[inline(always)]
    fn place<D: DriverFormat>(&self, driver: &mut Driver<D>, number: u64) -> bool {
        let (read, write) = (buffer(number, 0), buffer(number, 1));
        driver.add(&[read], &[write], COOKIE).is_ok()
    }
}

/// Two buffers to read and two to write, in a table of the element's own. Elements come back in order, so the table is
/// free when its number comes round.
pub(super) struct Indirect4 {
    space: OffsetSpace<Mapped>,
}

impl Indirect4 {
    pub(super) fn new(space: OffsetSpace<Mapped>) -> Self {
        Self { space }
    }
}

impl Shape for Indirect4 {
    #[inline(always)]
    fn place<D: DriverFormat>(&self, driver: &mut Driver<D>, number: u64) -> bool {
        let address = TABLES + number % u64::from(SIZE) * TABLE_BYTES;
        let table = self
            .space
            .translate(address, TABLE_BYTES as u32, Access::Write)
            .expect(HONEST);
        let buffers = [0, 1, 2, 3].map(|index| buffer(number, index));
        let (read, write) = buffers.split_at(2);
        driver
            .add_indirect(read, write, &table, address, COOKIE)
            .is_ok()
    }
}
