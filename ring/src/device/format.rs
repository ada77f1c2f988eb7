//! What a ring format does for the device side.

/// A ring format's device side. The formats are the crate's own: [`split::DeviceRing`](crate::split::DeviceRing) and
/// [`packed::DeviceRing`](crate::packed::DeviceRing) with their in-order forms, and [`any::DeviceRing`](crate::any::DeviceRing).
pub trait DeviceFormat: sealed::DeviceFormat {}

impl<F: sealed::DeviceFormat> DeviceFormat for F {}

pub(crate) mod sealed {
    use shmbus_shm::{AddressSpace, Notify};

    use crate::descriptor::{Buffer, DESCRIPTOR_BYTES};
    use crate::device::{Completed, DeviceSlot, FoundChain};
    use crate::event::Recheck;
    use crate::fault::{DeviceFault, SetupError};
    use crate::kind::RingKind;
    use crate::positions::Positions;
    use crate::state::{DeviceState, DeviceStateWriter, SavedChain, StateError};

    /// The queue keeps what is common to all formats: which chains are in flight, checks on what the caller
    /// completes, the latched fault. A format finds and walks chains, returns them, and publishes.
    pub trait DeviceFormat {
        /// Where the ring lies.
        type Areas;

        /// Which type of ring this is.
        fn kind(&self) -> RingKind;

        /// Whether each used element or descriptor is shown by itself, for the sake of who recovers the ring.
        #[inline(always)]
        fn is_stepwise(&self) -> bool {
            false
        }

        /// The queue's size.
        fn size(&self) -> u16;

        /// Formats the memory that the device writes, and the slots; both sides are at `position`.
        fn start(&mut self, slots: &mut [DeviceSlot], position: u16);

        /// Goes on over the same memory, which is now found at other addresses of this process.
        fn rebind(&mut self, areas: Self::Areas) -> Result<(), SetupError>;

        /// Looks how far the driver has come; returns how many chains can be taken at least.
        fn poll(&mut self) -> Result<u16, DeviceFault>;

        /// As [`DeviceFormat::poll`], for a device that looks again and again: it may overlook what came for
        /// [`PATIENCE`](crate::PATIENCE) calls in a row.
        #[inline(always)]
        fn poll_spinning(&mut self) -> Result<u16, DeviceFault> {
            self.poll()
        }

        /// Walks the chain that is next in the batch that the last poll began. It stays next.
        fn peek(
            &self,
            space: &impl AddressSpace,
            segments: &mut [Buffer],
        ) -> Result<Option<FoundChain>, DeviceFault>;

        /// Goes on behind the chain that was peeked at.
        fn advance(&mut self, found: &FoundChain);

        /// Takes note of a completed chain, which [`DeviceFormat::show`] shows.
        fn place_used(&mut self, slots: &mut [DeviceSlot], chain: Completed);

        /// Writes what is still to be written of what was placed; returns from where to where [`DeviceFormat::show`] will
        /// move the used position. `stepwise` may leave a part for the next call.
        fn settle(&mut self, slots: &mut [DeviceSlot], stepwise: bool) -> [u16; 2];

        /// Marks where the next publication begins, for whoever recovers the ring. Only rings that keep a record do, before
        /// they announce the publication there; it is for formats that do not tell from a word that was overwritten later
        /// whether it was shown.
        #[inline(always)]
        fn claim(&mut self) {}

        /// Shows the driver what was placed and settled.
        fn show(&mut self);

        /// Whether the driver must be told of what was shown since the last call.
        fn notify(&mut self) -> Notify;

        /// Forgets what the last poll found: the queue has stopped.
        fn halt(&mut self);

        /// Asks not to be told of available chains.
        fn disable_notifications(&mut self);

        /// Asks to be told of the next available chain.
        fn enable_notifications(&mut self) -> Recheck;

        /// How far this side has come.
        fn positions(&self) -> Positions;

        /// How far the next chain is from a chain that was taken at `position`: the more, the longer ago it was taken.
        fn age(&self, position: u16) -> u32;

        /// Whether a chain was placed that is not published and could be: not shown, or shown and nobody knows whether the
        /// driver must be told.
        fn has_unpublished(&self) -> bool;

        /// The descriptor at `index` of a chain that was taken at `position`, while the ring still has it.
        fn load_descriptor(&self, position: u16, index: u16) -> [u8; DESCRIPTOR_BYTES];

        /// Copies the descriptors of a chain in flight, where the ring may overwrite them.
        fn copy_descriptors(
            &mut self,
            chain: SavedChain<'_>,
            to: &mut DeviceStateWriter<'_>,
        ) -> Result<(), StateError>;

        /// As [`DeviceFormat::start`], from a state that was checked against the ring's kind and size, and whose chains
        /// are in the slots.
        fn resume(
            &mut self,
            slots: &mut [DeviceSlot],
            state: &DeviceState<'_>,
        ) -> Result<(), StateError>;

        /// Walks a chain of a state.
        fn walk_again(
            &self,
            space: &impl AddressSpace,
            chain: SavedChain<'_>,
            segments: &mut [Buffer],
        ) -> Result<FoundChain, DeviceFault>;
    }
}
