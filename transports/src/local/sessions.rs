//! What the owner of a [`Listener`] does with sessions.

use std::collections::BTreeSet;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Instant;

use shmbus_shm::{MemoryId, PRIORITY_CLASSES, Section};

use super::connection::{Connection, Session, SessionId, Stage, insert_or_replace};
use super::listener::Listener;
use super::message::{GoodbyeReason, Message, Refusal, RefusalCode, Welcome};
use crate::doorbells::Doorbells;
use crate::memory::Memory;

/// The most memories of one session that the host makes; and the most SHARED memories of a bus.
pub const MAX_MEMORIES: usize = 16;

/// What a guest is let in with.
#[derive(Clone, Debug)]
pub struct Admission<'a> {
    /// The size of the memory that the guest is to make, in bytes.
    pub guest_memory_bytes: u64,
    /// The host's memories for this session: [`MemoryId::HOST`], and COMMON ones. The SHARED ones of the bus come by themselves.
    pub memories: Vec<Memory>,
    /// The guest's ends of the doorbells. Drop them afterwards.
    pub doorbells: &'a Doorbells,
}

/// Why something cannot be done with a session.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SessionError {
    /// It is over. Its [`Event::Closed`](super::Event::Closed) has come or will come, unless the owner ended it.
    #[error("session {session} is over")]
    Over {
        /// Which session.
        session: SessionId,
    },
    /// It is not at this point of its life.
    #[error("session {session} cannot {step} now: it is {stage}")]
    Stage {
        /// Which session.
        session: SessionId,
        /// What was to be done.
        step: &'static str,
        /// Where it stands.
        stage: &'static str,
    },
    /// The memories do not make a session.
    #[error("the memories for a session: expected {expected}, found {found}")]
    Memories {
        /// What they should be.
        expected: &'static str,
        /// What they are.
        found: String,
    },
    /// More than the quota.
    #[error("{asked} bytes for the GUEST memory; the quota is 1 to {quota} bytes")]
    GuestMemory {
        /// What was asked for, in bytes.
        asked: u64,
        /// [`Quotas::guest_memory_bytes`](super::Quotas::guest_memory_bytes).
        quota: u64,
    },
}

impl Listener {
    /// Lets a guest in: sends it the terms, the memories and the doorbells. [`Event::Memory`](super::Event::Memory) comes next.
    ///
    /// # Errors
    ///
    /// [`SessionError`]. Where the session is not over, it still waits for an answer.
    pub fn admit(
        &mut self,
        session: SessionId,
        admission: &Admission<'_>,
    ) -> Result<(), SessionError> {
        let memories = self.check_admission(admission)?;
        let guest_memory_bytes = admission.guest_memory_bytes;
        let classes = admission.doorbells.classes();
        let state = self.session(session, Stage::Deciding, "be admitted")?;
        let welcome = Welcome {
            session: session.0,
            features: state.features,
            private: state.private,
            guest_memory_bytes,
            memories: memories.len() as u8,
            classes: classes as u8,
        };
        state.stage = Stage::Invited { guest_memory_bytes };
        for memory in &admission.memories {
            state.keep(memory.clone());
        }
        let bells: Vec<_> = admission
            .doorbells
            .to_host
            .iter()
            .chain(&admission.doorbells.to_guest)
            .map(AsFd::as_fd)
            .collect();
        self.send(session, &Message::Welcome(welcome), &[])?;
        for memory in &memories {
            self.send(session, &Message::Memory(memory.into()), &[memory.as_fd()])?;
        }
        let classes = classes as u8;
        self.send(session, &Message::Doorbells { classes }, &bells)
    }

    /// All memories that the guest gets, the bus's own included.
    fn check_admission(&self, admission: &Admission<'_>) -> Result<Vec<Memory>, SessionError> {
        let asked = admission.guest_memory_bytes;
        let quota = self.options.quotas.guest_memory_bytes;
        if asked == 0 || asked > quota {
            return Err(SessionError::GuestMemory { asked, quota });
        }
        let wrong = |expected, found| Err(SessionError::Memories { expected, found });
        let doorbells = admission.doorbells;
        let classes = doorbells.classes();
        if classes > PRIORITY_CLASSES.into() || doorbells.to_guest.len() != classes {
            let found = format!("{classes} and {}", doorbells.to_guest.len());
            return wrong("as many doorbells each way, at most 4", found);
        }
        for memory in &admission.memories {
            match memory.section() {
                Section::Host if memory.is_readable_only() => {}
                Section::Common => {}
                _ => return wrong("sealed HOST and COMMON ones", memory.id.to_string()),
            }
        }
        let memories: Vec<_> = admission
            .memories
            .iter()
            .chain(&self.shared)
            .cloned()
            .collect();
        if admission.memories.len() > MAX_MEMORIES {
            let found = admission.memories.len().to_string();
            return wrong("at most 16 memories", found);
        }
        let ids: BTreeSet<MemoryId> = memories.iter().map(|memory| memory.id).collect();
        if ids.len() != memories.len() || !ids.contains(&MemoryId::HOST) {
            let expected = "HOST 0 among them, and an id for each";
            return wrong(expected, format!("{ids:?}"));
        }
        Ok(memories)
    }

    /// Tells a guest that its session runs, after [`Event::Memory`](super::Event::Memory).
    ///
    /// # Errors
    ///
    /// [`SessionError`]: over, or not at this point.
    pub fn ready(&mut self, session: SessionId) -> Result<(), SessionError> {
        let state = self.session(session, Stage::Mapping, "become ready")?;
        state.stage = Stage::Running;
        if let Some(connection) = self.connection(session) {
            connection.deadline = None;
        }
        self.send(session, &Message::Ready, &[])
    }

