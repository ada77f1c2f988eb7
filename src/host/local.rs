//! Guests that are processes on this machine: each memory a memfd of its own, sealed for its one writer.

use std::os::fd::{AsFd, BorrowedFd};

use shmbus_shm::{MemoryId, Section, Writing};
use shmbus_signal::CLASSES;
use shmbus_transports::local::{
    Admission, CloseReason, Event, GoodbyeReason, Listener, RefusalCode, SessionId,
};
use shmbus_transports::{Doorbells, Memory};

use super::error::HostError;
use super::port::{Ends, Ground, PlacedMemory, Port, PortEvent};
use crate::bells;
use crate::plan::SessionPlan;

/// Memories are made once for a session: a guest that comes back gets new ones, under a new session.
const EPOCH: u64 = 1;

/// A listener, and what it is about to hand over.
pub(super) struct LocalPort {
    listener: Listener,
    prepared: Option<Prepared>,
}

struct Prepared {
    session: SessionId,
    guest_memory_bytes: u64,
    memories: Vec<Memory>,
    /// The guest's ends.
    doorbells: Doorbells,
}

impl LocalPort {
    /// Gives `shared` to every guest that comes, and shows inspectors `shown` besides.
    pub(super) fn new<'a>(
        mut listener: Listener,
        shared: &Memory,
        shown: impl IntoIterator<Item = &'a Memory>,
    ) -> Result<Self, HostError> {
        listener.share(shared.clone())?;
        for memory in shown {
            listener.show(memory.clone())?;
        }
        Ok(Self {
            listener,
            prepared: None,
        })
    }
}

impl From<&Memory> for PlacedMemory {
    fn from(memory: &Memory) -> Self {
        Self {
            window: memory.window().clone(),
            epoch: memory.epoch,
        }
    }
}

impl Port for LocalPort {
    fn fd(&self) -> BorrowedFd<'_> {
        self.listener.as_fd()
    }

    fn next_event(&mut self) -> Option<PortEvent> {
        Some(match self.listener.next_event()? {
            Event::Hello(applicant) => PortEvent::Hello(applicant),
            Event::Memory { session, memory } => PortEvent::Memory {
                session,
                memory: (&memory).into(),
            },
            Event::Closed { session, reason } => PortEvent::Closed {
                session,
                farewell: matches!(reason, CloseReason::Goodbye(_)).then(|| reason.to_string()),
            },
        })
    }

    fn prepare(&mut self, session: SessionId, plan: &SessionPlan) -> Result<Ground, HostError> {
        let create = |id: MemoryId, name| Memory::create(id, name, plan.bytes(id.section()), EPOCH);
        let host = create(MemoryId::HOST, "shmbus-host")?;
        let common = create(MemoryId::COMMON, "shmbus-common")?;
        let (ours, doorbells) = Doorbells::create(CLASSES)?;
        let ground = Ground {
            host: (&host).into(),
            common: (&common).into(),
            copy: None,
            writing: Writing::Enforced,
            guest_epoch: EPOCH,
            doorbells: Ends {
                wakers: bells::wakers(ours.to_guest)?,
                waiters: bells::waiters(ours.to_host)?,
            },
        };
        self.prepared = Some(Prepared {
            session,
            guest_memory_bytes: plan.bytes(Section::Guest),
            memories: vec![host, common],
            doorbells,
        });
        Ok(ground)
    }

    fn welcome(&mut self, session: SessionId) -> Result<(), HostError> {
        let prepared = self.prepared.take();
        let prepared = prepared.filter(|prepared| prepared.session == session);
        let prepared = prepared.ok_or(HostError::Unprepared)?;
        let admission = Admission {
            guest_memory_bytes: prepared.guest_memory_bytes,
            memories: prepared.memories,
            doorbells: &prepared.doorbells,
        };
        Ok(self.listener.admit(session, &admission)?)
    }

    fn ready(&mut self, session: SessionId) -> Result<(), HostError> {
        Ok(self.listener.ready(session)?)
    }

    fn refuse(&mut self, session: SessionId, code: RefusalCode, text: &str) {
        self.listener.refuse(session, code, text);
    }

    fn close(&mut self, session: SessionId, reason: GoodbyeReason) {
        self.listener.close(session, reason);
    }
}
