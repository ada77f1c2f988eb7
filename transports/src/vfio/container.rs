//! A space of I/O virtual addresses, and the functions in it.

use std::fmt;
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use vfio_ioctls::{VfioContainer, VfioDevice, VfioError, VfioOps};

use crate::pci::Address;

use super::error::OpenError;
use super::function::VfioFunction;
use super::iommu::Iommu;
use super::mapping::{Mapper, Space};
use super::request;
use super::sysfs::{self, Place};

/// Functions that share one space of I/O virtual addresses.
///
/// A container has an IOMMU as long as a function of it is open.
pub struct Container {
    kind: Kind,
    /// What the functions' memory shares; of no use any more once nobody else has it.
    space: Mutex<Option<Arc<Space>>>,
}

/// What holds the functions together.
enum Kind {
    /// A container of VFIO's, with an IOMMU of type 1, version 2.
    Groups(Arc<VfioContainer>),
    /// An address space of iommufd.
    #[cfg(feature = "iommufd")]
    Iommufd(Arc<vfio_ioctls::VfioIommufd>),
}

impl Container {
    /// An empty container.
    ///
    /// # Errors
    ///
    /// [`OpenError::NoVfio`], [`OpenError::Permission`], [`OpenError::NoType1`].
    pub fn new() -> Result<Self, OpenError> {
        let vfio = VfioContainer::new(None).map_err(container_refused)?;
        Ok(Self {
            kind: Kind::Groups(Arc::new(vfio)),
            space: Mutex::new(None),
        })
    }

    /// An empty container that iommufd makes, for functions that are opened by their device files. Untried.
    ///
    /// # Errors
    ///
    /// [`OpenError::NoIommufd`], [`OpenError::Permission`].
    #[cfg(feature = "iommufd")]
    pub fn with_iommufd() -> Result<Self, OpenError> {
        Ok(Self {
            kind: Kind::Iommufd(super::iommufd::open()?),
            space: Mutex::new(None),
        })
    }

    /// Opens a function, which must be bound to vfio-pci, and enables its memory space; it is no bus master yet.
    ///
    /// # Errors
    ///
    /// [`OpenError`].
    pub fn open(&self, address: Address) -> Result<VfioFunction, OpenError> {
        let place = sysfs::find(Path::new("/sys"), address)?;
        // Of functions in groups, vfio-ioctls ignores that they are to be attached.
        let device = VfioDevice::new(&place.directory, self.kind.ops(), true)
            .map_err(|error| device_refused(error, address, &place))?;
        let space = self.space(address)?;
        Ok(VfioFunction::new(device, address, space)?)
    }

    /// The space of the functions that are open, now that there is one.
    fn space(&self, address: Address) -> Result<Arc<Space>, OpenError> {
        let iommu = self.kind.iommu().map_err(|source| OpenError::System {
            doing: "learn about the IOMMU",
            source,
        })?;
        let mut space = self.space.lock().unwrap_or_else(PoisonError::into_inner);
        match &*space {
            // Other functions have it: the new one must reach what they allocate.
            Some(shared) if Arc::strong_count(shared) > 1 => {
                if !shared.lies_in(&iommu) {
                    return Err(OpenError::OtherAddresses { address });
                }
                Ok(Arc::clone(shared))
            }
            _ => {
                let mapper = self.kind.mapper();
                Ok(Arc::clone(
                    space.insert(Arc::new(Space::new(mapper, &iommu))),
                ))
            }
        }
    }
}

impl Kind {
    fn ops(&self) -> Arc<dyn VfioOps> {
        match self {
            Self::Groups(vfio) => vfio.clone(),
            #[cfg(feature = "iommufd")]
            Self::Iommufd(vfio) => vfio.clone(),
        }
    }

    fn mapper(&self) -> Box<dyn Mapper> {
        match self {
            Self::Groups(vfio) => Box::new(Arc::clone(vfio)),
            #[cfg(feature = "iommufd")]
            Self::Iommufd(vfio) => Box::new(Arc::clone(vfio)),
        }
    }

    /// What the IOMMU can do for the functions that are open.
    fn iommu(&self) -> io::Result<Iommu> {
        match self {
            Self::Groups(vfio) => {
                let words = request::iommu_info(request::descriptor(&**vfio))?;
                Ok(Iommu::parse(&words))
            }
            #[cfg(feature = "iommufd")]
            Self::Iommufd(vfio) => super::iommufd::iommu(vfio),
        }
    }
}

