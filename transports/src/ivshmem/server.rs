//! The host's side: QEMU's ivshmem server, and a peer of its clients.
//!
//! One socket, many clients, one thread; nothing here blocks. A client is a QEMU with one guest; it gets a memory, alone or with
//! others, and eventfds. What the guest wants it says in the memory ([`layout`](super::layout)), and rings; that becomes the same
//! [`Event`]s as those of any other transport. When the client hangs up, its session is over, and all that it had is freed.

mod area;
mod client;
mod handshake;
mod outgoing;

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use rustix::event::epoll;
use shmbus_shm::{MemoryError, SharedMemory, Writers};
use shmbus_virtio::{Features, PrivateFeatures};

use self::area::Area;
use self::client::{Client, Eventfds};
pub use self::handshake::{Place, PlaceError};
use super::geometry::{Geometry, GeometryError};
use super::layout::LayoutError;
use crate::local::complaints::{Complaint, Complaints};
use crate::local::door::Door;
use crate::local::ready;
use crate::local::timer::Timer;
use crate::local::{Applicant, BindError, GoodbyeReason, Numbering, SessionId};

/// What the listening socket and the timer are called in the epoll set. Two tokens for each client follow.
const LISTENER: u64 = 0;
const TIMER: u64 = 1;
/// The most clients taken at once, before those that are there are looked at again.
const ACCEPT_BATCH: usize = 16;
/// The highest id of a client. QEMU takes 65535 as well; it looks too much like none.
const LAST_PEER: u16 = u16::MAX - 1;

/// How a host serves guests in QEMU.
#[derive(Clone, Debug)]
pub struct ServerOptions {
    /// Whether all clients get one memory, and each other's eventfds. Otherwise each has a memory of its own.
    pub is_shared: bool,
    /// How many clients there may be at a time: 1 to [`MAX_AREAS`](super::layout::MAX_AREAS).
    pub guests: usize,
    /// How large a memory is, in bytes: a power of two; none: as large as need be, at most
    /// [`DEFAULT_QUOTA`](super::DEFAULT_QUOTA).
    pub memory_bytes: Option<u64>,
    /// The features of the bus that the host supports.
    pub features: Features,
    /// The private features that it supports.
    pub private: PrivateFeatures,
    /// The permissions of the socket file: 0600, the owner alone, by default.
    pub mode: u32,
    /// What its sessions are called.
    pub numbering: Numbering,
}

impl Default for ServerOptions {
    /// 16 guests with a memory each, as large as need be; `VERSION_1`, no private features.
    fn default() -> Self {
        Self {
            is_shared: false,
            guests: 16,
            memory_bytes: None,
            features: Features::VERSION_1,
            private: PrivateFeatures::empty(),
            mode: 0o600,
            numbering: Numbering::default(),
        }
    }
}

