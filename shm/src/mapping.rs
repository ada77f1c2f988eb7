//! Windows on what is mapped into this address space: files that are mapped here, and guest memory that somebody else
//! has mapped.
#![allow(unsafe_code)]

use core::ptr::NonNull;
use std::io;
use std::os::fd::BorrowedFd;
use std::sync::Arc;

use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};

use crate::mapped::Mapped;
use crate::window::MemoryType;

/// A shared mapping, removed when it is dropped.
struct Mapping {
    base: NonNull<u8>,
    len: usize,
}

// SAFETY: a mapping belongs to the process, not to a thread; only dropping it touches it.
unsafe impl Send for Mapping {}
// SAFETY: as for `Send`.
unsafe impl Sync for Mapping {}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: the range was mapped by `map`, and the last window on it is gone: windows keep this alive.
        if let Err(error) = unsafe { munmap(self.base.as_ptr().cast(), self.len) } {
            tracing::error!(%error, len = self.len, "munmap failed");
        }
    }
}

/// Maps the first `len` bytes of a file that cannot shrink, shared with everybody else who maps it.
///
/// A window on a read-only mapping must not be stored to: the processor faults, and the process ends.
pub(crate) fn map(fd: BorrowedFd<'_>, len: usize, writable: bool) -> io::Result<Mapped> {
    map_part(fd, 0, len, writable, MemoryType::Ordinary)
}

/// Maps the first `len` bytes of an ordinary file, for memory that has to have a path.
///
/// Such a file cannot be sealed: whoever may write it can change what is mapped, and can shorten it, after which an access is
/// a SIGBUS and ends the process. So this is for files that nobody else may write, by their permissions. [`SharedMemory`] is
/// for everything else.
///
/// [`SharedMemory`]: crate::SharedMemory
///
/// # Errors
///
/// Of `mmap(2)`.
pub fn map_file(fd: BorrowedFd<'_>, len: usize, writable: bool) -> io::Result<Mapped> {
    map_part(fd, 0, len, writable, MemoryType::Ordinary)
}

/// Maps a part of a device: `len` bytes at `offset` of `fd`, both in whole pages, for a BAR of a PCI function.
///
/// `memory_type` is [`MemoryType::Ordinary`] only where the BAR is memory of somebody else's and is cached, such as that of
/// ivshmem. Who maps a BAR must keep the function there: an access to a function that is gone, or whose memory space
/// is disabled, ends the process with a SIGBUS.
///
/// # Errors
///
/// Of `mmap(2)`.
pub fn map_device(
    fd: BorrowedFd<'_>,
    offset: u64,
    len: usize,
    writable: bool,
    memory_type: MemoryType,
) -> io::Result<Mapped> {
    map_part(fd, offset, len, writable, memory_type)
}

fn map_part(
    fd: BorrowedFd<'_>,
    offset: u64,
    len: usize,
    writable: bool,
    memory_type: MemoryType,
) -> io::Result<Mapped> {
    let protection = if writable {
        ProtFlags::READ | ProtFlags::WRITE
    } else {
        ProtFlags::READ
    };
    // SAFETY: the kernel chooses an unused range of addresses, so no memory in use is replaced.
    let base = unsafe {
        mmap(
            std::ptr::null_mut(),
            len,
            protection,
            MapFlags::SHARED,
            fd,
            offset,
        )
    }?;
    let base = NonNull::new(base.cast::<u8>()).ok_or(io::ErrorKind::AddrNotAvailable)?;
    let mapping = Arc::new(Mapping { base, len });
    // SAFETY: the bytes stay mapped as long as `mapping` lives, and nobody can hold a reference into a range of
    // addresses that was unused until now.
    Ok(unsafe { Mapped::new(base, len, memory_type, mapping) })
}

/// A window on the `len` bytes at `address` of a guest's memory, which it keeps mapped; or how many of them are
/// contiguous and may be accessed so, if those are fewer.
#[cfg(feature = "vm-memory")]
pub(crate) fn guest_window<M>(
    memory: &Arc<M>,
    address: vm_memory::GuestAddress,
    len: usize,
    permissions: vm_memory::Permissions,
) -> Result<Mapped, usize>
where
    M: vm_memory::GuestMemory + Send + Sync + 'static,
{
    let mut slices = memory
        .get_slices(address, len, permissions)
        .map_err(|_| 0_usize)?;
    let slice = slices.next().and_then(Result::ok).ok_or(0_usize)?;
    if slice.len() < len {
        return Err(slice.len());
    }
    let base = NonNull::new(slice.ptr_guard_mut().as_ptr()).ok_or(0_usize)?;
    let keep = Arc::clone(memory);
    // SAFETY: a slice's bytes are there, for reading and writing, as long as the memory can be borrowed, and so as long
    // as the window keeps it. Nobody holds references to what a slice refers to.
    Ok(unsafe { Mapped::new(base, len, MemoryType::Ordinary, keep) })
}
