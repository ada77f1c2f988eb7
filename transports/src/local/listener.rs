//! The host's side: one socket, many peers, one thread.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::time::Instant;

use rustix::event::epoll;
use shmbus_virtio::{Features, PrivateFeatures};

use super::complaints::{Complaint, Complaints};
use super::connection::{CloseReason, Connection, Numbering, SessionId, Stage, State};
use super::door::Door;
use super::message::{GoodbyeReason, Message, Refusal};
use super::path::BindError;
use super::quotas::Quotas;
use super::ready;
use super::socket::Received;
use super::text::GuestName;
use super::timer::Timer;
use crate::memory::Memory;

/// What the listening socket is called in the epoll set.
const LISTENER: u64 = 0;
/// What the timer is called there.
const TIMER: u64 = 1;
/// The first connection.
const FIRST_CONNECTION: u64 = 2;
/// The most connections taken at once, before those that are there are looked at again.
const ACCEPT_BATCH: usize = 16;

/// How a host listens.
#[derive(Clone, Debug)]
pub struct ListenerOptions {
    /// The features of the bus that it supports.
    pub features: Features,
    /// The private features that it supports.
    pub private: PrivateFeatures,
    /// What peers may ask of it.
    pub quotas: Quotas,
    /// The permissions of the socket file: 0600, the owner alone, by default.
    pub mode: u32,
    /// What its sessions are called.
    pub numbering: Numbering,
}

impl Default for ListenerOptions {
    /// `VERSION_1`, no private features, default quotas, mode 0600.
    fn default() -> Self {
        Self {
            features: Features::VERSION_1,
            private: PrivateFeatures::empty(),
            quotas: Quotas::default(),
            mode: 0o600,
            numbering: Numbering::default(),
        }
    }
}

/// A guest that asks to be let in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Applicant {
    /// The session, if it is let in.
    pub session: SessionId,
    /// What it calls itself.
    pub name: GuestName,
    /// What both sides support.
    pub features: Features,
    /// What both sides support.
    pub private: PrivateFeatures,
}

/// What the owner of a [`Listener`] has to act on.
#[derive(Debug)]
pub enum Event {
    /// A guest wants in: answer with [`Listener::admit`] or [`Listener::refuse`].
    Hello(Applicant),
    /// A guest's memory has come, checked and mapped: look into it, then answer with [`Listener::ready`] or
    /// [`Listener::refuse`].
    Memory {
        /// Whose.
        session: SessionId,
        /// The memory, as large as the guest was told.
        memory: Memory,
    },
    /// A session is over by the guest's doing: exactly one for each [`Event::Hello`] that was not answered by
    /// [`Listener::refuse`] or ended by [`Listener::close`].
    Closed {
        /// Which.
        session: SessionId,
        /// Why.
        reason: CloseReason,
    },
}

/// Serves a socket: takes connections, leads peers through the handshake, notices when they go.
///
/// Nothing here blocks and no thread is hidden: wait until [`AsFd`] is readable (it is an epoll set with a timer for
/// deadlines inside, so that it nests in another), then call [`next_event`](Self::next_event) until it returns `None`. Inspectors are
/// served without the owner's help. Dropping it hangs up on everybody and removes the socket file.
#[derive(Debug)]
pub struct Listener {
    pub(super) options: ListenerOptions,
    door: Door,
    epoll: OwnedFd,
    pub(super) timer: Timer,
    pub(super) events: VecDeque<Event>,
    /// By number, which is the order of arrival.
    pub(super) connections: BTreeMap<u64, Connection>,
    next_connection: u64,
    /// Those without a HELLO, oldest first.
    pub(super) silent: BTreeSet<u64>,
    /// The inspectors, oldest first.
    pub(super) inspectors: BTreeSet<u64>,
    pub(super) sessions: BTreeMap<SessionId, u64>,
    pub(super) last_session: Option<SessionId>,
    /// The bus's own memories, which every guest gets; ordered by id.
    pub(super) shared: Vec<Memory>,
    /// What only inspectors get besides, with ids behind those; ordered by id.
    pub(super) shown: Vec<Memory>,
    pub(super) complaints: Complaints,
}

