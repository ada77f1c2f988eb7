//! What the device's switch has at its ports.

use shmbus_ring::any::DeviceRing;
use shmbus_shm::{Mapped, OffsetSpace};

use crate::net::host::GuestPort;
use crate::net::pcap::Replay;
use crate::net::port::Port;
use crate::net::tap::Tap;

/// A port of any kind.
pub(super) trait NetPort: Port + Send {
    /// When it has its next frame, in nanoseconds of `CLOCK_MONOTONIC`, if it knows.
    fn next_due(&self) -> Option<u64> {
        None
    }
}

/// A guest's port.
pub(super) type RingPort = GuestPort<DeviceRing<Mapped>, OffsetSpace<Mapped>>;

impl NetPort for RingPort {}

impl NetPort for Tap {}

impl NetPort for Replay {
    fn next_due(&self) -> Option<u64> {
        Replay::next_due(self)
    }
}
