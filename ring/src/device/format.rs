//! What a ring format does for the device side.

/// A ring format's device side. The formats are the crate's own: [`split::DeviceRing`](crate::split::DeviceRing).
pub trait DeviceFormat: sealed::DeviceFormat {}

impl<F: sealed::DeviceFormat> DeviceFormat for F {}

pub(crate) mod sealed {
    use shmbus_shm::{AddressSpace, Notify};

    use crate::descriptor::{Buffer, UsedElement};
    use crate::device::{ChainShape, DeviceSlot};
    use crate::event::Recheck;
    use crate::fault::DeviceFault;
    use crate::positions::Positions;

    /// The queue keeps what is common to all formats: which chains are in flight, checks on what the caller
    /// completes, the latched fault. A format finds and walks chains, returns them, and publishes.
    pub trait DeviceFormat {
        /// The queue's size.
        fn size(&self) -> u16;

        /// Formats the memory that the device writes, and the slots; both sides are at `position`.
        fn start(&mut self, slots: &mut [DeviceSlot], position: u16);

        /// Looks how far the driver has come; returns how many chains can be taken.
        fn poll(&mut self) -> Result<u16, DeviceFault>;

        /// Walks the chain that is next among those that the last poll found. It stays next.
        fn peek(
            &self,
            space: &impl AddressSpace,
            segments: &mut [Buffer],
        ) -> Result<Option<(u16, ChainShape)>, DeviceFault>;

        /// Goes on behind the chain that was peeked at.
        fn advance(&mut self);

        /// The available entry that is next.
        fn next_available(&self) -> u16;

        /// Writes a used element that [`DeviceFormat::publish`] shows.
        fn place_used(&mut self, slots: &mut [DeviceSlot], element: UsedElement);

        /// Shows the driver what was placed.
        fn publish(&mut self) -> Notify;

        /// Forgets what the last poll found: the queue has stopped.
        fn halt(&mut self);

        /// Asks not to be told of available chains.
        fn disable_notifications(&mut self);

        /// Asks to be told of the next available chain.
        fn enable_notifications(&mut self) -> Recheck;

        /// How far this side has come.
        fn positions(&self) -> Positions;
    }
}