impl Listener {
    /// Listens at `path`. A socket that a dead host left there is replaced.
    ///
    /// # Errors
    ///
    /// [`BindError`]: another host lives there, the path cannot be used, no descriptors are left.
    pub fn bind(path: impl AsRef<Path>, options: ListenerOptions) -> Result<Self, BindError> {
        let path = path.as_ref();
        let failed = |source: io::Error| BindError::Io {
            step: "wait for connections at",
            path: path.to_owned(),
            source,
        };
        let epoll =
            epoll::create(epoll::CreateFlags::CLOEXEC).map_err(|errno| failed(errno.into()))?;
        let timer = Timer::new().map_err(failed)?;
        let token = epoll::EventData::new_u64(TIMER);
        epoll::add(&epoll, &timer, token, epoll::EventFlags::IN)
            .map_err(|errno| failed(errno.into()))?;
        let door = Door::open(path, options.mode, &epoll, LISTENER)?;
        tracing::debug!(path = %path.display(), "listening");
        Ok(Self {
            options,
            door,
            epoll,
            timer,
            events: VecDeque::new(),
            connections: BTreeMap::new(),
            next_connection: FIRST_CONNECTION,
            silent: BTreeSet::new(),
            inspectors: BTreeSet::new(),
            sessions: BTreeMap::new(),
            last_session: None,
            shared: Vec::new(),
            shown: Vec::new(),
            complaints: Complaints::default(),
        })
    }

    /// Where it listens.
    pub fn path(&self) -> &Path {
        self.door.as_path()
    }

    /// The number of sessions, from HELLO on.
    pub fn sessions(&self) -> usize {
        self.sessions.len()
    }

    /// The number of open connections of every sort.
    pub fn connections(&self) -> usize {
        self.connections.len()
    }

    /// The next thing to act on, without waiting. The work done in one call is bounded; whatever is left keeps the
    /// descriptor readable.
    pub fn next_event(&mut self) -> Option<Event> {
        if let Some(event) = self.events.pop_front() {
            return Some(event);
        }
        self.turn(Instant::now());
        self.events.pop_front()
    }

    fn turn(&mut self, now: Instant) {
        let mut space = ready::space();
        let mut newcomers = false;
        for event in ready::ready(&self.epoll, &mut space) {
            match event.data.u64() {
                LISTENER => newcomers = true,
                TIMER => self.on_timer(now),
                connection => self.serve(connection, now),
            }
        }
        // Newcomers last: a HELLO that has arrived is not pushed out by them.
        if newcomers {
            self.take_newcomers(now);
        }
        if let Some(due) = self.complaints.next_settlement() {
            self.timer.wake_by(due, now);
        }
    }

    /// Takes at most one message of a connection; the descriptor stays readable while there are more, so that the others
    /// have their turn.
    fn serve(&mut self, number: u64, now: Instant) {
        let Some(connection) = self.connections.get_mut(&number) else {
            return; // closed earlier in this turn
        };
        let allowed = connection.allowed_descriptors();
        let outcome = match connection.socket.receive(allowed) {
            Ok(Received::Nothing) => Ok(()),
            Ok(Received::HungUp) => Err(CloseReason::HungUp),
            Ok(Received::Message(message, descriptors)) => {
                self.handle(number, message, descriptors, now)
            }
            Err(error) => Err(error.into()),
        };
        if let Err(reason) = outcome {
            self.lose(number, reason, now);
        }
    }

