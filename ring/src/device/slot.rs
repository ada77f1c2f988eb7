//! The device's private record of what it took.

use crate::descriptor::UsedElement;

/// The device side's private record for one entry: storage that the caller passes in, one for each entry of the
/// queue.
#[derive(Clone, Copy, Debug)]
pub struct DeviceSlot {
    /// What this slot's entry of the used ring says; no device writes the initial value.
    pub(crate) used: UsedElement,
    /// Whether the chain whose head this slot's index is has been taken and not completed.
    pub(crate) in_flight: bool,
}

impl DeviceSlot {
    /// An unused slot.
    pub const fn new() -> Self {
        Self {
            used: UsedElement {
                id: u32::MAX,
                len: u32::MAX,
            },
            in_flight: false,
        }
    }
}

impl Default for DeviceSlot {
    fn default() -> Self {
        Self::new()
    }
}