impl fmt::Debug for Container {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Container").finish_non_exhaustive()
    }
}

fn container_refused(error: VfioError) -> OpenError {
    let path = "/dev/vfio/vfio";
    match error {
        VfioError::OpenContainer(source) => match source.kind() {
            io::ErrorKind::PermissionDenied => OpenError::Permission {
                path: path.into(),
                source,
            },
            _ => OpenError::NoVfio(source),
        },
        error => OpenError::NoType1(io::Error::other(error)),
    }
}

fn device_refused(error: VfioError, address: Address, place: &Place) -> OpenError {
    let group = place.group;
    let system = |doing, source| OpenError::System { doing, source };
    match error {
        VfioError::OpenGroup(source, _) => group_refused(source, address, group),
        // Its devices were looked at a moment ago.
        VfioError::GroupViable => OpenError::NotViable {
            address,
            group,
            others: "other functions".into(),
        },
        VfioError::ContainerSetIOMMU(source) => {
            OpenError::NoType1(io::Error::from_raw_os_error(source.errno()))
        }
        VfioError::GroupGetDeviceFD(source) => {
            let source = io::Error::from_raw_os_error(source.errno());
            system("open a function of its IOMMU group", source)
        }
        #[cfg(feature = "iommufd")]
        VfioError::InvalidVfioDev => {
            let source = io::ErrorKind::NotFound.into();
            OpenError::NoDeviceFile { address, source }
        }
        #[cfg(feature = "iommufd")]
        VfioError::OpenDeviceCdev(source) => OpenError::NoDeviceFile { address, source },
        error => system("open a function", io::Error::other(error)),
    }
}

/// Why a group's file does not open.
pub(super) fn group_refused(source: io::Error, address: Address, group: u32) -> OpenError {
    match source.kind() {
        io::ErrorKind::ResourceBusy => OpenError::GroupBusy { address, group },
        io::ErrorKind::PermissionDenied => OpenError::Permission {
            path: format!("/dev/vfio/{group}").into(),
            source,
        },
        _ => OpenError::System {
            doing: "open a function's IOMMU group",
            source,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use vmm_sys_util::errno::Error as SystemError;

    fn address() -> Address {
        "0000:00:03.0".parse().unwrap()
    }

    #[test]
    fn a_kernel_without_vfio_is_told_from_a_lack_of_rights() {
        for kind in [io::ErrorKind::NotFound, io::ErrorKind::Other] {
            let refused = container_refused(VfioError::OpenContainer(kind.into()));
            assert!(matches!(refused, OpenError::NoVfio(_)));
            assert!(
                refused.to_string().contains("modprobe vfio-pci"),
                "{refused}"
            );
        }
        let denied = VfioError::OpenContainer(io::ErrorKind::PermissionDenied.into());
        assert_eq!(
            container_refused(denied).to_string(),
            "/dev/vfio/vfio may not be opened: permission denied; run as root, or give the file to this user"
        );
        let refused = container_refused(VfioError::VfioExtension);
        assert!(matches!(refused, OpenError::NoType1(_)), "{refused}");
    }

    #[test]
    #[cfg(not(miri))] // it has no devices
    fn a_container_is_refused_where_there_is_no_vfio() {
        if Path::new("/dev/vfio/vfio").exists() {
            eprintln!("SKIPPED: this kernel has VFIO");
            return;
        }
        assert!(matches!(Container::new(), Err(OpenError::NoVfio(_))));
    }

    #[test]
    fn what_a_group_says_is_told() {
        let place = Place {
            directory: "/sys/bus/pci/devices/0000:00:03.0".into(),
            group: 7,
        };
        let told = |error| device_refused(error, address(), &place).to_string();
        let busy = io::Error::from_raw_os_error(16);
        assert_eq!(
            told(VfioError::OpenGroup(busy, "7".into())),
            "IOMMU group 7 of 0000:00:03.0 is in use, by another process or another container of this one"
        );
        let denied = io::Error::from_raw_os_error(13);
        assert!(
            told(VfioError::OpenGroup(denied, "7".into()))
                .starts_with("/dev/vfio/7 may not be opened")
        );
        assert!(
            told(VfioError::GroupViable)
                .contains("in IOMMU group 7, other functions must be unbound")
        );
        assert!(
            told(VfioError::ContainerSetIOMMU(SystemError::new(19))).contains("vfio_iommu_type1")
        );
        assert!(told(VfioError::GroupGetDeviceFD(SystemError::new(19))).contains("No such device"));
    }
}
