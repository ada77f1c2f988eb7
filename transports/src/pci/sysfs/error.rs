//! Why Linux does not tell something of a function, or does not do it.

use std::io;
use std::path::{Path, PathBuf};

use crate::pci::address::Address;

/// A function cannot be looked at, or cannot be given to another driver.
#[derive(Debug, thiserror::Error)]
pub enum SysfsError {
    /// This is a machine without PCI, or not Linux.
    #[error("no PCI functions are listed in {}: {source}", directory.display())]
    NoPci {
        /// Where they would be.
        directory: PathBuf,
        /// What was said.
        source: io::Error,
    },
    /// There is no function at an address.
    #[error("there is no PCI function {address} (`shmbus pci list` shows which there are)")]
    NoFunction {
        /// The address.
        address: Address,
    },
    /// No IOMMU stands before the function.
    #[error(
        "{address} is in no IOMMU group: switch the IOMMU on in the firmware and by the kernel's command line \
         (`intel_iommu=on`; in a virtual machine, give it one)"
    )]
    NoIommu {
        /// The function.
        address: Address,
    },
    /// The kernel has the driver not, or not yet.
    #[error(
        "the driver vfio-pci is not loaded: `modprobe vfio-pci` (and `modprobe vfio_iommu_type1`)"
    )]
    NotLoaded,
    /// Functions can only be passed on with their whole IOMMU group, and others have part of it.
    #[error(
        "{address} cannot be used alone: of IOMMU group {group}, {others} would have to be given up too; \
         `shmbus pci bind` takes several functions at once"
    )]
    NotViable {
        /// The function.
        address: Address,
        /// Its group.
        group: u32,
        /// The functions in the way, each with its driver.
        others: String,
    },
    /// The function carries a network interface that is in use.
    #[error(
        "{address} is the network interface {interface}, which is up: take it down first \
         (`ip link set {interface} down`)"
    )]
    InUse {
        /// The function.
        address: Address,
        /// The interface.
        interface: String,
    },
    /// Only root may.
    #[error("{} cannot be written: only root may give functions to other drivers", path.display())]
    Permission {
        /// The kernel's file.
        path: PathBuf,
    },
    /// The kernel did as it was told, and yet the driver does not have the function.
    #[error("{address} was offered to vfio-pci, which did not take it: `dmesg` may say why")]
    Refused {
        /// The function.
        address: Address,
    },
    /// What is to be given back is not vfio-pci's.
    #[error("{address} is bound to {}, not to vfio-pci", driver.as_deref().unwrap_or("no driver"))]
    NotBound {
        /// The function.
        address: Address,
        /// Who has it.
        driver: Option<String>,
    },
    /// A file of the kernel's says something else than a number.
    #[error("{}: numbers as 0x12ab were expected, {found:?} found", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What it says.
        found: String,
    },
    /// The kernel refused something else.
    #[error("cannot {doing} {}: {source}", path.display())]
    System {
        /// What was tried.
        doing: &'static str,
        /// The file.
        path: PathBuf,
        /// What was said.
        source: io::Error,
    },
}

impl SysfsError {
    pub(super) fn reading(path: &Path) -> impl FnOnce(io::Error) -> Self {
        Self::system("read", path)
    }

    pub(super) fn writing(path: &Path) -> impl FnOnce(io::Error) -> Self {
        let refused = Self::system("write", path);
        let path = path.to_owned();
        move |source| match source.kind() {
            io::ErrorKind::PermissionDenied => Self::Permission { path },
            _ => refused(source),
        }
    }

    fn system(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::System {
            doing,
            path,
            source,
        }
    }
}
