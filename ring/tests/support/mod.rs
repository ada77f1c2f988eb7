//! What several tests need: rings over some memory, and both sides of them.
#![allow(
    dead_code,
    unreachable_pub,
    reason = "a module of several test programs, of which each uses its part"
)]

pub mod heap_ring;
pub mod modelled;
pub mod packed_ring;
pub mod random;
pub mod stores;
pub mod tagged_ring;
pub mod widths;

use shmbus_virtio::Features;

/// In-order use of buffers needs `VERSION_1`.
pub const IN_ORDER: Features = Features::IN_ORDER.union(Features::VERSION_1);
