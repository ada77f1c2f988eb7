//! The guest's side: an invitation, and the link that it becomes.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Instant;

use shmbus_shm::MemoryId;
use shmbus_virtio::{Features, PrivateFeatures};

use super::connect::{ConnectError, Line};
use super::connection::{CloseReason, SessionId, insert_or_replace};
use super::given::Given;
use super::message::{GoodbyeReason, MAX_DESCRIPTORS, Message, Welcome};
use super::socket::{Received, Socket, SocketError};
use super::text::GuestName;
use crate::doorbells::Doorbells;
use crate::memory::Memory;

/// What a guest lets a host do to it: it trusts the host as little as the host trusts the guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GuestLimits {
    /// The most bytes in one memory, its own included.
    pub memory_bytes: u64,
    /// The most memories of the host.
    pub memories: usize,
}

impl Default for GuestLimits {
    /// 1 GiB in a memory, 32 memories.
    fn default() -> Self {
        Self {
            memory_bytes: 1 << 30,
            memories: 2 * super::sessions::MAX_MEMORIES,
        }
    }
}

/// How a guest connects.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GuestOptions {
    /// What the host calls it in its logs.
    pub name: GuestName,
    /// The features of the bus that it supports.
    pub features: Features,
    /// The private features that it supports.
    pub private: PrivateFeatures,
    /// What it takes from a host.
    pub limits: GuestLimits,
}

impl GuestOptions {
    /// `VERSION_1`, no private features, default limits.
    pub fn new(name: GuestName) -> Self {
        Self {
            name,
            features: Features::VERSION_1,
            private: PrivateFeatures::empty(),
            limits: GuestLimits::default(),
        }
    }
}

/// What a host offers a guest. Make the guest's memory, [`guest_memory_bytes`](Self::guest_memory_bytes) large, fill in what
/// the host should find, and [`complete`](Self::complete) the handshake with it.
#[derive(Debug)]
pub struct Invitation {
    line: Line,
    welcome: Welcome,
    given: Given,
    memories: Vec<Memory>,
    doorbells: Doorbells,
}

impl Invitation {
    /// Receives everything that follows HELLO.
    pub(super) fn receive(mut line: Line, options: &GuestOptions) -> Result<Self, ConnectError> {
        let welcome = line.expect_welcome()?;
        check_terms(&welcome, options)?;
        let mut given = Given::new(options.limits);
        let mut memories = Vec::new();
        for _ in 0..welcome.memories {
            match line.expect("MEMORY", 1)? {
                (Message::Memory(announced), fds) => {
                    insert_or_replace(&mut memories, given.take(announced, fds)?);
                }
                (other, _) => {
                    return Err(ConnectError::OutOfPlace {
                        expected: "MEMORY",
                        found: other.kind(),
                    });
                }
            }
        }
        if memories.iter().all(|memory| memory.id != MemoryId::HOST) {
            return Err(ConnectError::Terms {
                expected: format!("memory {} among them", MemoryId::HOST),
                found: format!("{} others", memories.len()),
            });
        }
        let doorbells = match line.expect("DOORBELLS", MAX_DESCRIPTORS)? {
            (Message::Doorbells { classes }, mut to_host) if classes == welcome.classes => {
                let to_guest = to_host.split_off(classes.into());
                Doorbells { to_host, to_guest }
            }
            (other, _) => {
                return Err(ConnectError::OutOfPlace {
                    expected: "DOORBELLS, as many as WELCOME said",
                    found: other.kind(),
                });
            }
        };
        Ok(Self {
            line,
            welcome,
            given,
            memories,
            doorbells,
        })
    }

    /// The number of this session on this host.
    pub fn session(&self) -> SessionId {
        SessionId(self.welcome.session)
    }

    /// What both sides support.
    pub fn features(&self) -> Features {
        self.welcome.features
    }

    /// What both sides support.
    pub fn private(&self) -> PrivateFeatures {
        self.welcome.private
    }

    /// The size of the memory that the guest is to make, in bytes.
    pub fn guest_memory_bytes(&self) -> u64 {
        self.welcome.guest_memory_bytes
    }

    /// What the host gave: [`MemoryId::HOST`] for certain, COMMON and SHARED ones.
    pub fn memories(&self) -> &[Memory] {
        &self.memories
    }

    /// Hands the guest's memory over and waits until the host says READY.
    ///
    /// # Errors
    ///
    /// [`ConnectError::Terms`] for a memory of another size or id; otherwise as for [`connect`](super::connect()).
    pub fn complete(self, memory: Memory) -> Result<GuestLink, ConnectError> {
        let Self {
            mut line,
            welcome,
            mut given,
            mut memories,
            doorbells,
        } = self;
        let told = (MemoryId::GUEST, welcome.guest_memory_bytes);
        let made = (memory.id, memory.bytes());
        if made != told {
            let describe = |(id, bytes)| format!("memory {id} with {bytes} bytes");
            return Err(ConnectError::Terms {
                expected: describe(told),
                found: describe(made),
            });
        }
        let announcement = Message::Memory((&memory).into());
        match line.socket.send(&announcement, &[memory.as_fd()]) {
            // Hung up already? It has said why: that is read next.
            Ok(()) | Err(SocketError::HungUp) => {}
            Err(source) => {
                return Err(ConnectError::Socket {
                    awaited: "the GUEST memory to be sent",
                    source,
                });
            }
        }
        loop {
            match line.expect("READY", 1)? {
                (Message::Ready, _) => break,
                // The host shares a memory anew with everybody.
                (Message::Memory(announced), fds) => {
                    let newer = given.take(announced, fds)?;
                    insert_or_replace(&mut memories, newer);
                }
                (other, _) => {
                    return Err(ConnectError::OutOfPlace {
                        expected: "READY",
                        found: other.kind(),
                    });
                }
            }
        }
        Ok(GuestLink {
            session: SessionId(welcome.session),
            features: welcome.features,
            private: welcome.private,
            guest_memory: memory,
            memories,
            doorbells,
            socket: line.socket,
            given,
            over: false,
        })
    }
}

