//! Rings: who does the work of `FORMAT/WORK`, and what that is.
//!
//! A ring has 256 entries. On one thread ([`device`], [`driver`]) ours runs beside its peers, crates as ours is. On two
//! threads ([`traffic`]) a contender is ours alone: its peers are programs, or its own plain run.

mod device;
mod driver;
mod format;
mod memory;
mod traffic;

use shmbus_benches::Comparison;

use format::{Packed, PackedInOrder, Split, SplitInOrder, Tagged};

/// A ring's entries.
const SIZE: u16 = 256;

/// Buffers have as many bytes.
const BUFFER_BYTES: u32 = 64;

const OURS: &str = "shmbus";

const HONEST: &str = "the other side makes no mistakes";

/// All that there is.
pub(crate) fn all() -> Vec<Comparison> {
    let mut all = Vec::new();
    device::add(&mut all);
    driver::add(&mut all);
    traffic::add::<Split>(&mut all);
    traffic::add::<SplitInOrder>(&mut all);
    traffic::add::<Packed>(&mut all);
    traffic::add::<PackedInOrder>(&mut all);
    traffic::add::<Tagged>(&mut all);
    all
}
