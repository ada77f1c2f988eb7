//! The two ends of a doorbell.

use std::fmt;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;

use super::socket::Edges;
use super::{eventfd, socket};

/// A descriptor cannot be a doorbell.
#[derive(Debug, thiserror::Error)]
pub enum DoorbellError {
    /// The descriptor is something else: writing to a peer's pipe or file could block for ever.
    #[error("the descriptor is {}, and a doorbell of this kind is an eventfd", found.display())]
    NotAnEventfd {
        /// What `/proc/self/fd` calls it.
        found: PathBuf,
    },
    /// The descriptor is something else, with which the peer could make us wait.
    #[error("the descriptor is {found}, and an end of a doorbell is a UNIX stream socket")]
    NotAnEnd {
        /// What it is.
        found: String,
    },
    /// The descriptor could not be examined or set up.
    #[error("a doorbell's descriptor cannot be set up: {0}")]
    Io(#[from] io::Error),
}

/// A new doorbell between two sides that do not trust each other, silent. Keep one end, and give the other, as an
/// [`OwnedFd`], to the peer, who makes it a doorbell again by [`Waiter::from_end`] or [`Notifier::from_end`].
///
/// Whatever the peer does with its end, [`Notifier::notify`] and [`Waiter::drain`] return at once: there is no counter
/// to fill, no flag to change, no way to send anything. An eventfd ([`Waiter::new`]) lacks that, since both sides hold
/// the same one. To ring costs 0.33 microseconds instead of 0.24. Closing one end rings the other once more.
///
/// What remains is closing what a *peer* made: Linux has a close wait for every epoll instance that watches the
/// descriptor, and the peer may have kept one, and hold it up over a page fault that it controls (by userfaultfd or FUSE).
/// Who made the doorbell never gives its own end away, and is safe from that.
///
/// # Errors
///
/// Of `socketpair(2)` and `epoll_create(2)`: no descriptors left; [`io::ErrorKind::Unsupported`] on a kernel that does not
/// wake who waits for a socket when its peer is shut down again.
pub fn doorbell() -> io::Result<(Notifier, Waiter)> {
    let (fd, edges) = socket::pair()?;
    let notifier = Notifier {
        fd,
        kind: Kind::Socket,
    };
    Ok((notifier, Waiter(Rung::Edges(edges))))
}

/// Wakes the other side, by whatever means reach it: a [`Notifier`] between processes, the doorbell register of a device
/// between a guest and a host.
pub trait Wake: fmt::Debug + Send {
    /// Wakes who waits at the other end. Does not block, and it is fine if nobody waits any more.
    ///
    /// # Errors
    ///
    /// If the means fail: the other side then learns nothing until it looks by itself.
    fn wake(&self) -> io::Result<()>;
}

#[derive(Clone, Copy, Debug)]
enum Kind {
    Eventfd,
    Socket,
}

/// Rings a doorbell.
#[derive(Debug)]
pub struct Notifier {
    fd: OwnedFd,
    kind: Kind,
}

impl Notifier {
    /// The end of a [`doorbell`] that was handed over, perhaps by a peer.
    ///
    /// # Errors
    ///
    /// [`DoorbellError::NotAnEnd`], also for an eventfd: with that the peer could stall us. [`DoorbellError::Io`].
    pub fn from_end(fd: OwnedFd) -> Result<Self, DoorbellError> {
        let kind = Kind::Socket;
        socket::checked(fd).map(|fd| Self { fd, kind })
    }

    /// Wakes who waits. It is fine if nobody does any more.
    ///
    /// Over an eventfd, this relies on the non-blocking mode of a descriptor that is shared with whoever waits: a peer
    /// that fills the counter *and* makes the descriptor blocking again holds it up, and Linux has no write to an
    /// eventfd that does not rely on that mode (`pwritev2(2)` refuses `RWF_NOWAIT` there). Hence [`doorbell`].
    ///
    /// # Errors
    ///
    /// Of `write(2)` or `shutdown(2)`; none is expected.
    pub fn notify(&self) -> io::Result<()> {
        match self.kind {
            Kind::Eventfd => eventfd::ring(self.fd.as_fd()),
            Kind::Socket => socket::ring(self.fd.as_fd()),
        }
    }
}

impl Wake for Notifier {
    fn wake(&self) -> io::Result<()> {
        self.notify()
    }
}

impl TryFrom<OwnedFd> for Notifier {
    type Error = DoorbellError;

    /// The eventfd of a standard (vhost-user, vfio, KVM), or of a side that is trusted; see [`Notifier::notify`].
    ///
    /// # Errors
    ///
    /// [`DoorbellError::NotAnEventfd`], [`DoorbellError::Io`].
    fn try_from(fd: OwnedFd) -> Result<Self, DoorbellError> {
        let kind = Kind::Eventfd;
        eventfd::checked(fd).map(|fd| Self { fd, kind })
    }
}

impl From<Notifier> for OwnedFd {
    fn from(notifier: Notifier) -> Self {
        notifier.fd
    }
}

impl AsFd for Notifier {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// What a doorbell's ringing wakes.
#[derive(Debug)]
pub struct Waiter(Rung);

#[derive(Debug)]
enum Rung {
    Eventfd(OwnedFd),
    /// A socket, or an eventfd whose counter is somebody else's to empty.
    Edges(Edges),
}

impl Waiter {
    /// A new doorbell, silent, over an eventfd: between sides that trust each other, and where a standard wants an
    /// eventfd. Otherwise, see [`doorbell`].
    ///
    /// # Errors
    ///
    /// Of `eventfd(2)`: no descriptors left.
    pub fn new() -> io::Result<Self> {
        Ok(Self(Rung::Eventfd(eventfd::create()?)))
    }

