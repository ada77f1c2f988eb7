//! Where a bus can be looked at.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use shmbus_shm::{Mapped, MemoryType, map_device, map_file};
use shmbus_transports::pci::{Address, Identity};

/// Where a bus can be looked at.
#[derive(Clone, Copy, Debug)]
pub enum Place<'a> {
    /// The host's socket.
    Socket(&'a Path),
    /// The file in which a host shows its bus. Whoever can write the file can end who looks at it, by shortening it.
    File(&'a Path),
    /// The same file, as the memory of an ivshmem function of this virtual machine.
    Function(Address),
}

/// A bus cannot be looked at there.
#[derive(Debug, thiserror::Error)]
pub enum PlaceError {
    /// A system call failed.
    #[error("cannot {step} {}: {source}", .path.display())]
    Io {
        /// What was being done.
        step: &'static str,
        /// To what.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
    /// The function is another one.
    #[error("{address} is {found}, not ivshmem ({})", Identity::IVSHMEM)]
    NotIvshmem {
        /// Where it is.
        address: Address,
        /// What it is.
        found: Identity,
    },
}

impl Place<'_> {
    /// Whether the bus runs under the kernel that this program runs under, with the same counter.
    pub(super) fn is_this_machine(self) -> bool {
        !matches!(self, Place::Function(_))
    }

    /// The memory of a file or a function, read-only.
    pub(super) fn window(self) -> Result<Mapped, PlaceError> {
        match self {
            Place::Socket(path) | Place::File(path) => {
                map(path, |file, len| map_file(file.as_fd(), len, false))
            }
            Place::Function(address) => {
                let directory = address.directory();
                let found = Identity::read(address).map_err(failed("identify", &directory))?;
                if found != Identity::IVSHMEM {
                    return Err(PlaceError::NotIvshmem { address, found });
                }
                let enable = directory.join("enable");
                // What is enabled already is not counted once more.
                let state = std::fs::read_to_string(&enable).map_err(failed("read", &enable))?;
                if state.trim() == "0" {
                    std::fs::write(&enable, "1").map_err(failed("write", &enable))?;
                }
                // Cached memory of somebody else's: the host's.
                map(&directory.join("resource2"), |file, len| {
                    map_device(file.as_fd(), 0, len, false, MemoryType::Ordinary)
                })
            }
        }
    }
}

fn map(
    path: &Path,
    map: impl FnOnce(&File, usize) -> io::Result<Mapped>,
) -> Result<Mapped, PlaceError> {
    let file = OpenOptions::new().read(true).open(path);
    let file = file.map_err(failed("open", path))?;
    let bytes = file.metadata().map_err(failed("look at", path))?.len();
    let len = usize::try_from(bytes).map_err(io::Error::other);
    len.and_then(|len| map(&file, len))
        .map_err(failed("map", path))
}

fn failed(step: &'static str, path: &Path) -> impl FnOnce(io::Error) -> PlaceError {
    let path = path.to_owned();
    move |source| PlaceError::Io { step, path, source }
}
