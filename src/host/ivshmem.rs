//! Guests in QEMU: the parts of one memory stand for the memories of a session, and the guest can write to all of them.

use std::collections::BTreeMap;
use std::os::fd::{AsFd, BorrowedFd};

use shmbus_shm::Writing;
use shmbus_signal::os::Wake;
use shmbus_transports::ivshmem::{Departure, Event, Place, Server};
use shmbus_transports::local::{Applicant, GoodbyeReason, RefusalCode, SessionId};

use super::error::HostError;
use super::port::{Ends, Ground, PlacedMemory, Port, PortEvent};
use crate::plan::SessionPlan;

/// A server for QEMU's clients.
pub(super) struct IvshmemPort {
    server: Server,
    /// Who is being let in, or has been: what READY and the guest's memory need.
    guests: BTreeMap<SessionId, Guest>,
}

struct Guest {
    applicant: Applicant,
    memory: Option<PlacedMemory>,
}

impl IvshmemPort {
    pub(super) fn new(server: Server) -> Self {
        Self {
            server,
            guests: BTreeMap::new(),
        }
    }
}

impl Port for IvshmemPort {
    fn fd(&self) -> BorrowedFd<'_> {
        self.server.as_fd()
    }

    fn next_event(&mut self) -> Option<PortEvent> {
        loop {
            match self.server.next_event()? {
                Event::Hello(applicant) => {
                    let guest = Guest {
                        applicant: applicant.clone(),
                        memory: None,
                    };
                    self.guests.insert(applicant.session, guest);
                    return Some(PortEvent::Hello(applicant));
                }
                Event::Memory { session } => {
                    let guest = self.guests.get_mut(&session);
                    if let Some(memory) = guest.and_then(|guest| guest.memory.take()) {
                        return Some(PortEvent::Memory { session, memory });
                    }
                }
                Event::Closed { session, reason } => {
                    self.guests.remove(&session);
                    let farewell =
                        matches!(reason, Departure::Goodbye(_)).then(|| reason.to_string());
                    return Some(PortEvent::Closed { session, farewell });
                }
            }
        }
    }

    fn prepare(&mut self, session: SessionId, _: &SessionPlan) -> Result<Ground, HostError> {
        let guest = self.guests.get_mut(&session).ok_or(HostError::Unprepared)?;
        let Place {
            sections,
            epoch,
            notifiers,
            waiters,
        } = self.server.prepare(session)?;
        let [host, guests, common, shared] = sections.map(|window| PlacedMemory { window, epoch });
        guest.memory = Some(guests);
        let wakers = notifiers.into_iter();
        Ok(Ground {
            host,
            common,
            copy: Some(shared),
            writing: Writing::Unenforced,
            guest_epoch: epoch,
            doorbells: Ends {
                wakers: wakers.map(|ring| Box::new(ring) as Box<dyn Wake>).collect(),
                waiters,
            },
        })
    }

    fn welcome(&mut self, session: SessionId) -> Result<(), HostError> {
        let guest = self.guests.get(&session).ok_or(HostError::Unprepared)?;
        Ok(self.server.welcome(&guest.applicant)?)
    }

    fn ready(&mut self, session: SessionId) -> Result<(), HostError> {
        Ok(self.server.ready(session)?)
    }

    fn refuse(&mut self, session: SessionId, code: RefusalCode, text: &str) {
        self.guests.remove(&session);
        self.server.refuse(session, code, text);
    }

    fn close(&mut self, session: SessionId, reason: GoodbyeReason) {
        self.guests.remove(&session);
        self.server.close(session, reason);
    }
}
