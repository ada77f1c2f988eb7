//! The four ends of two rings: elements go from the guest, the driver, to the host, the device, or back.

mod device;
mod driver;

use shmbus_ring::{DeviceFault, DriverFault};
use shmbus_shm::{Notify, WindowError};

pub(crate) use device::{DeviceSink, DeviceSource};
pub(crate) use driver::{DriverSink, DriverSource};

use super::element::{ElementError, MOST_BYTES};

/// After so many returned buffers the other side is shown them, although the batch goes on.
const PUBLISH_EVERY: u16 = 16;

/// What the other side of a ring did wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RingError {
    /// The host, found by the guest.
    #[error(transparent)]
    Driver(#[from] DriverFault),
    /// The guest, found by the host.
    #[error(transparent)]
    Device(#[from] DeviceFault),
    /// An element is none.
    #[error(transparent)]
    Element(#[from] ElementError),
    /// A buffer lies outside its memory: not expected, as buffers are this side's own.
    #[error("a buffer: {0}")]
    Buffer(#[from] WindowError),
}

/// Where a sender leaves elements.
pub(crate) trait Sink {
    /// Puts an element into a free buffer; `false` if there is none. The other side sees it after `publish`.
    fn place(&mut self, element: &[u8]) -> Result<bool, RingError>;

    /// Shows the other side what was placed, and answers whether it must be told.
    fn publish(&mut self) -> Notify;

    /// Leaves this side's part of the ring as a driver finds it that begins anew.
    fn reset(&mut self);

    /// Asks the other side to tell when there are free buffers; `true` if there are some now.
    fn wait_for_room(&mut self) -> Result<bool, RingError>;
}

/// Where a receiver gets elements.
pub(crate) trait Source {
    /// Copies the next element out and returns its buffer; `false` if there is none, and then the other side will tell
    /// of the next one.
    fn next(&mut self, element: &mut [u8; MOST_BYTES]) -> Result<bool, RingError>;

    /// Shows the other side the buffers that were returned, and answers whether it must be told.
    fn publish(&mut self) -> Notify;

    /// Leaves this side's part of the ring as a driver finds it that begins anew.
    fn reset(&mut self);

    /// Entries of the ring.
    fn size(&self) -> u16;
}
