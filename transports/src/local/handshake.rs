//! What the host does with the messages of its peers.

use std::os::fd::{AsFd, OwnedFd};
use std::time::Instant;

use shmbus_shm::{Access, MemoryId, SharedMemory};
use shmbus_virtio::FeatureError;

use super::complaints::Complaint;
use super::connection::{CloseReason, Session, SessionId, Stage, State};
use super::listener::{Applicant, Event, Listener};
use super::message::{
    Announcement, Entry, Hello, MAX_PAGE_ENTRIES, Message, Page, PeerRole, Refusal, RefusalCode,
    Welcome,
};
use crate::memory::Memory;

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
            (State::Inspector, Message::List { from }) => self.send_page(number, from),
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
        let is_used = |session| self.sessions.contains_key(&session);
        let next = self.options.numbering.after(self.last_session, is_used);
        self.last_session = Some(next);
        next
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

    pub(super) fn turn_away(&mut self, number: u64, refusal: Refusal, now: Instant) {
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
    fn send_page(&mut self, number: u64, from: u64) -> Result<(), CloseReason> {
        let key = |session: u32, memory: &Memory| u64::from(session) << 32 | u64::from(memory.id.0);
        let bus = self.shared.iter().chain(&self.shown);
        let bus = bus.map(|memory| (0, None, memory));
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
            if key(session, memory) < from || !memory.section().has_one_writer() {
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
}

fn take_guest_memory(
    fd: OwnedFd,
    announced: Announcement,
    bytes: u64,
) -> Result<Memory, CloseReason> {
    if announced.id != MemoryId::GUEST || announced.bytes != bytes {
        return Err(CloseReason::OtherMemory {
            bytes,
            found: announced,
        });
    }
    let shared = SharedMemory::from_peer(fd, bytes, Access::Read)?;
    Ok(Memory::new(announced.id, announced.epoch, shared))
}
