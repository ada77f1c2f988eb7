//! The two ends of an eventfd.

use std::fs::read_link;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::time::Duration;

use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use rustix::io::{Errno, ReadWriteFlags, ioctl_fionbio, preadv2, retry_on_intr, write};

/// A descriptor cannot be a doorbell.
#[derive(Debug, thiserror::Error)]
pub enum DoorbellError {
    /// The descriptor is something else: writing to a peer's pipe or file could block for ever.
    #[error("the descriptor is {}, and a doorbell is an eventfd", found.display())]
    NotAnEventfd {
        /// What `/proc/self/fd` calls it.
        found: PathBuf,
    },
    /// The descriptor could not be examined or set up.
    #[error("a doorbell's descriptor cannot be set up: {0}")]
    Io(#[from] io::Error),
}

/// Checks that a descriptor, perhaps from a peer, is an eventfd, and makes it non-blocking.
fn checked(fd: OwnedFd) -> Result<OwnedFd, DoorbellError> {
    let found = read_link(format!("/proc/self/fd/{}", fd.as_raw_fd()))?;
    if found.as_os_str() != "anon_inode:[eventfd]" {
        return Err(DoorbellError::NotAnEventfd { found });
    }
    ioctl_fionbio(&fd, true).map_err(io::Error::from)?;
    Ok(fd)
}

/// Rings a doorbell.
///
/// The descriptor is shared with the peer, and so is its non-blocking mode: a peer that fills the counter *and* makes
/// the descriptor blocking again can hold up [`Notifier::notify`]. Linux has no write that does not rely on that mode.
#[derive(Debug)]
pub struct Notifier {
    fd: OwnedFd,
}

impl Notifier {
    /// Wakes who waits. A counter that is full is as good: it was not emptied by a waiter since.
    ///
    /// # Errors
    ///
    /// Of `write(2)`; none is expected on an eventfd.
    pub fn notify(&self) -> io::Result<()> {
        match retry_on_intr(|| write(&self.fd, &1_u64.to_ne_bytes())) {
            Ok(_) | Err(Errno::AGAIN) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}

impl TryFrom<OwnedFd> for Notifier {
    type Error = DoorbellError;

    /// # Errors
    ///
    /// [`DoorbellError`], if it is no eventfd.
    fn try_from(fd: OwnedFd) -> Result<Self, DoorbellError> {
        checked(fd).map(|fd| Self { fd })
    }
}

impl AsFd for Notifier {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// What a doorbell's ringing wakes.
#[derive(Debug)]
pub struct Waiter {
    fd: OwnedFd,
}

impl Waiter {
    /// A new doorbell, silent.
    ///
    /// # Errors
    ///
    /// Of `eventfd(2)`: no descriptors left.
    pub fn new() -> io::Result<Self> {
        let fd = eventfd(0, EventfdFlags::NONBLOCK | EventfdFlags::CLOEXEC)?;
        Ok(Self { fd })
    }

    /// Who rings it.
    ///
    /// # Errors
    ///
    /// Of `fcntl(2)`: no descriptors left.
    pub fn notifier(&self) -> io::Result<Notifier> {
        let fd = self.fd.try_clone()?;
        Ok(Notifier { fd })
    }

    /// Blocks until the doorbell is rung, and silences it. Returns false if time is up (`None`: never) or a signal
    /// handler ran.
    ///
    /// # Errors
    ///
    /// Of `poll(2)` or `read(2)`.
    pub fn wait(&self, timeout: Option<Duration>) -> io::Result<bool> {
        let timeout = timespec(timeout);
        let mut fds = [PollFd::new(&self.fd, PollFlags::IN)];
        match poll(&mut fds, timeout.as_ref()) {
            Ok(0) | Err(Errno::INTR) => Ok(false),
            Ok(_) => self.drain(),
            Err(error) => Err(error.into()),
        }
    }

    /// Silences the doorbell without blocking; returns whether it had been rung. How often is not looked at: the peer
    /// can write any number.
    ///
    /// # Errors
    ///
    /// Of `read(2)`.
    pub fn drain(&self) -> io::Result<bool> {
        let mut count = [0; 8];
        let mut to = [io::IoSliceMut::new(&mut count)];
        // Not to block is asked for with the call: a peer may have changed the descriptor's mode.
        let at_its_position = u64::MAX;
        match retry_on_intr(|| preadv2(&self.fd, &mut to, at_its_position, ReadWriteFlags::NOWAIT))
        {
            Ok(_) => Ok(true),
            Err(Errno::AGAIN) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }
}

impl TryFrom<OwnedFd> for Waiter {
    type Error = DoorbellError;

    /// # Errors
    ///
    /// [`DoorbellError`], if it is no eventfd.
    fn try_from(fd: OwnedFd) -> Result<Self, DoorbellError> {
        checked(fd).map(|fd| Self { fd })
    }
}

impl AsFd for Waiter {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// A time limit for a system call; what does not fit is no limit.
pub(super) fn timespec(timeout: Option<Duration>) -> Option<Timespec> {
    timeout.and_then(|timeout| Timespec::try_from(timeout).ok())
}
