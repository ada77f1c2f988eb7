//! Transports of the bus: how memory and signals reach the other side.
//!
//! A session between a host and a guest is a few [`Memory`]s, one for each writing side, and [`Doorbells`], one for each
//! priority class and direction. A transport carries them across and says when the other side is gone; what lies in
//! the memories is not its business.
//!
//! A host and a guest that meet over a socket ([`local`]), both in one process here; each writes a word that the other
//! reads:
//!
//! ```
//! # #[cfg(feature = "local")]
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! use std::sync::atomic::Ordering::Relaxed;
//! use std::time::Duration;
//!
//! use shmbus_shm::{Field, MemoryId};
//! use shmbus_transports::local::{
//!     Admission, Event, GuestName, GuestOptions, Listener, ListenerOptions, connect,
//! };
//! use shmbus_transports::{Doorbells, Memory};
//!
//! let directory = tempfile::tempdir()?;
//! let path = directory.path().join("bus");
//! let mut listener = Listener::bind(&path, ListenerOptions::default())?;
//!
//! let guest = std::thread::spawn(move || {
//!     let options = GuestOptions::new(GuestName::new("doc").unwrap());
//!     let invitation = connect(&path, &options, Duration::from_secs(10)).unwrap();
//!     let bytes = invitation.guest_memory_bytes();
//!     let own = Memory::create(MemoryId::GUEST, "guest", bytes, 1).unwrap();
//!     Field::<u64, _>::new(own.window(), 0).unwrap().store(42, Relaxed);
//!     let link = invitation.complete(own).unwrap(); // READY
//!     let host = link.memory(MemoryId::HOST).unwrap();
//!     Field::<u64, _>::new(host.window(), 0).unwrap().load(Relaxed)
//! });
//!
//! let host = Memory::create(MemoryId::HOST, "host", 4096, 1)?;
//! Field::<u64, _>::new(host.window(), 0)?.store(7, Relaxed);
//! let (_ours, doorbells) = Doorbells::create(4)?;
//! let seen = loop {
//!     // A real host waits until the listener's descriptor is readable.
//!     match listener.next_event() {
//!         Some(Event::Hello(guest)) => {
//!             let memories = vec![host.clone()];
//!             let admission = Admission { guest_memory_bytes: 4096, memories, doorbells: &doorbells };
//!             listener.admit(guest.session, &admission)?;
//!         }
//!         Some(Event::Memory { session, memory }) => {
//!             listener.ready(session)?;
//!             break Field::<u64, _>::new(memory.window(), 0)?.load(Relaxed);
//!         }
//!         Some(Event::Closed { reason, .. }) => return Err(reason.into()),
//!         None => std::thread::yield_now(),
//!     }
//! };
//! assert_eq!((seen, guest.join().unwrap()), (42, 7));
//! # Ok(())
//! # }
//! # #[cfg(not(feature = "local"))]
//! # fn main() {}
//! ```
#![deny(unsafe_code)]

#[cfg(feature = "pci")]
pub mod bounce;
#[cfg(feature = "local")]
mod doorbells;
#[cfg(feature = "ivshmem")]
pub mod ivshmem;
#[cfg(feature = "local")]
pub mod local;
#[cfg(feature = "local")]
mod memory;

#[cfg(feature = "pci")]
pub mod pci;

#[cfg(feature = "vfio")]
pub mod vfio;

#[cfg(feature = "local")]
pub use doorbells::Doorbells;
#[cfg(feature = "local")]
pub use memory::Memory;
