//! What the host does with the messages of its peers, and what the owner of a [`Listener`] does with sessions.

use std::collections::BTreeSet;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Instant;

use shmbus_shm::{Access, SharedMemory};
use shmbus_virtio::FeatureError;

use super::complaints::Complaint;
use super::connection::{
    CloseReason, Connection, Session, SessionId, Stage, State, insert_or_replace,
};
use super::listener::{Applicant, Event, Listener};
use super::message::{
    Announcement, Entry, GoodbyeReason, Hello, MAX_PAGE_ENTRIES, Message, Page, PeerRole, Refusal,
    RefusalCode, Welcome,
};
use crate::doorbells::{Doorbells, MAX_CLASSES};
use crate::memory::{Memory, MemoryRole};

/// The most memories that the host hands to one guest.
pub const MAX_MEMORIES: usize = 32;

/// What a guest is let in with.
#[derive(Clone, Debug)]
pub struct Admission<'a> {
    /// The size of the memory that the guest is to make, in bytes.
    pub guest_memory_bytes: u64,
    /// The host's memories for this session: one HOST, and COMMON ones. The SHARED ones of the bus come by themselves.
    pub memories: Vec<Memory>,
    /// The doorbells; the guest gets all of them.
    pub doorbells: &'a Doorbells,
}

