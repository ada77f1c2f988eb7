//! What the host keeps of one connection, and which messages it takes in which state.

use std::fmt;
use std::os::fd::OwnedFd;
use std::time::Instant;

use shmbus_shm::{MemoryError, MemoryId};
use shmbus_virtio::{Features, PrivateFeatures};

use super::connect::ConnectError;
use super::message::{Announcement, GoodbyeReason, Kind, RefusalCode};
use super::socket::{Socket, SocketError};
use super::text::GuestName;
use crate::memory::Memory;

/// The number of a guest's session: 1 and up, not reused while the host lives (but after 2^32 sessions).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SessionId(pub u32);

impl fmt::Display for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The numbers that a transport gives its sessions: each `step`th from `first` on. Transports of one host that step by as
/// many as they are, from different numbers on, never give the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Numbering {
    /// The first number, at least 1.
    pub first: u32,
    /// How far apart they are, at least 1.
    pub step: u32,
}

impl Default for Numbering {
    /// 1, 2, 3 and so on.
    fn default() -> Self {
        Self { first: 1, step: 1 }
    }
}

impl Numbering {
    /// The number after `last` that is not in use; it starts again from the first when they are used up.
    pub(crate) fn after(
        self,
        last: Option<SessionId>,
        is_used: impl Fn(SessionId) -> bool,
    ) -> SessionId {
        let first = SessionId(self.first.max(1));
        let after = |last: SessionId| {
            let next = last.0.checked_add(self.step.max(1));
            next.map_or(first, SessionId)
        };
        let mut next = last.map_or(first, after);
        while is_used(next) {
            next = after(next);
        }
        next
    }
}

/// Why a connection is over.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CloseReason {
    /// The peer said so.
    #[error("the peer left: {0}")]
    Goodbye(GoodbyeReason),
    /// The peer closed its end without a word, or was killed.
    #[error("the peer hung up, or was killed")]
    HungUp,
    /// The peer did not get ready in time.
    #[error("not ready within the time for the handshake")]
    TooSlow,
    /// Others came and this one had said nothing.
    #[error("it had said nothing, and others were waiting")]
    PushedOut,
    /// A message that cannot come now.
    #[error("a {kind} message is out of place {state}")]
    OutOfPlace {
        /// The kind of message.
        kind: Kind,
        /// When it came.
        state: &'static str,
    },
    /// The guest announced other memory than it was told to make.
    #[error("expected memory {} with {bytes} bytes, found {} with {} bytes", MemoryId::GUEST, .found.id, .found.bytes)]
    OtherMemory {
        /// The size that it was told, in bytes.
        bytes: u64,
        /// What it announced.
        found: Announcement,
    },
    /// The guest's memory cannot be used.
    #[error("the GUEST memory cannot be used: {0}")]
    Memory(#[from] MemoryError),
    /// The host offered a running guest a memory that it does not take.
    #[error(transparent)]
    BadOffer(Box<ConnectError>),
    /// The connection failed or carried something that is no message.
    #[error(transparent)]
    Socket(SocketError),
}

impl From<SocketError> for CloseReason {
    fn from(error: SocketError) -> Self {
        match error {
            SocketError::HungUp => Self::HungUp,
            other => Self::Socket(other),
        }
    }
}

impl CloseReason {
    /// What to tell the peer, if it is still there to be told.
    pub(super) fn refusal_code(&self) -> Option<RefusalCode> {
        use super::codec::MessageError;
        match self {
            Self::Goodbye(_) | Self::HungUp => None,
            Self::TooSlow | Self::PushedOut => Some(RefusalCode::Busy),
            Self::Memory(_) | Self::OtherMemory { .. } => Some(RefusalCode::Memory),
            Self::Socket(SocketError::Message(MessageError::Version { .. })) => {
                Some(RefusalCode::Version)
            }
            Self::Socket(SocketError::Full | SocketError::Io(_)) => None,
            Self::OutOfPlace { .. } | Self::BadOffer(_) | Self::Socket(_) => {
                Some(RefusalCode::Protocol)
            }
        }
    }

    /// Whether nobody did anything wrong.
    pub(super) fn is_ordinary(&self) -> bool {
        matches!(
            self,
            Self::Goodbye(GoodbyeReason::Finished | GoodbyeReason::Restarting)
        )
    }
}

/// How far a guest has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    /// HELLO has come; the owner of the listener decides.
    Deciding,
    /// WELCOME is out; the guest makes its memory.
    Invited { guest_memory_bytes: u64 },
    /// The guest's memory is here; the owner of the listener maps it.
    Mapping,
    /// READY is out.
    Running,
}

impl Stage {
    pub(super) fn describe(self) -> &'static str {
        match self {
            Self::Deciding => "before the host has answered HELLO",
            Self::Invited { .. } => "where the GUEST memory is expected",
            Self::Mapping => "before the host has answered with READY",
            Self::Running => "in a session that runs",
        }
    }
}

/// A guest.
#[derive(Debug)]
pub(super) struct Session {
    pub(super) id: SessionId,
    pub(super) name: GuestName,
    pub(super) stage: Stage,
    /// What both sides support.
    pub(super) features: Features,
    /// What both sides support.
    pub(super) private: PrivateFeatures,
    /// Both sides' memories of this session, ordered by id.
    pub(super) memories: Vec<Memory>,
}

impl Session {
    /// Adds a memory, or replaces the one with the same id.
    pub(super) fn keep(&mut self, memory: Memory) {
        insert_or_replace(&mut self.memories, memory);
    }
}

/// Keeps a list ordered by id; a memory with the same id is replaced.
pub(super) fn insert_or_replace(memories: &mut Vec<Memory>, memory: Memory) {
    match memories.binary_search_by_key(&memory.id, |kept| kept.id) {
        Ok(at) => memories[at] = memory,
        Err(at) => memories.insert(at, memory),
    }
}

#[derive(Debug)]
pub(super) enum State {
    /// No HELLO yet.
    Silent,
    Guest(Session),
    Inspector,
}

#[derive(Debug)]
pub(super) struct Connection {
    pub(super) socket: Socket,
    pub(super) state: State,
    /// When it is closed unless the handshake is over.
    pub(super) deadline: Option<Instant>,
}

impl Connection {
    pub(super) fn new(fd: OwnedFd, deadline: Instant) -> Self {
        Self {
            socket: Socket::new(fd),
            state: State::Silent,
            deadline: Some(deadline),
        }
    }

    /// How many descriptors may come with the next message.
    pub(super) fn allowed_descriptors(&self) -> usize {
        match &self.state {
            State::Guest(Session {
                stage: Stage::Invited { .. },
                ..
            }) => 1,
            _ => 0,
        }
    }

    pub(super) fn session(&mut self) -> Option<&mut Session> {
        match &mut self.state {
            State::Guest(session) => Some(session),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_of_transports_that_step_alike_are_never_the_same() {
        let numbering = Numbering { first: 2, step: 3 };
        let first = numbering.after(None, |_| false);
        assert_eq!(first, SessionId(2));
        let next = numbering.after(Some(first), |session| session == SessionId(5));
        assert_eq!(next, SessionId(8), "what is in use is passed over");
        let last = SessionId(u32::MAX - 1);
        assert_eq!(last.0 % 3, 2);
        assert_eq!(numbering.after(Some(last), |_| false), SessionId(2));
    }
}
