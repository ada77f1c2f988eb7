//! The ways onto a bus: what transports do, as the host sees it.

use std::os::fd::BorrowedFd;

use shmbus_shm::{Mapped, Writing};
use shmbus_signal::os::{Waiter, Wake};
use shmbus_transports::local::{Applicant, GoodbyeReason, RefusalCode, SessionId};

use super::error::HostError;
use crate::plan::SessionPlan;

/// What a port tells the bus.
pub(super) enum PortEvent {
    /// A guest wants in: [`prepare`](Port::prepare) for it, then [`welcome`](Port::welcome) or
    /// [`refuse`](Port::refuse) it.
    Hello(Applicant),
    /// The guest's memory is there: look into it, then say [`ready`](Port::ready), or refuse it.
    Memory {
        session: SessionId,
        memory: PlacedMemory,
    },
    /// A session is over by the guest's doing. What is out of the ordinary, the transport has warned of.
    Closed {
        session: SessionId,
        /// Why, if the guest said so.
        farewell: Option<String>,
    },
}

/// A memory, or the part of one that stands for it.
#[derive(Clone)]
pub(super) struct PlacedMemory {
    pub(super) window: Mapped,
    pub(super) epoch: u64,
}

/// What a transport has for a session: zeroed memory as large as its plan says, and doorbells.
pub(super) struct Ground {
    pub(super) host: PlacedMemory,
    pub(super) common: PlacedMemory,
    /// Where the guest finds a copy of what is there for all guests; none if it is given that itself.
    pub(super) copy: Option<PlacedMemory>,
    /// Whether the guest can write to these memories only where it should.
    pub(super) writing: Writing,
    /// The epoch that the guest's memory will have.
    pub(super) guest_epoch: u64,
    pub(super) doorbells: Ends,
}

/// The host's ends of a session's doorbells, by class.
pub(super) struct Ends {
    pub(super) wakers: Vec<Box<dyn Wake>>,
    pub(super) waiters: Vec<Waiter>,
}

/// A way onto the bus. Its sessions have numbers that no other port's have.
pub(super) trait Port: Send {
    /// Readable whenever [`next_event`](Self::next_event) has work to do.
    fn fd(&self) -> BorrowedFd<'_>;

    /// The next thing to act on, without waiting, by bounded work.
    fn next_event(&mut self) -> Option<PortEvent>;

    /// Gets memory and doorbells for an applicant.
    fn prepare(&mut self, session: SessionId, plan: &SessionPlan) -> Result<Ground, HostError>;

    /// Lets the applicant in: what was [prepared](Self::prepare) for it is filled in.
    fn welcome(&mut self, session: SessionId) -> Result<(), HostError>;

    /// Tells a guest that its session runs.
    fn ready(&mut self, session: SessionId) -> Result<(), HostError>;

    /// Turns an applicant away, or a guest whose memory is no good.
    fn refuse(&mut self, session: SessionId, code: RefusalCode, text: &str);

    /// Ends a session and tells the guest why.
    fn close(&mut self, session: SessionId, reason: GoodbyeReason);
}