/// A socket for QEMU cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The memory cannot be divided as it would have to be.
    #[error(transparent)]
    Geometry(#[from] GeometryError),
    /// The socket's path cannot be used.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// The memory cannot be made.
    #[error(transparent)]
    Memory(#[from] MemoryError),
    /// The memory's words cannot be written; not expected.
    #[error(transparent)]
    Layout(#[from] LayoutError),
    /// The system refused something.
    #[error(transparent)]
    System(#[from] io::Error),
}

/// Why a session, or a client, is gone.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Departure {
    /// The guest said so.
    #[error("the guest left: {0}")]
    Goodbye(GoodbyeReason),
    /// The guest's program began anew, without a word.
    #[error("the guest's program began anew")]
    BeganAnew,
    /// QEMU closed its end, or was killed.
    #[error("QEMU hung up, or was killed")]
    HungUp,
    /// The client talks, which QEMU does not.
    #[error("the client talks: QEMU says nothing over this socket")]
    Talks,
    /// The connection failed.
    #[error("socket: {0}")]
    Failed(io::Error),
}

/// What the owner of a [`Server`] has to act on.
#[derive(Debug)]
pub enum Event {
    /// A guest wants in: [`prepare`](Server::prepare) its sections and [`welcome`](Server::welcome) it, or
    /// [`refuse`](Server::refuse).
    Hello(Applicant),
    /// The guest has formatted its section: look into it, then say [`ready`](Server::ready), or refuse.
    Memory {
        /// Whose.
        session: SessionId,
    },
    /// A session is over by the guest's doing: exactly one for each [`Event::Hello`] that was not answered by
    /// [`Server::refuse`] or ended by [`Server::close`].
    Closed {
        /// Which.
        session: SessionId,
        /// Why.
        reason: Departure,
    },
}

/// A memory, and a descriptor of it for each client.
#[derive(Clone, Debug)]
struct Domain {
    memory: Arc<SharedMemory>,
    descriptor: Arc<OwnedFd>,
}

/// The one memory of all clients, and the areas of it that are free.
#[derive(Debug)]
struct SharedDomain {
    domain: Domain,
    free: Vec<Area>,
    last_peer: u16,
}

/// Serves a socket for QEMU's `ivshmem-doorbell`.
///
/// Wait until [`AsFd`] is readable (it is an epoll set with a timer inside, so that it nests in another), then call
/// [`next_event`](Self::next_event) until it returns `None`. Dropping it hangs up on everybody and removes the socket file;
/// QEMU then goes on without.
#[derive(Debug)]
pub struct Server {
    options: ServerOptions,
    geometry: Geometry,
    door: Door,
    epoll: OwnedFd,
    timer: Timer,
    events: VecDeque<Event>,
    /// By number, which is the order of arrival.
    clients: BTreeMap<u64, Client>,
    next_client: u64,
    shared: Option<SharedDomain>,
    /// The client of each session.
    sessions: BTreeMap<SessionId, u64>,
    last_session: Option<SessionId>,
    complaints: Complaints,
}

impl Server {
    /// Listens at `path`, for sessions whose sections have so many bytes each, by their numbers. A socket that a dead
    /// host left there is replaced.
    ///
    /// # Errors
    ///
    /// [`ServeError`].
    pub fn bind(
        path: impl AsRef<Path>,
        sections: [u64; 4],
        options: ServerOptions,
    ) -> Result<Self, ServeError> {
        let areas = if options.is_shared { options.guests } else { 1 };
        // The number of guests is checked in either case.
        Geometry::new([1; 4], options.guests, None)?;
        let geometry = Geometry::new(sections, areas, options.memory_bytes)?;
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC).map_err(io::Error::from)?;
        let timer = Timer::new()?;
        let token = epoll::EventData::new_u64(TIMER);
        epoll::add(&epoll, &timer, token, epoll::EventFlags::IN).map_err(io::Error::from)?;
        let door = Door::open(path.as_ref(), options.mode, &epoll, LISTENER)?;
        let mut server = Self {
            options,
            geometry,
            door,
            epoll,
            timer,
            events: VecDeque::new(),
            clients: BTreeMap::new(),
            next_client: 1,
            shared: None,
            sessions: BTreeMap::new(),
            last_session: None,
            complaints: Complaints::default(),
        };
        if server.options.is_shared {
            let (domain, mut free) = server.create_domain()?;
            // The first is taken first.
            free.reverse();
            let last_peer = super::layout::HOST_PEER;
            server.shared = Some(SharedDomain {
                domain,
                free,
                last_peer,
            });
        }
        tracing::debug!(path = %server.path().display(), bytes = geometry.memory_bytes(), "listening for QEMU");
        Ok(server)
    }

    /// Where it listens.
    pub fn path(&self) -> &Path {
        self.door.as_path()
    }

    /// How memories are divided.
    pub fn geometry(&self) -> Geometry {
        self.geometry
    }

    /// The number of clients.
    pub fn clients(&self) -> usize {
        self.clients.len()
    }

    fn create_domain(&self) -> Result<(Domain, Vec<Area>), ServeError> {
        let bytes = self.geometry.memory_bytes();
        let memory = SharedMemory::create("shmbus-ivshmem", bytes, Writers::Everybody)?;
        self.geometry
            .header(self.options.is_shared)
            .write(memory.window())?;
        let areas = (0..self.geometry.areas())
            .map(|index| Area::new(index, &self.geometry, memory.window()));
        let areas = areas.collect::<Result<_, LayoutError>>()?;
        let descriptor = Arc::new(memory.as_fd().try_clone_to_owned()?);
        let memory = Arc::new(memory);
        Ok((Domain { memory, descriptor }, areas))
    }

    /// The next thing to act on, without waiting. The work done in one call is bounded; whatever is left keeps the
    /// descriptor readable.
    pub fn next_event(&mut self) -> Option<Event> {
        if self.events.is_empty() {
            self.turn(Instant::now());
        }
        self.events.pop_front()
    }

    fn turn(&mut self, now: Instant) {
        let mut space = ready::space();
        let mut newcomers = false;
        for event in ready::ready(&self.epoll, &mut space) {
            match event.data.u64() {
                LISTENER => newcomers = true,
                TIMER => self.on_timer(now),
                token => match client::of_token(token) {
                    (number, client::Descriptor::Socket) => self.serve(number, now),
                    (number, client::Descriptor::Doorbell) => self.look(number, now),
                },
            }
        }
        if newcomers {
            self.take_newcomers(now);
        }
        if let Some(due) = self.complaints.next_settlement() {
            self.timer.wake_by(due, now);
        }
    }

    fn on_timer(&mut self, now: Instant) {
        self.door.resume(&self.epoll, now);
        self.complaints.settle(now);
        let due = |client: &Client| client.look_at.is_some_and(|due| due <= now);
        let clients = self.clients.iter().filter(|(_, client)| due(client));
        let waiting: Vec<u64> = clients.map(|(number, _)| *number).collect();
        for number in waiting {
            self.look(number, now);
        }
        let looks = self.clients.values().filter_map(|client| client.look_at);
        let due = looks.chain(self.door.paused_until()).min();
        self.timer.restart(due, now);
    }

    /// Tells a client what is left to tell, and notices that it is gone.
    fn serve(&mut self, number: u64, now: Instant) {
        let Some(client) = self.clients.get_mut(&number) else {
            return; // gone earlier in this turn
        };
        let served = client.hear().and_then(|()| client.flush(&self.epoll));
        if let Err(reason) = served {
            self.lose(number, reason, now);
        }
    }

    fn take_newcomers(&mut self, now: Instant) {
        for _ in 0..ACCEPT_BATCH {
            let failed = match self.door.accept() {
                Ok(Some(fd)) => match self.add(fd, now) {
                    Ok(()) => continue,
                    Err(error) => error,
                },
                Ok(None) => return,
                Err(error) => error.into(),
            };
            self.complaints
                .about(Complaint::OutOfResources, now, failed);
            let until = self.door.pause(&self.epoll, now);
            self.timer.wake_by(until, now);
            return;
        }
    }

    /// Takes a client in: everybody is told of everybody.
    fn add(&mut self, socket: OwnedFd, now: Instant) -> Result<(), ServeError> {
        let most = self.options.guests;
        if self.clients.len() >= most {
            let text =
                format_args!("the host serves as many guests as it may over this socket ({most})");
            self.complaints.about(Complaint::Refused, now, text);
            return Ok(());
        }
        let eventfds = Eventfds::create()?;
        let peer = self.fresh_peer();
        let number = self.next_client;
        self.next_client += 1;
        let (domain, mut area) = self.take_area()?;
        area.enter(domain.memory.window(), peer)?;
        let mut client = Client::new(number, socket, peer, &domain, area, eventfds);
        if self.shared.is_some() {
            for other in self.clients.values() {
                client.outgoing.announce(other.peer, &other.eventfds.rings);
            }
        }
        client.introduce_itself();
        if let Err(error) = client.watch(&self.epoll) {
            self.give_back(client.area);
            return Err(error.into());
        }
        tracing::debug!(client = number, peer, "QEMU connected");
        let eventfds = client.eventfds.rings.clone();
        self.clients.insert(number, client);
        self.tell_others(number, now, |outgoing| outgoing.announce(peer, &eventfds));
        self.serve(number, now);
        Ok(())
    }

    /// An area for a client: of a memory of its own, or of the one of all.
    fn take_area(&mut self) -> Result<(Domain, Area), ServeError> {
        let (domain, area) = match &mut self.shared {
            None => {
                let (domain, mut areas) = self.create_domain()?;
                (domain, areas.pop())
            }
            Some(shared) => (shared.domain.clone(), shared.free.pop()),
        };
        // There are as many as clients may be.
        let area = area.ok_or(GeometryError::Guests { found: 0 })?;
        Ok((domain, area))
    }

    /// An id that no client has: the one after the last that was given, so that it is long until one is used again.
    fn fresh_peer(&mut self) -> u16 {
        let Some(shared) = &mut self.shared else {
            // Alone with the host.
            return super::layout::HOST_PEER + 1;
        };
        loop {
            shared.last_peer = match shared.last_peer {
                LAST_PEER.. => super::layout::HOST_PEER + 1,
                last => last + 1,
            };
            let id = shared.last_peer;
            if self.clients.values().all(|client| client.peer != id) {
                return id;
            }
        }
    }

    /// Tells the other clients of a shared domain something; those that cannot be told are lost.
    fn tell_others(&mut self, number: u64, now: Instant, tell: impl Fn(&mut outgoing::Outgoing)) {
        if self.shared.is_none() {
            return;
        }
        let mut lost = Vec::new();
        for (other, client) in &mut self.clients {
            if *other == number {
                continue;
            }
            tell(&mut client.outgoing);
            if let Err(reason) = client.flush(&self.epoll) {
                lost.push((*other, reason));
            }
        }
        for (other, reason) in lost {
            self.lose(other, reason, now);
        }
    }

    /// A client is gone: with its session, its area or memory, and its descriptors.
    fn lose(&mut self, number: u64, reason: Departure, now: Instant) {
        let Some(client) = self.clients.remove(&number) else {
            return;
        };
        let peer = client.peer;
        let eventfds = client.eventfds.rings.len();
        let area = client.area;
        if let Some(session) = area.session() {
            let text = format_args!("session {session} (client {peer}): {reason}");
            self.complaints.about(Complaint::SessionLost, now, text);
            self.sessions.remove(&session);
            self.events.push_back(Event::Closed { session, reason });
        } else if matches!(reason, Departure::HungUp) {
            tracing::debug!(client = number, peer, %reason, "client gone");
        } else {
            let text = format_args!("client {peer}: {reason}");
            self.complaints.about(Complaint::NoGuest, now, text);
        }
        self.give_back(area);
        self.tell_others(number, now, |outgoing| outgoing.withdraw(peer, eventfds));
    }

    fn give_back(&mut self, mut area: Area) {
        if let Some(shared) = &mut self.shared {
            area.leave(shared.domain.memory.window());
            shared.free.push(area);
        }
    }
}

impl AsFd for Server {
    /// Readable whenever [`next_event`](Self::next_event) has work to do.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.epoll.as_fd()
    }
}
