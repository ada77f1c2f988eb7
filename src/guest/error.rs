//! What can go wrong for a guest.

use std::io;
use std::time::Duration;

use shmbus_devices::ActivateError;
use shmbus_devices::clock::DriverError;
use shmbus_shm::MemoryError;
use shmbus_signal::os::SetError;
use shmbus_table::{TableError, TypedReadError};
use shmbus_transports::ivshmem::guest::AttachError;
use shmbus_transports::local::{ConnectError, NameError};
use shmbus_virtio::{DeviceStatus, FeatureError};

use super::link::HostGone;
use crate::bells::BellsError;
use crate::region_set::RegionSetError;

/// A guest cannot use the bus.
#[derive(Debug, thiserror::Error)]
pub enum GuestError {
    /// The name cannot be one.
    #[error(transparent)]
    Name(#[from] NameError),
    /// The host cannot be reached, or does not let the guest in.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// The host behind a PCI function cannot be reached, or does not let the guest in.
    #[error(transparent)]
    Attach(Box<AttachError>),
    /// The guest's memory cannot be made.
    #[error(transparent)]
    Memory(#[from] MemoryError),
    /// The host's memory or a region in it is not what it must be.
    #[error(transparent)]
    Regions(#[from] RegionSetError),
    /// The doorbells are not what they must be.
    #[error(transparent)]
    Bells(#[from] BellsError),
    /// A table is not what it must be.
    #[error(transparent)]
    Table(#[from] TableError),
    /// What the host says of a device cannot be read.
    #[error("what the host says of device {device}: {source}")]
    Offer {
        /// Which device.
        device: u32,
        /// What is wrong.
        source: TypedReadError,
    },
    /// There is no such device.
    #[error("there is no device {device}: the bus has {devices}")]
    NoSuchDevice {
        /// Which one was asked for.
        device: u32,
        /// How many there are.
        devices: usize,
    },
    /// The features cannot be used.
    #[error("device {device}: {source}")]
    Features {
        /// Which device.
        device: u32,
        /// Why not.
        source: FeatureError,
    },
    /// The driver cannot be set up over the device's regions.
    #[error("device {device}: {source}")]
    Driver {
        /// Which device.
        device: u32,
        /// Why not.
        source: ActivateError,
    },
    /// A clock's driver cannot relate this guest's counter to the host's.
    #[error("device {device}: {source}")]
    Clock {
        /// Which device.
        device: u32,
        /// Why not.
        source: Box<DriverError>,
    },
    /// The host refused the driver.
    #[error("the host refused the driver of device {device} (its status is {status:?})")]
    Refused {
        /// Which device.
        device: u32,
        /// The status that the host reports.
        status: DeviceStatus,
    },
    /// The host did not answer.
    #[error("the host did not answer for device {device} within {limit:?}")]
    Silent {
        /// Which device.
        device: u32,
        /// How long the guest waited.
        limit: Duration,
    },
    /// The host is gone.
    #[error("the host is gone: {0}")]
    HostGone(HostGone),
    /// A descriptor cannot be waited for.
    #[error(transparent)]
    Set(#[from] SetError),
    /// The system refused something.
    #[error(transparent)]
    System(#[from] io::Error),
}

impl From<AttachError> for GuestError {
    fn from(error: AttachError) -> Self {
        Self::Attach(Box::new(error))
    }
}