/// Why something cannot be done with a session.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SessionError {
    /// It is over. Its [`Event::Closed`] has come or will come, unless the owner ended it.
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
    /// Acts on a message of a connection; an error ends the connection.
    pub(super) fn handle(
        &mut self,
        number: u64,
        message: Message,
        mut descriptors: Vec<OwnedFd>,
        now: Instant,
    ) -> Result<(), CloseReason> {
        let Some(connection) = self.connections.get_mut(&number) else {
            return Ok(());
        };
        let kind = message.kind();
        let out_of_place = |state| Err(CloseReason::OutOfPlace { kind, state });
        match (&mut connection.state, message) {
            (State::Silent, Message::Hello(hello)) => self.greet(number, hello, now),
            (State::Silent, _) => out_of_place("where HELLO is expected"),
            (_, Message::Goodbye(reason)) => Err(CloseReason::Goodbye(reason)),
            (State::Inspector, Message::List { from }) => self.show(number, from),
            (State::Inspector, _) => out_of_place("where an inspector's LIST is expected"),
            (State::Guest(session), Message::Memory(announced)) => {
                let Stage::Invited { guest_memory_bytes } = session.stage else {
                    return out_of_place(session.stage.describe());
                };
                // The codec has seen to it that there is exactly one.
                let Some(fd) = descriptors.pop() else {
                    return out_of_place("without a descriptor");
                };
                let memory = take_guest_memory(fd, announced, guest_memory_bytes)?;
                session.keep(memory.clone());
                session.stage = Stage::Mapping;
                let session = session.id;
                self.events.push_back(Event::Memory { session, memory });
                Ok(())
            }
            (State::Guest(session), _) => out_of_place(session.stage.describe()),
        }
    }

    fn greet(&mut self, number: u64, hello: Hello, now: Instant) -> Result<(), CloseReason> {
        match hello.role {
            PeerRole::Inspector => self.let_inspector_in(number, now),
            PeerRole::Guest => {
                match self.negotiate(&hello) {
                    Err(refusal) => self.turn_away(number, refusal, now),
                    Ok(applicant) => self.introduce(number, applicant),
                }
                Ok(())
            }
        }
    }

    /// What both sides support, if it goes together and there is room for one more.
    fn negotiate(&mut self, hello: &Hello) -> Result<Applicant, Refusal> {
        let quota = self.options.quotas.sessions;
        if self.sessions.len() >= quota {
            let text = format!(
                "the host serves as many guests as it may ({quota}): stop one, or raise its quota"
            );
            return Err(Refusal::new(RefusalCode::Busy, &text));
        }
        let features = hello.features.choose(self.options.features);
        features.check().map_err(|error: FeatureError| {
            Refusal::new(RefusalCode::Features, &error.to_string())
        })?;
        Ok(Applicant {
            session: self.fresh_session(),
            name: hello.name.clone(),
            features,
            private: hello.private & self.options.private,
        })
    }

    fn fresh_session(&mut self) -> SessionId {
        loop {
            let next = self.last_session.0.wrapping_add(1).max(1);
            self.last_session = SessionId(next);
            if !self.sessions.contains_key(&self.last_session) {
                return self.last_session;
            }
        }
    }

    fn introduce(&mut self, number: u64, applicant: Applicant) {
        let Some(connection) = self.connections.get_mut(&number) else {
            return;
        };
        connection.state = State::Guest(Session {
            id: applicant.session,
            name: applicant.name.clone(),
            stage: Stage::Deciding,
            features: applicant.features,
            private: applicant.private,
            memories: Vec::new(),
        });
        self.silent.remove(&number);
        self.sessions.insert(applicant.session, number);
        self.events.push_back(Event::Hello(applicant));
    }

    fn turn_away(&mut self, number: u64, refusal: Refusal, now: Instant) {
        if let Some(connection) = self.forget(number) {
            let why = refusal.text.clone();
            // Whether it still listens or not, it is gone.
            let _ = connection.socket.send(&Message::Refusal(refusal), &[]);
            self.complaints.about(Complaint::Refused, now, why);
        }
    }

    /// One inspector too many pushes out the oldest: they hold nothing that could not be had again.
    fn let_inspector_in(&mut self, number: u64, now: Instant) -> Result<(), CloseReason> {
        let quota = self.options.quotas.inspectors;
        if quota == 0 {
            let text = "this host takes no inspectors";
            self.turn_away(number, Refusal::new(RefusalCode::Busy, text), now);
            return Ok(());
        }
        if self.inspectors.len() >= quota
            && let Some(oldest) = self.inspectors.first().copied()
        {
            self.lose(oldest, CloseReason::PushedOut, now);
        }
        let welcome = Welcome {
            session: 0,
            features: self.options.features,
            private: self.options.private,
            guest_memory_bytes: 0,
            memories: 0,
            classes: 0,
        };
        if let Some(connection) = self.connections.get_mut(&number) {
            connection.socket.send(&Message::Welcome(welcome), &[])?;
            connection.state = State::Inspector;
            connection.deadline = None;
            self.silent.remove(&number);
            self.inspectors.insert(number);
        }
        Ok(())
    }

    /// Sends one page of the list: ordered by session, then by memory id, so that it can be gone on with while sessions
    /// come and go.
    fn show(&mut self, number: u64, from: u64) -> Result<(), CloseReason> {
        let key = |session: u32, memory: &Memory| u64::from(session) << 32 | u64::from(memory.id);
        let bus = self.shared.iter().map(|memory| (0, None, memory));
        let sessions = self
            .sessions
            .range(SessionId((from >> 32) as u32)..)
            .filter_map(|(_, number)| match &self.connections.get(number)?.state {
                State::Guest(session) if session.stage == Stage::Running => Some(session),
                _ => None,
            })
            .flat_map(|session| {
                let memories = session.memories.iter();
                memories.map(|memory| (session.id.0, Some(&session.name), memory))
            });
        let mut page = Page::default();
        let mut memories = Vec::new();
        for (session, guest, memory) in bus.chain(sessions) {
            if key(session, memory) < from || !memory.role.has_one_writer() {
                continue;
            }
            if memories.len() == MAX_PAGE_ENTRIES {
                page.next = key(session, memory);
                break;
            }
            page.entries.push(Entry {
                session,
                guest: guest.cloned(),
                memory: memory.into(),
            });
            memories.push(memory.as_fd());
        }
        if let Some(connection) = self.connections.get(&number) {
            connection.socket.send(&Message::Page(page), &memories)?;
        }
        Ok(())
    }

    /// Lets a guest in: sends it the terms, the memories and the doorbells. [`Event::Memory`] comes next.
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
        if classes > MAX_CLASSES || doorbells.to_guest.len() != classes {
            let found = format!("{classes} and {}", doorbells.to_guest.len());
            return wrong("as many doorbells each way, at most 16", found);
        }
        let mut hosts = 0;
        for memory in &admission.memories {
            match memory.role {
                MemoryRole::Host if memory.is_readable_only() => hosts += 1,
                MemoryRole::Common => {}
                role => return wrong("a sealed HOST and COMMON ones", role.to_string()),
            }
        }
        if hosts != 1 {
            return wrong("one HOST memory", hosts.to_string());
        }
        let memories: Vec<_> = admission
            .memories
            .iter()
            .chain(&self.shared)
            .cloned()
            .collect();
        if memories.len() > MAX_MEMORIES {
            return wrong("at most 32 memories", memories.len().to_string());
        }
        let ids: BTreeSet<u32> = memories.iter().map(|memory| memory.id).collect();
        if ids.len() != memories.len() || ids.contains(&(MemoryRole::Guest as u32)) {
            return wrong(
                "an id for each, none of them the GUEST memory's",
                format!("{ids:?}"),
            );
        }
        Ok(memories)
    }

    /// Tells a guest that its session runs, after [`Event::Memory`].
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

    /// Refuses a guest, or breaks off its handshake, and tells it why. No [`Event::Closed`] follows.
    pub fn refuse(&mut self, session: SessionId, code: RefusalCode, text: &str) {
        if let Some(number) = self.sessions.get(&session).copied() {
            self.turn_away(number, Refusal::new(code, text), Instant::now());
        }
    }

    /// Ends a session and tells the guest why. No [`Event::Closed`] follows.
    pub fn close(&mut self, session: SessionId, reason: GoodbyeReason) {
        if let Some(number) = self.sessions.get(&session).copied()
            && let Some(connection) = self.forget(number)
        {
            // Whether it still listens or not, it is gone.
            let _ = connection.socket.send(&Message::Goodbye(reason), &[]);
        }
    }

    /// Makes a SHARED memory known: to every guest there is, and to every one that comes. It replaces the one with the same
    /// id; its epoch must then be higher.
    ///
    /// # Errors
    ///
    /// [`SessionError::Memories`]: another role, not sealed, an epoch that has been, too many.
    pub fn share(&mut self, memory: Memory) -> Result<(), SessionError> {
        let wrong = |expected, found| Err(SessionError::Memories { expected, found });
        if memory.role != MemoryRole::Shared || !memory.is_readable_only() {
            return wrong("a sealed SHARED memory", memory.role.to_string());
        }
        let previous = self.shared.iter().find(|known| known.id == memory.id);
        if previous.is_some_and(|known| known.epoch >= memory.epoch) {
            return wrong("a higher epoch", memory.epoch.to_string());
        }
        if previous.is_none() && self.shared.len() == MAX_MEMORIES / 2 {
            return wrong("at most 16 SHARED memories", "one more".to_owned());
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
        let sealed = match memory.role {
            MemoryRole::Host => memory.is_readable_only(),
            role => role == MemoryRole::Common,
        };
        if !sealed {
            return wrong("a sealed HOST, or a COMMON memory", memory.role.to_string());
        }
        match state.memories.iter().find(|known| known.id == memory.id) {
            Some(known) if known.role != memory.role || known.epoch >= memory.epoch => {
                return wrong("the same role and a higher epoch", memory.epoch.to_string());
            }
            None if state.memories.len() >= MAX_MEMORIES / 2 => {
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
                self.wake_by(now, now);
            }
            return Err(over);
        }
        Ok(())
    }
}

fn take_guest_memory(
    fd: OwnedFd,
    announced: Announcement,
    bytes: u64,
) -> Result<Memory, CloseReason> {
    let id = MemoryRole::Guest as u32;
    if announced.role != MemoryRole::Guest || announced.id != id || announced.bytes != bytes {
        let found = format!(
            "{} with id {} and {} bytes",
            announced.role, announced.id, announced.bytes
        );
        return Err(CloseReason::OtherMemory { id, bytes, found });
    }
    let shared = SharedMemory::from_peer(fd, bytes, Access::Read)?;
    Ok(Memory::new(MemoryRole::Guest, announced.epoch, shared))
}
