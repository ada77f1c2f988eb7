//! shmbus: a shared-memory bus for virtual machines.
//!
//! Two sides that do not trust each other share regions of memory and signal channels. On a region runs a **ring**
//! (virtqueues: every element counts) or a **latest-value table** ("time is now X", then "time is now Y", and X is
//! gone). This crate puts the pieces together: a [`Bus`] serves devices to guests that come and go, a [`Guest`] uses
//! them, [`inspect`] looks on. The algorithms are in the crates that are re-exported here.
#![forbid(unsafe_code)]

mod bells;
pub mod control;
pub mod counters;
pub mod guest;
mod host;
pub mod inspect;
mod plan;
mod region_set;

pub use shmbus_devices as devices;
pub use shmbus_ring as ring;
pub use shmbus_shm as shm;
pub use shmbus_signal as signal;
pub use shmbus_table as table;
pub use shmbus_transports as transports;
pub use shmbus_virtio as virtio;

pub use bells::BellsError;
pub use guest::{Guest, GuestError, GuestEvent, Network, NetworkError};
pub use host::{Bus, BusBuilder, HostError};
pub use inspect::InspectError;
pub use region_set::{RegionSetError, Subject};
