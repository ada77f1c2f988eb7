//! The guest's half: attaching to the bus behind an `ivshmem-doorbell` function, over whatever reaches that function.
//!
//! [`attach`] finds the guest's area, says HELLO and takes the host's terms; the [`Invitation`] is completed once the guest's section
//! is formatted, and is a [`GuestLink`] then. The sections are windows on BAR 2, mapped as ordinary memory. The function's vectors
//! are the doorbells to the guest, by priority class; its doorbell register rings the host.
//!
//! # Without interrupts
//!
//! Over a function that has no vectors to offer ([`ResourceFunction`](crate::pci::ResourceFunction)) nothing rings the guest: its link
//! has no waiters, and the host's trees are to be polled. Answers are looked for every millisecond, and a link's own news
//! ten times a second.
//!
//! # What a guest cannot see
//!
//! A host that has died leaves its last words behind: QEMU keeps memory and eventfds of a server that is gone. Only a host that
//! says goodbye, and one that serves another attachment in this area, are noticed. Where the bus has a clock, its samples grow
//! old, which every reading tells.
//!
//! # Trust
//!
//! The host is as little trusted as over any transport. Each of its words is read once and checked; sections that leave the guest's
//! area or overlap are refused; every wait has an end.

mod attach;
mod device;
mod error;
mod link;
mod sections;

pub use attach::{Invitation, attach};
pub use error::AttachError;
pub use link::{GuestLink, LinkClosed, NEWS_PERIOD};
pub use sections::SectionWindow;
