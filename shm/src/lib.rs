//! The ground floor of shmbus: bounded, hostile-safe access to memory that two sides share.
//!
//! A [`Window`] is a bounded piece of memory whose every byte the peer may change at any moment. An algorithm carves
//! safe views out of it once ([`Field`], [`Entries`], [`Array`], [`Records`], [`Bytes`]), which proves the bounds, and
//! then runs without a check per access; the same code runs on mapped memory, on loom, on memory that lies, and on
//! memory whose writer dies (`testing`).
//!
//! On windows stand:
//!
//! - [`slot`]: a cell whose readers always get its latest complete value; [`TreeWriter`] and [`TreeReader`]: what
//!   changed among many, from a read-only mapping;
//! - [`AddressSpace`]: a peer's addresses as bytes: offsets into a window, or a guest's memory (`vm-memory`);
//! - [`Region`] and [`directory`]: what is registered where, told to the peer;
//! - with `std`, `SharedMemory`: sealed memfds, and the checks on a peer's; `RegionManager`: places regions in them and
//!   reuses their space when the last window on them is gone.
//!
//! ```
//! use core::sync::atomic::Ordering;
//! use shmbus_shm::{Entries, Field, heap};
//!
//! # fn main() -> Result<(), shmbus_shm::WindowError> {
//! let window = heap(64);
//! let index = Field::<u16, _>::new(&window, 2)?;
//! let ring = Entries::<u16, _>::new(&window, 4, 16)?;
//!
//! ring.store(0, 42, Ordering::Relaxed);
//! index.store(1, Ordering::Release); // publishes the entry
//!
//! assert_eq!(index.load(Ordering::Acquire), 1);
//! assert_eq!(ring.load(16, Ordering::Relaxed), 42); // the index wraps: nothing is out of bounds
//! # Ok(())
//! # }
//! ```
#![cfg_attr(not(feature = "std"), no_std)]
#![deny(unsafe_code)]

#[cfg(target_endian = "big")]
compile_error!(
    "shmbus shares words in little-endian order, as virtio does; big-endian machines are not supported"
);

mod address;
pub mod directory;
mod field;
mod notify;
mod raw;
mod region;
mod scope;
pub mod slot;
mod tree;
mod window;

#[cfg(feature = "std")]
mod mapped;
#[cfg(feature = "std")]
mod mapping;
#[cfg(feature = "std")]
mod memfd;
#[cfg(feature = "testing")]
#[allow(clippy::panic)]
pub mod testing;

pub use address::{Access, AddressError, AddressSpace, OffsetSpace, SharedBytes};
#[cfg(feature = "vm-memory")]
pub use address::{GuestBytes, GuestSpace};
pub use directory::{
    DirectoryError, DirectoryHeader, DirectoryLayout, DirectoryReader, DirectoryWriter, EntryError,
    Writing,
};
pub use field::{Array, Bytes, Entries, Field, Pairs, RecordGroups, Records, Rows};
pub use notify::Notify;
pub use raw::Raw;
pub use region::{
    InvalidKind, MemoryId, PRIORITY_CLASSES, Permission, Placement, Purpose, Region, RegionId,
    RegionKind, Rights, RingFormat, Section,
};
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
pub use scope::Dma;
pub use scope::{Scope, Smp};
pub use tree::{Scan, TreeError, TreeLayout, TreeReader, TreeWriter};
pub use window::{FenceScope, MemoryType, Window, WindowError, Word};

#[cfg(feature = "std")]
pub use mapped::{Keep, Mapped, heap};
#[cfg(feature = "std")]
pub use mapping::{map_device, map_file};
#[cfg(feature = "std")]
pub use memfd::{MemoryError, SharedMemory, Writers};
#[cfg(feature = "std")]
pub use region::{
    Backing, BackingError, FixedWindows, Lease, MemoryMap, MemoryMapError, OneMemory, OpenEnded,
    RegionError, RegionHandle, RegionManager, RegionSpec,
};