/// Nothing may be switched on that this side did not offer, and nothing be asked that is beyond its limits.
fn check_terms(welcome: &Welcome, options: &GuestOptions) -> Result<(), ConnectError> {
    let terms = |expected: String, found: String| Err(ConnectError::Terms { expected, found });
    if let Err(error) = options.features.accept(welcome.features) {
        return terms("features that this side supports".into(), error.to_string());
    }
    if !options.private.contains(welcome.private) {
        return terms(
            format!("private features within {:#x}", options.private.bits()),
            format!("{:#x}", welcome.private.bits()),
        );
    }
    let bytes = welcome.guest_memory_bytes;
    if bytes == 0 || bytes > options.limits.memory_bytes {
        return terms(
            format!("1 to {} bytes of guest memory", options.limits.memory_bytes),
            bytes.to_string(),
        );
    }
    if welcome.session == 0 || usize::from(welcome.memories) > options.limits.memories {
        return terms(
            format!(
                "a session that is not 0, with at most {} memories",
                options.limits.memories
            ),
            format!("session {}, {} memories", welcome.session, welcome.memories),
        );
    }
    Ok(())
}

/// What a guest has to act on.
#[derive(Debug)]
pub enum LinkEvent {
    /// The host gives a memory, or a new one (a higher epoch) in place of the one with the same id: rebind to it. The
    /// old one stays valid, but nobody writes it any more.
    Memory(Memory),
    /// The session is over, and the link of no more use: drop it. Comes once.
    Closed(CloseReason),
}

/// A running session, as the guest holds it. Dropping it tells the host nothing but that the guest is gone; see
/// [`goodbye`](Self::goodbye).
#[derive(Debug)]
pub struct GuestLink {
    /// The number of this session on this host.
    pub session: SessionId,
    /// What both sides support.
    pub features: Features,
    /// What both sides support.
    pub private: PrivateFeatures,
    /// The guest's own memory.
    pub guest_memory: Memory,
    /// The host's: [`MemoryId::HOST`] for certain, COMMON and SHARED ones.
    pub memories: Vec<Memory>,
    /// This side's ends of the doorbells, both ways.
    pub doorbells: Doorbells,
    socket: Socket,
    given: Given,
    over: bool,
}

impl GuestLink {
    /// A memory of either side; [`MemoryId::HOST`] and [`MemoryId::GUEST`] are there for certain.
    pub fn memory(&self, id: MemoryId) -> Option<&Memory> {
        let mut memories = self.memories.iter().chain([&self.guest_memory]);
        memories.find(|memory| memory.id == id)
    }

    /// The next thing to act on, without waiting: wait until [`AsFd`] is readable, then call it until it returns `None`.
    /// A new memory has been put into [`memories`](Self::memories) already.
    pub fn next_event(&mut self) -> Option<LinkEvent> {
        if self.over {
            return None;
        }
        let reason = match self.socket.receive(1) {
            Ok(Received::Nothing) => return None,
            Ok(Received::HungUp) => CloseReason::HungUp,
            Ok(Received::Message(message, descriptors)) => {
                match self.handle(message, descriptors) {
                    Ok(memory) => return Some(LinkEvent::Memory(memory)),
                    Err(reason) => reason,
                }
            }
            Err(error) => error.into(),
        };
        self.over = true;
        Some(LinkEvent::Closed(reason))
    }

    fn handle(
        &mut self,
        message: Message,
        descriptors: Vec<OwnedFd>,
    ) -> Result<Memory, CloseReason> {
        match message {
            Message::Memory(announced) => {
                let memory = self.given.take(announced, descriptors);
                let memory = memory.map_err(|error| CloseReason::BadOffer(Box::new(error)))?;
                insert_or_replace(&mut self.memories, memory.clone());
                Ok(memory)
            }
            Message::Goodbye(reason) => Err(CloseReason::Goodbye(reason)),
            other => Err(CloseReason::OutOfPlace {
                kind: other.kind(),
                state: "in a session that runs",
            }),
        }
    }

    /// Tells the host why the guest leaves, and leaves.
    pub fn goodbye(self, reason: GoodbyeReason) {
        // It may be gone already; so are we.
        let _ = self.socket.send(&Message::Goodbye(reason), &[]);
    }

    /// Waits until the host does something or `deadline` passes: for a guest that has nothing else to wait for. Blocks.
    ///
    /// # Errors
    ///
    /// [`SocketError::TimedOut`], or that of `poll(2)`.
    pub fn wait_until(&self, deadline: Instant) -> Result<(), SocketError> {
        self.socket.wait_until(deadline)
    }
}

impl AsFd for GuestLink {
    /// Readable when [`next_event`](Self::next_event) has something, the host's death included.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}
