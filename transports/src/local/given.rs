//! What a guest takes from its host.

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;

use shmbus_shm::{Access, SharedMemory};

use super::connect::ConnectError;
use super::guest::GuestLimits;
use super::message::Announcement;
use crate::memory::{Memory, MemoryRole};

/// The memories that a host has given: which id has which role and epoch. Both only change as the rules say.
#[derive(Debug)]
pub(super) struct Given {
    limits: GuestLimits,
    known: BTreeMap<u32, (MemoryRole, u64)>,
}

impl Given {
    pub(super) fn new(limits: GuestLimits) -> Self {
        Self {
            limits,
            known: BTreeMap::new(),
        }
    }

    /// Checks and maps what a MEMORY message brought.
    pub(super) fn take(
        &mut self,
        announced: Announcement,
        mut descriptors: Vec<OwnedFd>,
    ) -> Result<Memory, ConnectError> {
        let Announcement {
            id,
            role,
            bytes,
            epoch,
        } = announced;
        let terms = |expected: String, found: String| ConnectError::Terms { expected, found };
        if role == MemoryRole::Guest {
            return Err(terms("a memory of the host".into(), role.to_string()));
        }
        if bytes > self.limits.memory_bytes {
            return Err(terms(
                format!("at most {} bytes in a memory", self.limits.memory_bytes),
                format!("{role} with {bytes} bytes"),
            ));
        }
        match self.known.get(&id) {
            Some((known, last)) if *known != role || *last >= epoch => {
                return Err(terms(
                    format!("{known} with an epoch above {last} as memory {id}"),
                    format!("{role} with epoch {epoch}"),
                ));
            }
            None if self.known.len() >= self.limits.memories => {
                return Err(terms(
                    format!("at most {} memories", self.limits.memories),
                    "one more".into(),
                ));
            }
            _ => {}
        }
        // The codec has seen to it that there is exactly one.
        let Some(fd) = descriptors.pop() else {
            return Err(terms("a descriptor with a memory".into(), "none".into()));
        };
        let access = if role == MemoryRole::Common {
            Access::ReadWrite
        } else {
            Access::Read
        };
        let shared = SharedMemory::from_peer(fd, bytes, access)
            .map_err(|source| ConnectError::Memory { role, source })?;
        self.known.insert(id, (role, epoch));
        Ok(Memory::new(role, epoch, shared).with_id(id))
    }
}
