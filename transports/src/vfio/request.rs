//! VFIO's requests that vfio-ioctls does not make, or whose answers it keeps to itself; and the descriptors behind its types.
#![allow(unsafe_code)]

use core::ffi::c_void;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

use rustix::ioctl::{self, Ioctl, IoctlOutput, Opcode};
use vfio_bindings::bindings::vfio::{
    VFIO_BASE, VFIO_IRQ_SET_ACTION_TRIGGER, VFIO_IRQ_SET_DATA_EVENTFD, VFIO_IRQ_SET_DATA_NONE,
    VFIO_TYPE,
};

/// Numbers of requests, in Linux's `vfio.h`.
const GET_REGION_INFO: u8 = VFIO_BASE as u8 + 8;
const SET_IRQS: u8 = VFIO_BASE as u8 + 10;
const RESET: u8 = VFIO_BASE as u8 + 11;
const IOMMU_GET_INFO: u8 = VFIO_BASE as u8 + 12;

/// How many words `struct vfio_iommu_type1_info` has without its capabilities.
const IOMMU_INFO_WORDS: usize = 6;

/// How many words the capabilities may take: far more than three of them do.
const MAX_IOMMU_INFO_WORDS: usize = 4096;

/// A request whose argument is a structure that begins with its own size in bytes.
struct Argument<'a> {
    number: u8,
    words: &'a mut [u32],
}

// SAFETY: VFIO reads and writes as many bytes as the argument's first word says, and `request` writes there how long the words
// are. What is written are numbers.
unsafe impl Ioctl for Argument<'_> {
    type Output = i32;

    const IS_MUTATING: bool = true;

    fn opcode(&self) -> Opcode {
        ioctl::opcode::none(VFIO_TYPE, self.number)
    }

    fn as_ptr(&mut self) -> *mut c_void {
        self.words.as_mut_ptr().cast()
    }

    unsafe fn output_from_ptr(answer: IoctlOutput, _: *mut c_void) -> rustix::io::Result<i32> {
        Ok(answer)
    }
}

fn request(fd: BorrowedFd<'_>, number: u8, words: &mut [u32]) -> io::Result<i32> {
    words[0] = size_of_val(words) as u32;
    // SAFETY: each request that is made with this takes a structure that begins with its size.
    Ok(unsafe { ioctl::ioctl(fd, Argument { number, words }) }?)
}

/// The descriptor of a container or device of vfio-ioctls, which lives as long as the borrow.
pub(super) fn descriptor(of: &impl AsRawFd) -> BorrowedFd<'_> {
    // SAFETY: both own their descriptor, and close it only when they are dropped.
    unsafe { BorrowedFd::borrow_raw(of.as_raw_fd()) }
}

/// What VFIO tells about a region: flags, size, and where it starts in the device's descriptor.
pub(super) fn region_info(device: BorrowedFd<'_>, index: u32) -> io::Result<(u32, u64, u64)> {
    let mut words = [0, 0, index, 0, 0, 0, 0, 0];
    request(device, GET_REGION_INFO, &mut words)?;
    let [_, flags, _, _, size @ .., offset_low, offset_high] = words;
    let wide = |low: u32, high: u32| u64::from(low) | u64::from(high) << 32;
    Ok((flags, wide(size[0], size[1]), wide(offset_low, offset_high)))
}

/// Has the interrupts of an index signal these eventfds.
///
/// Linux answers with the number that there are instead, and enables none, if it cannot have as many.
pub(super) fn enable_interrupts(
    device: BorrowedFd<'_>,
    index: u32,
    eventfds: &[BorrowedFd<'_>],
) -> io::Result<()> {
    let flags = VFIO_IRQ_SET_DATA_EVENTFD | VFIO_IRQ_SET_ACTION_TRIGGER;
    let mut words = vec![0, flags, index, 0, eventfds.len() as u32];
    words.extend(eventfds.iter().map(|fd| fd.as_raw_fd().cast_unsigned()));
    match request(device, SET_IRQS, &mut words)? {
        0 => Ok(()),
        fewer => Err(io::Error::other(format!("only {fewer} are to be had"))),
    }
}

/// Has no interrupt of an index signal anything.
pub(super) fn disable_interrupts(device: BorrowedFd<'_>, index: u32) -> io::Result<()> {
    let flags = VFIO_IRQ_SET_DATA_NONE | VFIO_IRQ_SET_ACTION_TRIGGER;
    request(device, SET_IRQS, &mut [0, flags, index, 0, 0]).map(drop)
}

/// Resets a device.
pub(super) fn reset(device: BorrowedFd<'_>) -> io::Result<()> {
    // SAFETY: the request takes no argument.
    Ok(unsafe {
        ioctl::ioctl(
            device,
            ioctl::NoArg::<{ ioctl::opcode::none(VFIO_TYPE, RESET) }>::new(),
        )
    }?)
}

/// The words of `struct vfio_iommu_type1_info` and of its capabilities.
pub(super) fn iommu_info(container: BorrowedFd<'_>) -> io::Result<Vec<u32>> {
    let mut words = vec![0; IOMMU_INFO_WORDS];
    request(container, IOMMU_GET_INFO, &mut words)?;
    let needed = (words[0] as usize)
        .div_ceil(4)
        .clamp(IOMMU_INFO_WORDS, MAX_IOMMU_INFO_WORDS);
    words = vec![0; needed];
    request(container, IOMMU_GET_INFO, &mut words)?;
    Ok(words)
}
