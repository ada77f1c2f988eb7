//! Devices of the bus, each with its host part and its guest part side by side.
//!
//! What counts element by element runs on rings ([`net`]); what supersedes itself runs on tables: a [`clock`] tells
//! "time is now X", then "time is now Y", and X is gone; a [`timer`]'s deadline is the last one that was set; an
//! interrupt controller's ([`intc`]) line is up or down, and its edges coalesce. The devices know neither transports nor descriptors: they are generic over the memory, and return
//! [`Notify`](shmbus_shm::Notify) where the other side must be told.
#![deny(unsafe_code)]

pub mod clock;
mod counters;
mod device;
pub mod intc;
pub mod lane;
pub mod net;
mod ring_state;
pub mod timer;

pub use counters::counter_names;
pub use device::{
    ActivateError, CONFIG_WORDS, COUNTERS, Device, NoRegion, Outbox, Progress, RegionRequest,
    Regions, SessionId,
};
pub use ring_state::RingState;
