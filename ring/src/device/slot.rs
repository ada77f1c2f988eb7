//! The device's private record of what it took.

use crate::descriptor::UsedElement;

/// The device side's private record for one entry: storage that the caller passes in, one for each entry of the
/// queue.
#[derive(Clone, Copy, Debug)]
pub struct DeviceSlot {
    /// What this slot's entry of the used ring says; no device writes the initial value.
    pub(crate) used: UsedElement,
    /// How many entries of the ring the chain takes up whose id this slot's index is; 0 while it is not in flight:
    /// not taken, or completed.
    pub(crate) entries: u16,
}

impl DeviceSlot {
    /// An unused slot.
    pub const fn new() -> Self {
        Self {
            used: UsedElement {
                id: u32::MAX,
                len: u32::MAX,
            },
            entries: 0,
        }
    }
}

impl Default for DeviceSlot {
    fn default() -> Self {
        Self::new()
    }
}
