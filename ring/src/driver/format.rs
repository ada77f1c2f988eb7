//! What a ring format does for the driver side.

/// A ring format's driver side. The formats are the crate's own: [`split::DriverRing`](crate::split::DriverRing) and
/// [`packed::DriverRing`](crate::packed::DriverRing) with their in-order forms, and [`any::DriverRing`](crate::any::DriverRing).
pub trait DriverFormat: sealed::DriverFormat {}

impl<F: sealed::DriverFormat> DriverFormat for F {}

pub(crate) mod sealed {
    use shmbus_shm::Notify;

    use crate::descriptor::{Buffer, DESCRIPTOR_BYTES, UsedElement};
    use crate::driver::DriverSlot;
    use crate::event::Recheck;
    use crate::fault::{DriverFault, SetupError};
    use crate::kind::RingKind;
    use crate::positions::Positions;
    use crate::state::{DriverState, DriverStateWriter, StateError};

    /// The queue keeps what is common to all formats: what was lent, checks on what the caller asks for and on what
    /// the device answers, the latched fault. A format places chains, publishes them and finds what came back.
    pub trait DriverFormat {
        /// Where the ring lies.
        type Areas;

        /// Which type of ring this is.
        fn kind(&self) -> RingKind;

        /// The queue's size.
        fn size(&self) -> u16;

        /// How many descriptors are free while nothing is lent.
        fn capacity(&self) -> u16 {
            self.size()
        }

        /// How many descriptors are free.
        fn free(&self) -> u16;

        /// Whether `VIRTIO_F_INDIRECT_DESC` was negotiated.
        fn has_indirect(&self) -> bool;

        /// Formats the memory that the driver writes, and the slots; both sides are at `position`.
        fn start<T>(&mut self, slots: &mut [DriverSlot<T>], position: u16);

        /// Goes on over the same memory, which is now found at other addresses of this process.
        fn rebind(&mut self, areas: Self::Areas) -> Result<(), SetupError>;

        /// Writes a chain that [`DriverFormat::show`] makes available; returns its id. The queue has checked that
        /// there are 1 to [`DriverFormat::free`] buffers.
        fn place<T>(
            &mut self,
            slots: &mut [DriverSlot<T>],
            readable: &[Buffer],
            writable: &[Buffer],
        ) -> u16;

        /// As [`DriverFormat::place`], for the one descriptor of an indirect table.
        fn place_indirect<T>(&mut self, slots: &mut [DriverSlot<T>], table: Buffer) -> u16;

        /// The row at `index` of an indirect table, with the flags that [`describe`](crate::descriptor::describe)
        /// gives its buffer.
        fn indirect_row(&self, index: u16, buffer: Buffer, flags: u16) -> [u8; DESCRIPTOR_BYTES];

        /// Makes what was placed available.
        fn show(&mut self);

        /// Whether the device must be told of what was shown since the last call.
        fn notify(&mut self) -> Notify;

        /// Looks how far the device has come; returns how many used chains can be taken at least.
        fn poll(&mut self) -> Result<u16, DriverFault>;

        /// As [`DriverFormat::poll`], for a driver that looks again and again: it may overlook what came for
        /// [`PATIENCE`](crate::PATIENCE) calls in a row.
        #[inline(always)]
        fn poll_spinning(&mut self) -> Result<u16, DriverFault> {
            self.poll()
        }

        /// The used element that is next, and its position, in the batch that the last poll began. It stays next.
        /// Whether the device has a chain of that id is the queue's to check.
        fn peek_used<T>(
            &mut self,
            slots: &[DriverSlot<T>],
        ) -> Result<Option<(u16, UsedElement)>, DriverFault>;

        /// Takes the element that was peeked at off the ring, and frees the descriptors of chain `id`.
        fn release<T>(&mut self, slots: &mut [DriverSlot<T>], id: u16);

        /// Forgets what the last poll found: the queue has stopped.
        fn halt(&mut self);

        /// Asks not to be told of used buffers.
        fn disable_notifications(&mut self);

        /// Asks to be told when `count` more chains (at least one) have been used than were taken.
        fn enable_notifications(&mut self, count: u16) -> Recheck;

        /// How far this side has come.
        fn positions(&self) -> Positions;

        /// Whether a chain was placed that is not published: not shown, or shown and nobody knows whether the device must
        /// be told.
        fn has_unpublished(&self) -> bool;

        /// Whether chains are known to be used by a descriptor or element that was taken with one before them.
        fn has_untaken(&self) -> bool;

        /// The first descriptor of the next chain, where chains lie in the table's order.
        fn head(&self) -> u16;

        /// Lists the descriptors of chain `id`, where they may lie anywhere in the table.
        fn list_descriptors<T>(
            &self,
            slots: &[DriverSlot<T>],
            id: u16,
            to: &mut DriverStateWriter<'_>,
        ) -> Result<(), StateError>;

        /// As [`DriverFormat::start`], from a state that was checked against the ring's kind and size, and whose chains
        /// are in the slots: their numbers of descriptors, and their cookies.
        fn resume<T>(
            &mut self,
            slots: &mut [DriverSlot<T>],
            state: &DriverState<'_>,
        ) -> Result<(), StateError>;
    }
}
