//! A record of what a device has in flight, in shared memory, for the case that the device's process dies.
//!
//! A device that is killed takes its private record with it. What it shared is not enough to go on: a split ring does not
//! say which chains were taken and not returned, a packed ring's used descriptors overwrite those of chains in flight, and
//! its positions are nowhere. [`Recorded`] wraps a device ring and writes what is missing to memory of the device's own,
//! step by step, so that after a death between any two stores a third party ([`split::recover`](crate::split::recover),
//! [`packed::recover`](crate::packed::recover), [`tagged::recover`](crate::tagged::recover)) finds a state in which no chain is lost, and none that the driver was
//! shown comes up again. The idea is vhost-user's in-flight buffer; the layout is in docs/abi.md.
//!
//! Whoever does without pays nothing. A split ring in order needs no record: its used index says all.
//!
//! ```
//! use shmbus_ring::record::{Record, RecordLayout, Recorded};
//! use shmbus_ring::split::{Areas, DeviceRing, Layout, recover};
//! use shmbus_ring::{DeviceQueue, DeviceState};
//! use shmbus_shm::heap;
//! use shmbus_virtio::Features;
//!
//! # fn main() -> Result<(), Box<dyn core::error::Error>> {
//! let layout = Layout::new(16)?;
//! let areas = Areas::in_memories(layout, &heap(layout.driver_bytes()), &heap(layout.device_bytes()))?;
//! let ring = DeviceRing::new(areas.clone(), Features::empty())?;
//!
//! let memory = heap(RecordLayout::of(&ring).bytes());
//! let device = DeviceQueue::with_heap(Recorded::with_heap(ring, &memory)?);
//!
//! // The device is gone; whoever can read the memory works out where it was.
//! drop(device);
//! let record = Record::open(&memory)?;
//! let mut bytes = [0; DeviceState::max_bytes(16)];
//! let state = recover(&areas, &record, &mut bytes)?;
//! assert_eq!(state.positions().in_flight, 0);
//! # Ok(())
//! # }
//! ```

mod layout;
mod pool;
mod recorded;
mod recover;

pub use layout::{RECORD_VERSION, Record, RecordLayout};
pub use pool::RecordSlot;
pub use recorded::Recorded;
pub(crate) use recover::recover_chains;
