//! Waking and waiting on Linux: doorbells, and a set of doorbells and other descriptors served by priority.
//!
//! [`Notifier`] rings a doorbell, [`Waiter`] is woken by it. Between sides that do not trust each other a [`doorbell`] has
//! two ends by which neither can stall the other; where a standard wants an eventfd, it is one. Who only rings takes any
//! [`Wake`], which may be a device's register as well. [`SignalSet`] waits for many
//! doorbells, and for sockets and timers beside them, and says which channels were raised, the higher priority first.
//!
//! ```
//! use std::time::Duration;
//!
//! use shmbus_shm::heap;
//! use shmbus_signal::Priority;
//! use shmbus_signal::os::{self, Event, SignalSet};
//! use shmbus_signal::suppress::{DoorbellLayout, Receiver, Sender};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # if cfg!(miri) { return Ok(()) } // it knows none of these system calls
//! let layout = DoorbellLayout::new(2_000)?;
//! let senders = heap(layout.tree_bytes());
//! let receivers = heap(DoorbellLayout::ARMED_BYTES);
//! let mut sender = Sender::new(&senders, &receivers, layout)?;
//! let receiver = Receiver::new(&senders, &receivers, layout, vec![0; 2_000])?;
//! let (notifier, waiter) = os::doorbell()?;
//!
//! let mut set = SignalSet::new()?;
//! let doorbell = set.add_doorbell(receiver, waiter, Priority::HIGHEST)?;
//!
//! std::thread::spawn(move || {
//!     if sender.raise(1_234).unwrap().is_needed() {
//!         notifier.notify().unwrap();
//!     }
//! });
//!
//! assert!(set.wait(Some(Duration::from_secs(10)))?);
//! let Some(Event::Raised { token, channel, .. }) = set.next_event() else {
//!     unreachable!("nothing else is in the set")
//! };
//! assert_eq!((token, channel), (doorbell, 1_234));
//! # Ok(())
//! # }
//! ```

mod doorbell;
mod eventfd;
#[cfg(feature = "kvm")]
pub mod kvm;
mod set;
mod socket;
mod spin;
// Miri knows neither epoll's edges nor the system calls made here.
#[cfg(all(test, not(miri)))]
mod tests;
#[cfg(feature = "tokio")]
pub mod tokio;
mod turns;

pub use doorbell::{DoorbellError, Notifier, Waiter, Wake, doorbell};
pub use set::{
    Event, Interest, NOTICE_BOUND, POLL_PERIOD, ROUND_BOUND, Readiness, STORM_PERIOD,
    STORM_STRIKES, SetError, SignalSet, Token, WaitCounts,
};
pub use turns::STARVATION_BOUND;
