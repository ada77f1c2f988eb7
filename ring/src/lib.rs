//! Virtqueues over any window: driver and device side.
//!
//! A virtqueue carries chains of buffers from a driver to a device and back: every element counts, in order of
//! arrival. The two sides do not trust each other. [`DriverQueue`] keeps a private record of all that it lent and checks
//! each answer against it; [`DeviceQueue`] reads what the driver wrote once, checks it, and hands out chains whose
//! bytes are reached through an [`AddressSpace`](shmbus_shm::AddressSpace), in place. Whatever the other side writes, a
//! call does a bounded amount of work and ends in a result or in a typed fault that stays until the queue is reset.
//!
//! No queue owns a signal: an operation after which the other side may have to be woken answers
//! [`Notify`](shmbus_shm::Notify). No queue allocates: its private record lies in storage that is passed in (on the
//! heap by `with_heap`, with the feature `std`). The format of the shared memory is a parameter: [`split`] is the split
//! virtqueue of virtio 1.x, whose areas each have one side that writes them; [`packed`] the packed virtqueue, one ring
//! in memory that both sides write; [`tagged`] a ring of shmbus's own, without indices. [`any`] leaves it to what is
//! negotiated at run time.
//!
//! ```
//! use shmbus_ring::split::{Areas, DeviceRing, DriverRing, Layout};
//! use shmbus_ring::{Buffer, DeviceQueue, DeviceSlot, DriverQueue, DriverSlot};
//! use shmbus_shm::{Bytes, OffsetSpace, heap};
//! use shmbus_virtio::Features;
//!
//! # fn main() -> Result<(), Box<dyn core::error::Error>> {
//! // The driver writes one memory, the device another; buffers lie in a third.
//! let layout = Layout::new(16)?;
//! let (driver_memory, device_memory) = (heap(layout.driver_bytes()), heap(layout.device_bytes()));
//! let areas = Areas::in_memories(layout, &driver_memory, &device_memory)?;
//! let buffers = OffsetSpace::new(heap(4096));
//!
//! let mut driver = DriverQueue::new(
//!     DriverRing::new(areas.clone(), Features::EVENT_IDX)?,
//!     [const { DriverSlot::new() }; 16],
//! )?;
//! let mut device = DeviceQueue::new(
//!     DeviceRing::new(areas, Features::EVENT_IDX)?,
//!     [DeviceSlot::new(); 16],
//! )?;
//!
//! // The driver lends four bytes to read and room for an answer. The cookie comes back with them.
//! Bytes::new(buffers.window(), 0, 4)?.copy_from(0, b"ping");
//! driver.add(&[Buffer::new(0, 4)], &[Buffer::new(1024, 64)], "request 1")?;
//! assert!(driver.publish().is_needed());
//!
//! // The device takes what is there, and returns it.
//! let mut segments = [Buffer::default(); 16];
//! device.poll()?;
//! while let Some(chain) = device.take(&buffers, &mut segments)? {
//!     let mut request = [0; 4];
//!     chain.read(&buffers, 0, &mut request)?;
//!     assert_eq!(&request, b"ping");
//!     let written = chain.write(&buffers, 0, b"pong!")?;
//!     device.complete(chain, written as u32)?;
//! }
//! assert!(device.publish().is_needed());
//!
//! assert_eq!(driver.poll()?, 1);
//! let used = driver.take()?.ok_or("nothing came back")?;
//! assert_eq!((used.cookie, used.written), ("request 1", 5));
//! # Ok(())
//! # }
//! ```
#![cfg_attr(not(feature = "std"), no_std)]
#![forbid(unsafe_code)]

pub mod any;
mod descriptor;
mod device;
mod driver;
mod event;
mod fault;
mod features;
mod kept;
mod kind;
mod look_ahead;
mod notification;
pub mod packed;
mod positions;
pub mod record;
pub mod split;
mod state;
mod suppression;
pub mod tagged;

pub use descriptor::{Buffer, DESCRIPTOR_BYTES};
pub use device::{Chain, ChainHead, DeviceFormat, DeviceQueue, DeviceSlot, Slices};
pub use driver::{DriverFormat, DriverQueue, DriverSlot, Used};
pub use event::Recheck;
pub use fault::{
    AddError, ChainError, CompleteError, DeviceFault, DriverFault, Rejected, SetupError,
    Uncompleted,
};
pub use features::RingFeatures;
pub use kind::RingKind;
pub use look_ahead::PATIENCE;
pub use notification::NotificationData;
pub use positions::{Lag, Positions};
pub use state::{
    ChainsInFlight, DeviceState, DriverState, LentChain, LentChains, STATE_VERSION, SavedChain,
    StateError,
};
