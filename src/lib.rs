//! shmbus: a shared-memory bus for virtual machines.
//!
//! Two sides that do not trust each other share regions of memory and signal channels. On a region runs a **ring**
//! (virtqueues: every element counts) or a **latest-value table** ("time is now X", then "time is now Y", and X is
//! gone). This crate puts the pieces together: a [`Bus`] serves devices to guests that come and go, a [`Guest`] uses
//! them, [`inspect`] looks on. The algorithms are in the crates that are re-exported here.
//!
//! ```no_run
//! use std::time::Duration;
//!
//! use shmbus::devices::clock::ClockKind;
//! use shmbus::guest::clock_reader;
//! use shmbus::virtio::DeviceId;
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! // `shmbus host --socket /tmp/bus --device clock` runs somewhere.
//! let mut guest = shmbus::Guest::connect("/tmp/bus", "reader", Duration::from_secs(5))?;
//! let device = guest.find(DeviceId::CLOCK).ok_or("no clock on this bus")?;
//! let mut clock = clock_reader(&guest, device)?;
//! let reading = clock.now(ClockKind::Utc)?;
//! println!("{} ns since 1970, give or take {} ns", reading.time_ns, reading.error_ns);
//! # Ok(())
//! # }
//! ```
//!
//! A host composes devices with [`Bus::builder`]; the README has an example of both sides.
#![forbid(unsafe_code)]

mod bells;
pub mod control;
pub mod counters;
pub mod gallery;
pub mod guest;
mod host;
pub mod inspect;
mod plan;
mod region_set;

/// The examples in the README compile.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
pub struct Readme;

pub use shmbus_devices as devices;
pub use shmbus_ring as ring;
pub use shmbus_shm as shm;
pub use shmbus_signal as signal;
pub use shmbus_table as table;
pub use shmbus_transports as transports;
pub use shmbus_virtio as virtio;

pub use bells::BellsError;
pub use guest::{Guest, GuestError, GuestEvent, Network, NetworkError};
pub use host::{Bus, BusBuilder, HostError, InspectFileError};
pub use inspect::InspectError;
pub use region_set::{RegionSetError, Subject};