    /// Refuses a guest, or breaks off its handshake, and tells it why. No [`Event::Closed`](super::Event::Closed) follows.
    pub fn refuse(&mut self, session: SessionId, code: RefusalCode, text: &str) {
        if let Some(number) = self.sessions.get(&session).copied() {
            self.turn_away(number, Refusal::new(code, text), Instant::now());
        }
    }

    /// Ends a session and tells the guest why. No [`Event::Closed`](super::Event::Closed) follows.
    pub fn close(&mut self, session: SessionId, reason: GoodbyeReason) {
        if let Some(number) = self.sessions.get(&session).copied()
            && let Some(connection) = self.forget(number)
        {
            // Whether it still listens or not, it is gone.
            let _ = connection.socket.send(&Message::Goodbye(reason), &[]);
        }
    }

    /// Shows a SHARED memory to inspectors, but to no guest. Its id is behind those of all memories that are
    /// [shared](Self::share), for which no place is left then.
    ///
    /// # Errors
    ///
    /// [`SessionError::Memories`]: of another section, not sealed, an id that is not behind the others.
    pub fn show(&mut self, memory: Memory) -> Result<(), SessionError> {
        let wrong = |expected, found| Err(SessionError::Memories { expected, found });
        if memory.section() != Section::Shared || !memory.is_readable_only() {
            return wrong("a sealed SHARED memory", memory.id.to_string());
        }
        let mut before = self.shared.iter().chain(&self.shown);
        if before.any(|known| known.id >= memory.id) {
            return wrong("an id behind those that are known", memory.id.to_string());
        }
        self.shown.push(memory);
        Ok(())
    }

    /// Makes a SHARED memory known: to every guest there is, and to every one that comes. It replaces the one with the same
    /// id; its epoch must then be higher.
    ///
    /// # Errors
    ///
    /// [`SessionError::Memories`]: of another section, not sealed, an epoch that has been, too many.
    pub fn share(&mut self, memory: Memory) -> Result<(), SessionError> {
        let wrong = |expected, found| Err(SessionError::Memories { expected, found });
        if memory.section() != Section::Shared || !memory.is_readable_only() {
            return wrong("a sealed SHARED memory", memory.id.to_string());
        }
        let previous = self.shared.iter().find(|known| known.id == memory.id);
        if previous.is_some_and(|known| known.epoch >= memory.epoch) {
            return wrong("a higher epoch", memory.epoch.to_string());
        }
        if previous.is_none() && self.shared.len() == MAX_MEMORIES {
            return wrong("at most 16 SHARED memories", "one more".to_owned());
        }
        if self.shown.iter().any(|shown| shown.id <= memory.id) {
            return wrong("an id before those of what is shown", memory.id.to_string());
        }
        insert_or_replace(&mut self.shared, memory.clone());
        let guests: Vec<SessionId> = self.sessions.keys().copied().collect();
        for session in guests {
            // One that is still being decided on gets it with the others. One whose connection fails reports that itself.
            if self.stage(session) != Some(Stage::Deciding) {
                let _ = self.send(
                    session,
                    &Message::Memory((&memory).into()),
                    &[memory.as_fd()],
                );
            }
        }
        Ok(())
    }

    /// Gives a running guest another HOST or COMMON memory, or a new one (a higher epoch) in place of one with the same id.
    ///
    /// # Errors
    ///
    /// [`SessionError`]: over, not running, or a memory that it cannot have.
    pub fn replace(&mut self, session: SessionId, memory: Memory) -> Result<(), SessionError> {
        let wrong = |expected, found| Err(SessionError::Memories { expected, found });
        let state = self.session(session, Stage::Running, "get a memory")?;
        let fits = match memory.section() {
            Section::Host => memory.is_readable_only(),
            section => section == Section::Common,
        };
        if !fits {
            return wrong("a sealed HOST, or a COMMON memory", memory.id.to_string());
        }
        match state.memories.iter().find(|known| known.id == memory.id) {
            Some(known) if known.epoch >= memory.epoch => {
                return wrong("a higher epoch", memory.epoch.to_string());
            }
            // The guest's own is among them, and does not count.
            None if state.memories.len() > MAX_MEMORIES => {
                return wrong("at most 16 memories of a session", "one more".to_owned());
            }
            _ => state.keep(memory.clone()),
        }
        self.send(
            session,
            &Message::Memory((&memory).into()),
            &[memory.as_fd()],
        )
    }

    fn connection(&mut self, session: SessionId) -> Option<&mut Connection> {
        let number = self.sessions.get(&session)?;
        self.connections.get_mut(number)
    }

    fn stage(&mut self, session: SessionId) -> Option<Stage> {
        let session = self.connection(session)?.session()?;
        Some(session.stage)
    }

    fn session(
        &mut self,
        session: SessionId,
        expected: Stage,
        step: &'static str,
    ) -> Result<&mut Session, SessionError> {
        let state = self
            .connection(session)
            .and_then(Connection::session)
            .ok_or(SessionError::Over { session })?;
        if state.stage != expected {
            return Err(SessionError::Stage {
                session,
                step,
                stage: state.stage.describe(),
            });
        }
        Ok(state)
    }

    /// Sends to a guest; one that cannot be sent to is lost, and that is an event.
    fn send(
        &mut self,
        session: SessionId,
        message: &Message,
        descriptors: &[BorrowedFd<'_>],
    ) -> Result<(), SessionError> {
        let over = SessionError::Over { session };
        let connection = self.connection(session).ok_or(over.clone())?;
        if let Err(error) = connection.socket.send(message, descriptors) {
            if let Some(number) = self.sessions.get(&session).copied() {
                let now = Instant::now();
                self.lose(number, error.into(), now);
                self.timer.wake_by(now, now);
            }
            return Err(over);
        }
        Ok(())
    }
}