    /// Ends a connection by the peer's doing, or for its slowness.
    pub(super) fn lose(&mut self, number: u64, reason: CloseReason, now: Instant) {
        let Some(connection) = self.forget(number) else {
            return;
        };
        let Connection { socket, state, .. } = connection;
        if let Some(code) = reason.refusal_code() {
            let last_words = match &state {
                State::Guest(session) if session.stage == Stage::Running => {
                    Message::Goodbye(GoodbyeReason::Misbehaved)
                }
                _ => Message::Refusal(Refusal::new(code, &reason.to_string())),
            };
            // It may not be listening any more; it is gone either way.
            let _ = socket.send(&last_words, &[]);
        }
        match state {
            State::Guest(session) => {
                if reason.is_ordinary() {
                    tracing::debug!(session = %session.id, guest = %session.name, %reason, "session over");
                } else {
                    self.complaints.about(
                        Complaint::SessionLost,
                        now,
                        format_args!("session {} ({}): {reason}", session.id, session.name),
                    );
                }
                self.events.push_back(Event::Closed {
                    session: session.id,
                    reason,
                });
            }
            State::Silent => {
                let complaint = match reason {
                    CloseReason::PushedOut => Complaint::PushedOut,
                    _ => Complaint::NoGuest,
                };
                self.complaints.about(
                    complaint,
                    now,
                    format_args!("connection {number}: {reason}"),
                );
            }
            State::Inspector => tracing::debug!(connection = number, %reason, "inspector gone"),
        }
    }

    /// Takes a connection out of every list. Dropping it closes the socket, which takes it out of the epoll set.
    pub(super) fn forget(&mut self, number: u64) -> Option<Connection> {
        let connection = self.connections.remove(&number)?;
        match &connection.state {
            State::Silent => self.silent.remove(&number),
            State::Inspector => self.inspectors.remove(&number),
            State::Guest(session) => self.sessions.remove(&session.id).is_some(),
        };
        Some(connection)
    }

    fn take_newcomers(&mut self, now: Instant) {
        for _ in 0..ACCEPT_BATCH {
            match self.door.accept() {
                Ok(Some(fd)) => {
                    self.make_room(now);
                    if let Err(error) = self.add(fd, now) {
                        self.complaints.about(Complaint::OutOfResources, now, error);
                    }
                }
                Ok(None) => return,
                Err(error) => {
                    self.complaints.about(Complaint::OutOfResources, now, error);
                    self.push_out_oldest(now);
                    let until = self.door.pause(&self.epoll, now);
                    self.timer.wake_by(until, now);
                    return;
                }
            }
        }
    }

    fn make_room(&mut self, now: Instant) {
        while self.silent.len() >= self.options.quotas.silent.max(1) {
            self.push_out_oldest(now);
        }
    }

    fn push_out_oldest(&mut self, now: Instant) {
        let Some(oldest) = self.silent.first().copied() else {
            return;
        };
        // Its HELLO may have come since we looked.
        self.serve(oldest, now);
        if self.silent.contains(&oldest) {
            self.lose(oldest, CloseReason::PushedOut, now);
        }
    }

    fn add(&mut self, fd: OwnedFd, now: Instant) -> io::Result<()> {
        let deadline = now + self.options.quotas.handshake;
        let connection = Connection::new(fd, deadline);
        let number = self.next_connection;
        self.next_connection += 1;
        epoll::add(
            &self.epoll,
            &connection.socket,
            epoll::EventData::new_u64(number),
            epoll::EventFlags::IN,
        )?;
        self.connections.insert(number, connection);
        self.silent.insert(number);
        self.timer.wake_by(deadline, now);
        Ok(())
    }

    fn on_timer(&mut self, now: Instant) {
        self.door.resume(&self.epoll, now);
        self.complaints.settle(now);
        let late: Vec<u64> = self
            .connections
            .iter()
            .filter(|(_, connection)| connection.deadline.is_some_and(|due| due <= now))
            .map(|(number, _)| *number)
            .collect();
        for number in late {
            self.lose(number, CloseReason::TooSlow, now);
        }
        let deadlines = self.connections.values().filter_map(|c| c.deadline);
        let due = deadlines.chain(self.door.paused_until()).min();
        self.timer.restart(due, now);
    }
}

impl AsFd for Listener {
    /// Readable whenever [`next_event`](Self::next_event) has work to do.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.epoll.as_fd()
    }
}
