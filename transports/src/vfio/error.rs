//! Why a function cannot be opened.

use std::io;
use std::path::PathBuf;

use crate::pci::{Address, FunctionError};

/// What the system refused a function that is open.
pub(super) fn refused(doing: &'static str) -> impl FnOnce(io::Error) -> FunctionError {
    move |source| FunctionError::System { doing, source }
}

/// A function cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// There is none.
    #[error("there is no PCI function {address} (`lspci -D` lists them)")]
    NoFunction {
        /// Where one was expected.
        address: Address,
    },
    /// Another driver has it, or none.
    #[error(
        "{address} is bound to {}, not to vfio-pci (`shmbus pci bind {address}`)",
        driver.as_deref().unwrap_or("no driver")
    )]
    NotBound {
        /// The function.
        address: Address,
        /// Whose it is.
        driver: Option<String>,
    },
    /// No IOMMU stands between it and memory.
    #[error(
        "{address} is in no IOMMU group: switch the IOMMU on in the firmware and by the kernel's command line \
         (`intel_iommu=on`; in a virtual machine, give it one)"
    )]
    NoIommu {
        /// The function.
        address: Address,
    },
    /// Functions that cannot be told apart by the IOMMU must all be given up by their drivers.
    #[error(
        "{address} cannot be used alone: in IOMMU group {group}, {others} must be unbound from their drivers too"
    )]
    NotViable {
        /// The function.
        address: Address,
        /// Its group.
        group: u32,
        /// The others, each with its driver.
        others: String,
    },
    /// The kernel has no VFIO.
    #[error("/dev/vfio/vfio cannot be opened: {0}; load the module vfio-pci (`modprobe vfio-pci`)")]
    NoVfio(io::Error),
    /// The kernel has no iommufd.
    #[cfg(feature = "iommufd")]
    #[error("/dev/iommu cannot be opened: {0}; the kernel must be built with CONFIG_IOMMUFD")]
    NoIommufd(io::Error),
    /// The function has no device file.
    #[cfg(feature = "iommufd")]
    #[error(
        "{address} has no file in /dev/vfio/devices: {source}; the kernel must be built with CONFIG_VFIO_DEVICE_CDEV"
    )]
    NoDeviceFile {
        /// The function.
        address: Address,
        /// What the system said.
        source: io::Error,
    },
    /// The user may not.
    #[error("{} may not be opened: {source}; run as root, or give the file to this user", path.display())]
    Permission {
        /// What may not be opened.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Somebody has it.
    #[error(
        "IOMMU group {group} of {address} is in use, by another process or another container of this one"
    )]
    GroupBusy {
        /// The function.
        address: Address,
        /// Its group.
        group: u32,
    },
    /// The IOMMU has no driver of the kind that is needed.
    #[error("VFIO has no IOMMU of type 1, version 2 here (`modprobe vfio_iommu_type1`): {0}")]
    NoType1(io::Error),
    /// Its group takes fewer addresses than those in use.
    #[error(
        "{address} cannot reach all I/O virtual addresses of this container: open it in another one"
    )]
    OtherAddresses {
        /// The function.
        address: Address,
    },
    /// It opens, but does not work.
    #[error(transparent)]
    Function(#[from] FunctionError),
    /// The system refused something else.
    #[error("cannot {doing}: {source}")]
    System {
        /// What was to be done.
        doing: &'static str,
        /// What was said.
        source: io::Error,
    },
}
