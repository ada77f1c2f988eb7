//! What a guest takes from its host.

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;

use shmbus_shm::{Access, MemoryId, Section, SharedMemory};

use super::connect::ConnectError;
use super::guest::GuestLimits;
use super::message::Announcement;
use crate::memory::Memory;

/// The memories that a host has given, and the epoch of each, which only goes up.
#[derive(Debug)]
pub(super) struct Given {
    limits: GuestLimits,
    known: BTreeMap<MemoryId, u64>,
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
        let Announcement { id, bytes, epoch } = announced;
        let terms = |expected: String, found: String| ConnectError::Terms { expected, found };
        if id.section() == Section::Guest {
            return Err(terms("a memory of the host".into(), id.to_string()));
        }
        if bytes > self.limits.memory_bytes {
            return Err(terms(
                format!("at most {} bytes in a memory", self.limits.memory_bytes),
                format!("{id} with {bytes} bytes"),
            ));
        }
        match self.known.get(&id) {
            Some(last) if *last >= epoch => {
                return Err(terms(
                    format!("{id} with an epoch above {last}"),
                    format!("epoch {epoch}"),
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
        let access = if id.section().has_one_writer() {
            Access::Read
        } else {
            Access::ReadWrite
        };
        let shared = SharedMemory::from_peer(fd, bytes, access)
            .map_err(|source| ConnectError::Memory { id, source })?;
        self.known.insert(id, epoch);
        Ok(Memory::new(id, epoch, shared))
    }
}
