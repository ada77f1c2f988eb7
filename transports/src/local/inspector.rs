//! The inspector's side: every memory of the bus that is sealed, read-only, and nothing else.

use std::path::Path;
use std::time::{Duration, Instant};

use shmbus_shm::{Access, SharedMemory};
use shmbus_virtio::{Features, PrivateFeatures};

use super::connect::{ConnectError, Line};
use super::connection::SessionId;
use super::message::{Entry, Hello, MAX_PAGE_ENTRIES, Message, PeerRole};
use super::socket::SocketError;
use super::text::GuestName;
use crate::memory::Memory;

/// The most memories that an inspector takes.
const MAX_ENTRIES: usize = 4096;

/// A memory of the bus, mapped read-only.
#[derive(Clone, Debug)]
pub struct Inspected {
    /// The session that it belongs to; none for the whole bus's (SHARED) memories.
    pub session: Option<SessionId>,
    /// That session's guest.
    pub guest: Option<GuestName>,
    /// The memory. COMMON memories are not shown: whoever holds one could write it.
    pub memory: Memory,
}

/// A third party that looks on.
#[derive(Debug)]
pub struct Inspector {
    line: Line,
    timeout: Duration,
}

impl Inspector {
    /// Connects to the host at `path`; `timeout` is for this and for each [`list`](Self::list). Blocks.
    ///
    /// # Errors
    ///
    /// [`ConnectError`].
    pub fn connect(
        path: impl AsRef<Path>,
        name: GuestName,
        timeout: Duration,
    ) -> Result<Self, ConnectError> {
        let hello = Hello {
            role: PeerRole::Inspector,
            name,
            features: Features::VERSION_1,
            private: PrivateFeatures::empty(),
        };
        let mut line = Line::open(path.as_ref(), &hello, Instant::now() + timeout)?;
        line.expect_welcome()?;
        Ok(Self { line, timeout })
    }

    /// The memories of the bus and of all sessions that run now, ordered by session and id. Ask again for a fresh list;
    /// sessions may come and go while it is fetched. Blocks.
    ///
    /// # Errors
    ///
    /// [`ConnectError`]; also when the host restarted: connect again.
    pub fn list(&mut self) -> Result<Vec<Inspected>, ConnectError> {
        self.line.deadline = Instant::now() + self.timeout;
        let mut list = Vec::new();
        let mut from = 0;
        loop {
            match self.line.socket.send(&Message::List { from }, &[]) {
                Ok(()) | Err(SocketError::HungUp) => {}
                Err(source) => {
                    return Err(ConnectError::Socket {
                        awaited: "LIST to be sent",
                        source,
                    });
                }
            }
            let (page, descriptors) = match self.line.expect("PAGE", MAX_PAGE_ENTRIES)? {
                (Message::Page(page), descriptors) => (page, descriptors),
                (other, _) => {
                    return Err(ConnectError::OutOfPlace {
                        expected: "PAGE",
                        found: other.kind(),
                    });
                }
            };
            for (entry, fd) in page.entries.into_iter().zip(descriptors) {
                list.push(inspect(entry, fd)?);
            }
            if page.next == 0 {
                return Ok(list);
            }
            // A host that leads in circles, or without end, is not followed.
            if page.next <= from || list.len() > MAX_ENTRIES {
                return Err(ConnectError::Terms {
                    expected: format!(
                        "pages that go on after {from:#x}, {MAX_ENTRIES} entries in all"
                    ),
                    found: format!(
                        "the next at {:#x}, {} entries so far",
                        page.next,
                        list.len()
                    ),
                });
            }
            from = page.next;
        }
    }
}

fn inspect(entry: Entry, fd: std::os::fd::OwnedFd) -> Result<Inspected, ConnectError> {
    let announced = entry.memory;
    let id = announced.id;
    // Read-only is also checked here: it must be sealed against everybody who is not its writer.
    let shared = SharedMemory::from_peer(fd, announced.bytes, Access::Read)
        .map_err(|source| ConnectError::Memory { id, source })?;
    Ok(Inspected {
        session: (entry.session != 0).then_some(SessionId(entry.session)),
        guest: entry.guest,
        memory: Memory::new(id, announced.epoch, shared),
    })
}
