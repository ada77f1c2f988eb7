//! What carries a session: any transport, as a guest uses it.

use std::os::fd::{AsFd, BorrowedFd};

use shmbus_shm::{Mapped, MemoryId, MemoryMap};
use shmbus_signal::os::{Waiter, Wake};
use shmbus_transports::ivshmem::guest::{self as ivshmem, LinkClosed};
use shmbus_transports::local::{self, CloseReason, GoodbyeReason, LinkEvent};
use shmbus_transports::{Doorbells, Memory};

use super::error::GuestError;
use crate::bells;
use crate::region_set::RegionSetError;

/// Why the host is gone.
#[derive(Debug, thiserror::Error)]
pub enum HostGone {
    /// Over a socket.
    #[error(transparent)]
    Local(#[from] CloseReason),
    /// Over an ivshmem function.
    #[error(transparent)]
    Ivshmem(#[from] LinkClosed),
}

/// What a host offers: memories in which the guest formats its own, before it says that it has.
pub(super) enum Invitation {
    Local {
        invitation: local::Invitation,
        own: Memory,
    },
    Ivshmem(ivshmem::Invitation),
}

impl Invitation {
    /// Over a socket the guest's memory is made here.
    pub(super) fn local(invitation: local::Invitation) -> Result<Self, GuestError> {
        let bytes = invitation.guest_memory_bytes();
        let own = Memory::create(MemoryId::GUEST, "shmbus-guest", bytes, 1)?;
        Ok(Self::Local { invitation, own })
    }

    /// The session's memories, and the host's, which starts with the directory.
    pub(super) fn memories(&self) -> Result<(MemoryMap, Mapped), RegionSetError> {
        let mut map = MemoryMap::new();
        let mut host = None;
        let mut insert = |id, epoch, window: &Mapped| {
            map.insert(id, epoch, window.clone());
            if id == MemoryId::HOST {
                host = Some(window.clone());
            }
        };
        match self {
            Self::Local { invitation, own } => {
                for memory in invitation.memories().iter().chain([own]) {
                    insert(memory.id, memory.epoch, memory.window());
                }
            }
            Self::Ivshmem(invitation) => {
                for section in invitation.sections() {
                    insert(section.id, section.epoch, &section.window);
                }
            }
        }
        Ok((map, host.ok_or(RegionSetError::Missing { role: 0 })?))
    }

    /// Says that the guest's memory is formatted, and waits until the session runs.
    pub(super) fn complete(self) -> Result<(Link, Ends), GuestError> {
        match self {
            Self::Local { invitation, own } => {
                let mut link = invitation.complete(own)?;
                let Doorbells { to_host, to_guest } = std::mem::take(&mut link.doorbells);
                let ends = Ends {
                    wakers: bells::wakers(to_host)?,
                    waiters: Some(bells::waiters(to_guest)?),
                };
                Ok((Link::Local(link), ends))
            }
            Self::Ivshmem(invitation) => {
                let mut link = invitation.complete()?;
                let ends = Ends {
                    wakers: std::mem::take(&mut link.wakers),
                    waiters: Some(std::mem::take(&mut link.waiters))
                        .filter(|waiters| !waiters.is_empty()),
                };
                Ok((Link::Ivshmem(link), ends))
            }
        }
    }
}

/// This side's ends of the doorbells, by class.
pub(super) struct Ends {
    pub(super) wakers: Vec<Box<dyn Wake>>,
    /// None where nothing rings.
    pub(super) waiters: Option<Vec<Waiter>>,
}

/// A running session.
pub(super) enum Link {
    Local(local::GuestLink),
    Ivshmem(ivshmem::GuestLink),
}

impl Link {
    /// Whether the session is over, and why, once its descriptor is readable.
    pub(super) fn next_event(&mut self) -> Option<HostGone> {
        match self {
            Self::Local(link) => match link.next_event()? {
                LinkEvent::Closed(reason) => Some(reason.into()),
                LinkEvent::Memory(_) => None,
            },
            Self::Ivshmem(link) => link.next_event().map(HostGone::from),
        }
    }

    pub(super) fn leave(self) {
        match self {
            Self::Local(link) => link.goodbye(GoodbyeReason::Finished),
            Self::Ivshmem(link) => link.goodbye(GoodbyeReason::Finished),
        }
    }
}

impl AsFd for Link {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Local(link) => link.as_fd(),
            Self::Ivshmem(link) => link.as_fd(),
        }
    }
}
