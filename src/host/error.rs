//! What can go wrong for a host.

use std::io;

use shmbus_devices::ActivateError;
use shmbus_shm::{BackingError, DirectoryError, MemoryError, RegionError, WindowError};
use shmbus_signal::os::SetError;
use shmbus_signal::suppress::SignalError;
use shmbus_table::{LayoutError, TableError};
use shmbus_transports::ivshmem::{PlaceError, ServeError};
use shmbus_transports::local::{BindError, NameError, SessionError};

use super::gallery::InspectFileError;
use crate::bells::BellsError;
use crate::gallery::GalleryError;
use crate::region_set::RegionSetError;

/// A bus cannot be set up, or a guest not be served.
#[derive(Debug, thiserror::Error)]
pub enum HostError {
    /// There is nothing to serve.
    #[error("a bus without devices is of no use: add one")]
    NoDevices,
    /// A device did not start.
    #[error("device {device} ({name}) cannot be started: {source}")]
    Start {
        /// Which one.
        device: u32,
        /// What it is.
        name: String,
        /// Why not.
        source: ActivateError,
    },
    /// The socket cannot be served.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// A memory cannot be made or mapped.
    #[error(transparent)]
    Memory(#[from] MemoryError),
    /// A region cannot be placed.
    #[error(transparent)]
    Region(#[from] RegionError),
    /// A memory cannot be planned.
    #[error(transparent)]
    Backing(#[from] BackingError),
    /// A guest's regions are not what they must be.
    #[error(transparent)]
    Regions(#[from] RegionSetError),
    /// A region does not lie in its memory; not expected.
    #[error(transparent)]
    Window(#[from] WindowError),
    /// The directory cannot be laid out.
    #[error(transparent)]
    Directory(#[from] DirectoryError),
    /// A table cannot be laid out.
    #[error(transparent)]
    Layout(#[from] LayoutError),
    /// A table is not what it must be.
    #[error(transparent)]
    Table(#[from] TableError),
    /// A doorbell cannot be laid out.
    #[error(transparent)]
    Doorbell(#[from] SignalError),
    /// A guest's doorbells are not what they must be.
    #[error(transparent)]
    Bells(#[from] BellsError),
    /// A descriptor cannot be waited for.
    #[error(transparent)]
    Set(#[from] SetError),
    /// The transport refused a step of a session.
    #[error(transparent)]
    Session(#[from] SessionError),
    /// There are more signalled regions than channels.
    #[error("more regions of one priority class are signalled than there are channels")]
    TooManyChannels,
    /// A guest's memory came a second time.
    #[error("the guest's memory has come before")]
    ConnectedTwice,
    /// A guest is let in for whom nothing was prepared.
    #[error("nothing was prepared for the guest")]
    Unprepared,
    /// A socket for guests in QEMU cannot be served.
    #[error(transparent)]
    Serve(#[from] ServeError),
    /// A guest in QEMU has no place for its session.
    #[error(transparent)]
    Place(#[from] PlaceError),
    /// There is no way onto the bus.
    #[error("a bus without a socket is of no use: listen at one")]
    NoSocket,
    /// What inspectors are to be shown cannot be laid out.
    #[error("what inspectors are shown: {0}")]
    Gallery(#[from] GalleryError),
    /// The file for inspectors cannot be had.
    #[error(transparent)]
    InspectFile(#[from] InspectFileError),
    /// A guest's name; the transport has checked it.
    #[error(transparent)]
    Name(#[from] NameError),
    /// The system refused something: descriptors or memory are used up, most likely.
    #[error(transparent)]
    System(#[from] io::Error),
}
