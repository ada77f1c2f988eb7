//! A doorbell that is an eventfd: one object, at both ends.

use std::fs::read_link;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};

use rustix::event::{EventfdFlags, eventfd};
use rustix::io::{Errno, ReadWriteFlags, ioctl_fionbio, preadv2, retry_on_intr, write};

use super::doorbell::DoorbellError;

pub(super) fn create() -> io::Result<OwnedFd> {
    Ok(eventfd(0, EventfdFlags::NONBLOCK | EventfdFlags::CLOEXEC)?)
}

/// Checks that a descriptor is an eventfd, and makes it non-blocking.
pub(super) fn checked(fd: OwnedFd) -> Result<OwnedFd, DoorbellError> {
    let found = read_link(format!("/proc/self/fd/{}", fd.as_raw_fd()))?;
    if found.as_os_str() != "anon_inode:[eventfd]" {
        return Err(DoorbellError::NotAnEventfd { found });
    }
    ioctl_fionbio(&fd, true).map_err(io::Error::from)?;
    Ok(fd)
}

/// A counter that is full is as good: it was not emptied by a waiter since.
pub(super) fn ring(fd: BorrowedFd<'_>) -> io::Result<()> {
    match retry_on_intr(|| write(fd, &1_u64.to_ne_bytes())) {
        Ok(_) | Err(Errno::AGAIN) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Empties the counter; returns whether there was something in it. How much is not looked at: the peer can write any
/// number.
pub(super) fn drain(fd: BorrowedFd<'_>) -> io::Result<bool> {
    let mut count = [0; 8];
    let mut to = [io::IoSliceMut::new(&mut count)];
    // Not to block is asked for with the call: a peer may have changed the descriptor's mode.
    let at_its_position = u64::MAX;
    match retry_on_intr(|| preadv2(fd, &mut to, at_its_position, ReadWriteFlags::NOWAIT)) {
        Ok(_) => Ok(true),
        Err(Errno::AGAIN) => Ok(false),
        Err(error) => Err(error.into()),
    }
}
