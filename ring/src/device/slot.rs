//! The device's private record of what it took.

use super::Completed;
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
    /// Where that chain was taken from.
    pub(crate) position: u16,
    /// With `VIRTIO_F_IN_ORDER`: how the chain was completed that was taken from this slot's entry, while it is not
    /// shown.
    pub(crate) completion: Option<Completion>,
}

/// A chain that is completed and waits for its turn.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Completion {
    pub(crate) element: UsedElement,
    /// How many entries of the ring it takes up.
    pub(crate) entries: u16,
    /// Whether all of its writable bytes were written.
    pub(crate) completely: bool,
}

impl From<Completed> for Completion {
    fn from(chain: Completed) -> Self {
        Self {
            element: chain.element(),
            entries: chain.entries,
            completely: chain.completely,
        }
    }
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
            position: 0,
            completion: None,
        }
    }
}

impl Default for DeviceSlot {
    fn default() -> Self {
        Self::new()
    }
}
