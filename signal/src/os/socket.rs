//! A doorbell that is a pair of sockets: two objects, of which each side has its own.
//!
//! Both are shut down both ways from the start, so that nothing can be sent through them: no byte, no descriptor, and
//! no queue fills. To ring is to shut one's own socket down *again*. That changes nothing, and wakes who waits at the
//! other one: Linux reports the peer's change of state with each `shutdown(2)`, and an epoll instance that reports
//! edges takes each report for one. The call never waits, whatever the peer does to its socket: it takes two spin locks,
//! neither of which is held over a copy or a sleep, and no flag of a file or socket has a say in it.
//!
//! What the peer decides is how many of its threads wait there, each of which the kernel wakes, as with any descriptor.
//!
//! Nobody promises such wake-ups of `shutdown(2)`. So [`pair`] tries it out, and a kernel that does otherwise gives no doorbell.

use std::fs::read_link;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use rustix::event::Timespec;
use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};
use rustix::io::{Errno, retry_on_intr};
use rustix::net::sockopt::{socket_domain, socket_type};
use rustix::net::{AddressFamily, Shutdown, SocketFlags, SocketType, shutdown, socketpair};

use super::doorbell::DoorbellError;

/// Who rings and who is rung, in this order; silent.
pub(super) fn pair() -> io::Result<(OwnedFd, Edges)> {
    let (rings, rung) = socketpair(
        AddressFamily::UNIX,
        SocketType::STREAM,
        SocketFlags::CLOEXEC,
        None,
    )?;
    ring(rings.as_fd())?;
    let edges = Edges::new(rung)?;
    edges.drain()?;
    for _ in 0..2 {
        ring(rings.as_fd())?;
        if !edges.drain()? || edges.drain()? {
            return Err(io::Error::new(
                io::ErrorKind::Unsupported,
                "this kernel does not report once that a socket was shut down again",
            ));
        }
    }
    Ok((rings, edges))
}

/// Checks that a descriptor from a peer is a socket of the kind of which [`ring`] never waits, and shuts it down.
pub(super) fn checked(fd: OwnedFd) -> Result<OwnedFd, DoorbellError> {
    let refuse = |found| Err(DoorbellError::NotAnEnd { found });
    match socket_domain(&fd) {
        Ok(AddressFamily::UNIX) => {}
        Ok(family) => return refuse(format!("a socket of family {}", family.as_raw())),
        Err(Errno::NOTSOCK) => {
            let found = read_link(format!("/proc/self/fd/{}", fd.as_raw_fd()))?;
            return refuse(found.display().to_string());
        }
        Err(error) => return Err(io::Error::from(error).into()),
    }
    match socket_type(&fd).map_err(io::Error::from)? {
        SocketType::STREAM => {}
        other => return refuse(format!("a UNIX socket of type {}", other.as_raw())),
    }
    // Who made it may not have done so: then the peer could send us something.
    shutdown(&fd, Shutdown::Both).map_err(io::Error::from)?;
    Ok(fd)
}

pub(super) fn ring(fd: BorrowedFd<'_>) -> io::Result<()> {
    Ok(shutdown(fd, Shutdown::Both)?)
}

/// The end that is rung. A socket that is shut down is readable for ever, so what counts are edges: `edges` collects
/// them, and is readable while there is one. An eventfd has edges too, with each write.
#[derive(Debug)]
pub(super) struct Edges {
    pub(super) watched: OwnedFd,
    pub(super) edges: OwnedFd,
}

impl Edges {
    /// Begins as rung: nobody knows what was before.
    pub(super) fn new(watched: OwnedFd) -> io::Result<Self> {
        let edges = epoll::create(CreateFlags::CLOEXEC)?;
        let flags = EventFlags::IN | EventFlags::ET;
        epoll::add(&edges, &watched, EventData::new_u64(0), flags)?;
        Ok(Self { watched, edges })
    }

    /// Returns whether it was rung since the last time.
    pub(super) fn drain(&self) -> io::Result<bool> {
        let mut events = [const { MaybeUninit::uninit() }; 1];
        let now = Timespec::default();
        let count = retry_on_intr(|| {
            epoll::wait(&self.edges, &mut events, Some(&now)).map(|(events, _)| events.len())
        })?;
        Ok(count > 0)
    }
}
