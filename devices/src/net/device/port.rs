//! What the device's switch has at its ports.

use shmbus_ring::split::DeviceRing;
use shmbus_shm::{Mapped, OffsetSpace};

use crate::net::host::GuestPort;
use crate::net::pcap::Replay;
use crate::net::port::Port;
use crate::net::tap::Tap;
use crate::ring_state::RingState;

/// A port of any kind.
pub(super) trait NetPort: Port + Send {
    /// How far a guest's queues, of `size` entries each, have come.
    fn ring_states(&self, _size: u16) -> Option<[RingState; 2]> {
        None
    }

    /// When it has its next frame, in nanoseconds of `CLOCK_MONOTONIC`, if it knows.
    fn next_due(&self) -> Option<u64> {
        None
    }
}

/// A guest's port.
pub(super) type SplitPort = GuestPort<DeviceRing<Mapped>, OffsetSpace<Mapped>>;

impl NetPort for SplitPort {
    fn ring_states(&self, size: u16) -> Option<[RingState; 2]> {
        let states = self.positions();
        Some(states.map(|positions| RingState { size, positions }))
    }
}

impl NetPort for Tap {}

impl NetPort for Replay {
    fn next_due(&self) -> Option<u64> {
        Replay::next_due(self)
    }
}