    /// The end of a [`doorbell`] that was handed over, perhaps by a peer. It may have been rung already: the first [`Waiter::wait`] says so.
    ///
    /// # Errors
    ///
    /// [`DoorbellError::NotAnEnd`], also for an eventfd; [`DoorbellError::Io`].
    pub fn from_end(fd: OwnedFd) -> Result<Self, DoorbellError> {
        let edges = Edges::new(socket::checked(fd)?)?;
        Ok(Self(Rung::Edges(edges)))
    }

    /// Who rings it, for a doorbell over an eventfd.
    ///
    /// # Errors
    ///
    /// Of `fcntl(2)`: no descriptors left. [`io::ErrorKind::Unsupported`] for an end of a [`doorbell`]: the other end
    /// rings.
    pub fn notifier(&self) -> io::Result<Notifier> {
        let Rung::Eventfd(fd) = &self.0 else {
            return Err(io::ErrorKind::Unsupported.into());
        };
        let fd = fd.try_clone()?;
        let kind = Kind::Eventfd;
        Ok(Notifier { fd, kind })
    }

    /// Another waiter for the same doorbell, rung whenever this one is: for who has two things to look at then. It goes by
    /// edges and leaves an eventfd's counter alone, and so must whoever has the first one. A
    /// [`SignalSet`](super::SignalSet) does; [`Waiter::drain`] may hide a ring from the other.
    ///
    /// # Errors
    ///
    /// Of `fcntl(2)` and `epoll_create(2)`: no descriptors left.
    pub fn beside(&self) -> io::Result<Self> {
        let fd = match &self.0 {
            Rung::Eventfd(fd) => fd.try_clone()?,
            Rung::Edges(edges) => edges.watched.try_clone()?,
        };
        Ok(Self(Rung::Edges(Edges::new(fd)?)))
    }

    /// Blocks until the doorbell is rung, and silences it. Returns false if time is up (`None`: never) or a signal
    /// handler ran.
    ///
    /// # Errors
    ///
    /// Of `poll(2)`, `read(2)` or `epoll_wait(2)`.
    pub fn wait(&self, timeout: Option<Duration>) -> io::Result<bool> {
        let timeout = timespec(timeout);
        let mut fds = [PollFd::new(self, PollFlags::IN)];
        match poll(&mut fds, timeout.as_ref()) {
            Ok(0) | Err(Errno::INTR) => Ok(false),
            Ok(_) => self.drain(),
            Err(error) => Err(error.into()),
        }
    }

    /// Silences the doorbell without blocking; returns whether it had been rung.
    ///
    /// # Errors
    ///
    /// Of `read(2)` or `epoll_wait(2)`.
    pub fn drain(&self) -> io::Result<bool> {
        match &self.0 {
            Rung::Eventfd(fd) => eventfd::drain(fd.as_fd()),
            Rung::Edges(edges) => edges.drain(),
        }
    }

    /// What a set watches for edges, by itself.
    pub(super) fn into_watched(self) -> OwnedFd {
        match self.0 {
            Rung::Eventfd(fd) => fd,
            Rung::Edges(edges) => edges.watched,
        }
    }
}

impl TryFrom<OwnedFd> for Waiter {
    type Error = DoorbellError;

    /// The eventfd of a standard, or of a side that is trusted.
    ///
    /// # Errors
    ///
    /// [`DoorbellError::NotAnEventfd`], [`DoorbellError::Io`].
    fn try_from(fd: OwnedFd) -> Result<Self, DoorbellError> {
        eventfd::checked(fd).map(|fd| Self(Rung::Eventfd(fd)))
    }
}

impl From<Waiter> for OwnedFd {
    /// The end to give to a peer.
    fn from(waiter: Waiter) -> Self {
        waiter.into_watched()
    }
}

impl AsFd for Waiter {
    /// Readable while the doorbell is rung and not silenced. Of a [`doorbell`]'s end, this is a descriptor of our own
    /// that watches it, and nothing for a peer.
    fn as_fd(&self) -> BorrowedFd<'_> {
        match &self.0 {
            Rung::Eventfd(fd) => fd.as_fd(),
            Rung::Edges(edges) => edges.edges.as_fd(),
        }
    }
}

/// A time limit for a system call; what does not fit is no limit.
pub(super) fn timespec(timeout: Option<Duration>) -> Option<Timespec> {
    timeout.and_then(|timeout| Timespec::try_from(timeout).ok())
}

// Miri knows none of these system calls.
#[cfg(all(test, not(miri)))]
mod tests;
