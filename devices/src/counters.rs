//! The names of what devices count.

use shmbus_virtio::DeviceId;

/// The counters of a device type, in the order in which [`Device::counters`](crate::Device::counters) gives them.
pub fn counter_names(id: DeviceId) -> &'static [&'static str] {
    match id {
        DeviceId::NET => &crate::net::device::COUNTER_NAMES,
        DeviceId::CLOCK => &crate::clock::device::COUNTER_NAMES,
        DeviceId::INTC => &crate::intc::device::COUNTER_NAMES,
        DeviceId::TIMER => &crate::timer::device::COUNTER_NAMES,
        _ => &[],
    }
}
