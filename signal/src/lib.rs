//! Signals for any shared-memory algorithm.
//!
//! Rings and tables decide *that* the other side should know; this crate decides whether it must be *woken*, and wakes
//! it. Channels are logical: thousands of them share one doorbell (an eventfd, an interrupt vector) for each peer and
//! priority class. A generation tree in the sender's memory says which channels were raised, and one word in the
//! receiver's says whether it sleeps, so that neither writes in the other's memory, a busy receiver costs no system
//! call, and finding what is due costs what is due.
//!
//! - [`suppress`]: the two words and the tree, without an operating system: [`suppress::Sender`] and
//!   [`suppress::Receiver`].
//! - `os`, with the feature `std`: doorbells, and a set of doorbells and other file descriptors, served by priority.
//!   With the feature `tokio`, tasks wait for them (`os::tokio`); with the feature `kvm`, a guest rings and is rung
//!   (`os::kvm`).
//!
//! ```
//! use shmbus_shm::{Notify, heap};
//! use shmbus_signal::suppress::{Arm, DoorbellLayout, Receiver, Sender};
//!
//! # fn main() -> Result<(), shmbus_signal::suppress::SignalError> {
//! let layout = DoorbellLayout::new(2_000)?;
//! let senders = heap(layout.tree_bytes());
//! let receivers = heap(DoorbellLayout::ARMED_BYTES);
//! let mut sender = Sender::new(&senders, &receivers, layout)?;
//! let mut receiver = Receiver::new(&senders, &receivers, layout, vec![0; 2_000])?;
//!
//! assert_eq!(sender.raise(7)?, Notify::No); // the receiver is awake
//! receiver.poll(|channel, _| assert_eq!(channel, 7));
//!
//! assert_eq!(receiver.arm(), Arm::Armed); // about to sleep
//! assert_eq!(sender.raise(7)?, Notify::Yes);
//! assert_eq!(sender.raise(1_999)?, Notify::No); // it is being woken already
//! # Ok(())
//! # }
//! ```
#![cfg_attr(not(feature = "std"), no_std)]
#![forbid(unsafe_code)]

mod channel;
#[cfg(feature = "std")]
pub mod os;
pub mod suppress;

pub use channel::{CLASSES, ChannelId, Priority};
