//! Functions by their own device files, behind an I/O address space of iommufd, instead of a container and groups.
//!
//! Untried: Debian's kernels have neither `/dev/iommu` nor VFIO's device files (`CONFIG_IOMMUFD`, `CONFIG_VFIO_DEVICE_CDEV`).
#![allow(unsafe_code)]

use core::ffi::c_void;
use core::ptr::NonNull;
use std::io;
use std::os::fd::BorrowedFd;
use std::sync::Arc;

use iommufd_ioctls::{IommuFd, IommufdError};
use rustix::ioctl::{self, Ioctl, IoctlOutput, Opcode};
use vfio_bindings::bindings::vfio::VFIO_TYPE;
use vfio_ioctls::VfioIommufd;

use super::error::OpenError;
use super::iommu::Iommu;
use super::mapping::{Mapper, refusal};
use super::request::descriptor;

/// The number of `IOMMU_IOAS_IOVA_RANGES`, in Linux's `iommufd.h`.
const IOVA_RANGES: u8 = 0x84;

/// How many ranges of addresses are asked for: there are a handful, between what something else occupies.
const MAX_RANGES: usize = 256;

/// Opens `/dev/iommu`, with an address space that is empty.
pub(super) fn open() -> Result<Arc<VfioIommufd>, OpenError> {
    let iommufd = IommuFd::new().map_err(|error| match error {
        IommufdError::OpenIommufd(source) if source.kind() == io::ErrorKind::PermissionDenied => {
            OpenError::Permission {
                path: "/dev/iommu".into(),
                source,
            }
        }
        error => OpenError::NoIommufd(io::Error::other(error)),
    })?;
    let vfio = VfioIommufd::new(Arc::new(iommufd), None, None);
    Ok(Arc::new(vfio.map_err(|error| {
        OpenError::NoIommufd(io::Error::other(error))
    })?))
}

impl Mapper for Arc<VfioIommufd> {
    unsafe fn map(&self, iova: u64, base: NonNull<u8>, len: usize) -> io::Result<()> {
        // SAFETY: the caller's contract.
        unsafe { self.vfio_dma_map(iova, len, base.as_ptr()) }.map_err(refusal)
    }

    fn unmap(&self, iova: u64, len: usize) -> io::Result<()> {
        self.vfio_dma_unmap(iova, len).map_err(refusal)
    }

    /// There is no such limit: what is locked counts alone.
    fn mappings_left(&self, _mapped: u32) -> io::Result<Option<u32>> {
        Ok(None)
    }
}

/// `struct iommu_ioas_iova_ranges`.
#[repr(C)]
struct IovaRanges {
    size: u32,
    space: u32,
    count: u32,
    reserved: u32,
    /// The address of that many pairs.
    ranges: u64,
    alignment: u64,
}

/// The request for the addresses of an address space.
struct Ask<'a> {
    argument: IovaRanges,
    /// First and last addresses, which `argument` says the place of.
    ranges: &'a mut [[u64; 2]],
}

// SAFETY: the argument is the structure that the request takes, with its size and that of
// its array, which stays borrowed.
unsafe impl Ioctl for Ask<'_> {
    type Output = IovaRanges;

    const IS_MUTATING: bool = true;

    fn opcode(&self) -> Opcode {
        ioctl::opcode::none(VFIO_TYPE, IOVA_RANGES)
    }

    fn as_ptr(&mut self) -> *mut c_void {
        self.argument.count = self.ranges.len() as u32;
        self.argument.ranges = self.ranges.as_mut_ptr().expose_provenance() as u64;
        (&raw mut self.argument).cast()
    }

    unsafe fn output_from_ptr(
        _: IoctlOutput,
        argument: *mut c_void,
    ) -> rustix::io::Result<IovaRanges> {
        // SAFETY: it is what `as_ptr` returned.
        Ok(unsafe { argument.cast::<IovaRanges>().read() })
    }
}

/// What an address space can do, with the functions that are in it.
pub(super) fn iommu(vfio: &VfioIommufd) -> io::Result<Iommu> {
    let mut ranges = [[0; 2]; MAX_RANGES];
    let fd: BorrowedFd<'_> = descriptor(&**vfio.iommufd());
    let ask = Ask {
        argument: IovaRanges {
            size: size_of::<IovaRanges>() as u32,
            space: vfio.ioas().id(),
            count: 0,
            reserved: 0,
            ranges: 0,
            alignment: 0,
        },
        ranges: &mut ranges,
    };
    // SAFETY: as told at `Ask`.
    let told = unsafe { ioctl::ioctl(fd, ask) }?;
    Ok(Iommu {
        page: told.alignment,
        addresses: ranges
            .iter()
            .take(told.count as usize)
            .map(|[first, last]| *first..=*last)
            .collect(),
        mappings_left: None,
    })
}

#[cfg(test)]
#[cfg(not(miri))] // it has no devices
mod tests {
    use super::*;

    #[test]
    fn a_kernel_without_iommufd_is_told() {
        assert_eq!(size_of::<IovaRanges>(), 32);
        if std::path::Path::new("/dev/iommu").exists() {
            eprintln!("SKIPPED: this kernel has iommufd");
            return;
        }
        let refused = open().err().unwrap();
        assert!(refused.to_string().contains("CONFIG_IOMMUFD"), "{refused}");
    }
}
