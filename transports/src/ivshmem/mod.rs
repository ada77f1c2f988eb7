//! Guests in stock QEMU, by its device `ivshmem-doorbell`: one memory, and a doorbell register.
//!
//! The device shows a guest a memory that it shares with other processes (BAR 2), and lets it ring them (BAR 0); they interrupt it
//! by eventfds. Who made the memory hands it out over a socket. Here that is the host of a bus. [`layout`] says what is in the
//! memory, for both sides; `docs/ivshmem.md` tells the same, and what is said over the socket.
//!
//! Everything in that memory may be written by the guest, so no side takes anything from it on trust, not even what it has
//! written itself.

mod geometry;
pub mod guest;
pub mod layout;
mod server;

pub use geometry::{DEFAULT_QUOTA, Geometry, GeometryError};
pub use server::{Departure, Event, Place, PlaceError, ServeError, Server, ServerOptions};
