//! What is ready in an epoll set that nests in its owner's.

use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;

use rustix::event::{Timespec, epoll};
use rustix::io::Errno;

/// The most ready descriptors looked at in one call; the set reports the others the next time.
const BATCH: usize = 64;

/// Room for a look.
pub(crate) type Space = [MaybeUninit<epoll::Event>; BATCH];

/// Empty room.
pub(crate) const fn space() -> Space {
    [MaybeUninit::uninit(); BATCH]
}

/// What is ready now, without waiting; nothing if the set cannot be looked at, which is not expected.
pub(crate) fn ready<'a>(epoll: &OwnedFd, space: &'a mut Space) -> &'a [epoll::Event] {
    match epoll::wait(epoll, space, Some(&Timespec::default())) {
        Ok((ready, _)) => ready,
        Err(Errno::INTR) => &[],
        Err(errno) => {
            tracing::error!(%errno, "epoll");
            &[]
        }
    }
}
