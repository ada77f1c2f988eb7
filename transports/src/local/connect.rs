//! Getting through to a host, and what can go wrong on the way.

use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{SocketFlags, connect as connect_socket};
use shmbus_shm::{MemoryError, MemoryId};

use super::guest::{GuestOptions, Invitation};
use super::message::{Hello, Kind, Message, PeerRole, Refusal, RefusalCode, Welcome};
use super::path::{address, new_socket};
use super::socket::{Socket, SocketError};

/// Why a guest or an inspector did not get through to a host.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConnectError {
    /// There is no such file.
    #[error(
        "there is no socket {}: start the host first, with `shmbus host --socket {} --device ...`",
        .path.display(), .path.display()
    )]
    NoSocket {
        /// The path.
        path: PathBuf,
    },
    /// A socket file that a dead host left.
    #[error(
        "nobody listens at {}, its host is gone: start it again, with `shmbus host --socket {} --device ...`",
        .path.display(), .path.display()
    )]
    NobodyListens {
        /// The path.
        path: PathBuf,
    },
    /// The file's permissions.
    #[error(
        "no permission to use {}: run as the user who started the host",
        .path.display()
    )]
    Permission {
        /// The path.
        path: PathBuf,
    },
    /// Another failure of the system.
    #[error("cannot connect to {}: {source}", .path.display())]
    Io {
        /// The path.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// The host said no.
    #[error("the host refused: {0}")]
    Refused(#[from] Refusal),
    /// The host does not answer.
    #[error("the host did not answer in time, while this side waited for {awaited}")]
    TimedOut {
        /// What was awaited.
        awaited: &'static str,
    },
    /// The host went away.
    #[error("the host hung up, while this side waited for {awaited}")]
    HungUp {
        /// What was awaited.
        awaited: &'static str,
    },
    /// The connection failed or carried something that is no message.
    #[error("while waiting for {awaited}: {source}")]
    Socket {
        /// What was awaited.
        awaited: &'static str,
        /// What happened.
        source: SocketError,
    },
    /// The host sent a message that cannot come now.
    #[error("expected {expected}, the host sent {found}")]
    OutOfPlace {
        /// What was awaited.
        expected: &'static str,
        /// What came.
        found: Kind,
    },
    /// The host's terms cannot be taken.
    #[error("the host's terms: expected {expected}, found {found}")]
    Terms {
        /// What they may be.
        expected: String,
        /// What they are.
        found: String,
    },
    /// A memory of the host cannot be used.
    #[error("the host's memory {id} cannot be used: {source}")]
    Memory {
        /// Which.
        id: MemoryId,
        /// Why.
        source: MemoryError,
    },
}

impl ConnectError {
    /// Whether the same call may succeed later: the host is not there yet, or busy.
    pub fn is_temporary(&self) -> bool {
        match self {
            Self::NoSocket { .. }
            | Self::NobodyListens { .. }
            | Self::TimedOut { .. }
            | Self::HungUp { .. } => true,
            Self::Refused(refusal) => refusal.code == RefusalCode::Busy,
            _ => false,
        }
    }
}

/// Connects a guest to the host at `path` and takes what the host gives it. The guest then makes its own memory, as large as
/// the [`Invitation`] says, and completes the handshake with it; all of that within `timeout`. Blocks.
///
/// # Errors
///
/// [`ConnectError`]; nothing is left behind.
pub fn connect(
    path: impl AsRef<Path>,
    options: &GuestOptions,
    timeout: Duration,
) -> Result<Invitation, ConnectError> {
    let deadline = Instant::now() + timeout;
    let hello = Hello {
        role: PeerRole::Guest,
        name: options.name.clone(),
        features: options.features,
        private: options.private,
    };
    let line = Line::open(path.as_ref(), &hello, deadline)?;
    Invitation::receive(line, options)
}

/// A connection to a host during the handshake.
#[derive(Debug)]
pub(super) struct Line {
    pub(super) socket: Socket,
    pub(super) deadline: Instant,
}

impl Line {
    /// Connects and says HELLO.
    pub(super) fn open(
        path: &Path,
        hello: &Hello,
        deadline: Instant,
    ) -> Result<Self, ConnectError> {
        let failed = |errno: Errno| {
            let path = path.to_owned();
            match errno {
                Errno::NOENT => ConnectError::NoSocket { path },
                Errno::CONNREFUSED => ConnectError::NobodyListens { path },
                Errno::ACCESS | Errno::PERM => ConnectError::Permission { path },
                // The host's queue of connections is full, and stayed so.
                Errno::AGAIN => ConnectError::TimedOut {
                    awaited: "the host to take the connection",
                },
                errno => ConnectError::Io {
                    path,
                    source: errno.into(),
                },
            }
        };
        let address = address(path).map_err(|error| ConnectError::Io {
            path: path.to_owned(),
            source: io::Error::new(io::ErrorKind::InvalidInput, error),
        })?;
        let fd = new_socket(SocketFlags::empty()).map_err(failed)?;
        connect_by(&fd, &address, deadline).map_err(failed)?;
        let line = Self {
            socket: Socket::new(fd),
            deadline,
        };
        match line.socket.send(&Message::Hello(hello.clone()), &[]) {
            // Hung up already? It has said why: that is read next.
            Ok(()) | Err(SocketError::HungUp) => Ok(line),
            Err(source) => Err(ConnectError::Socket {
                awaited: "HELLO to be sent",
                source,
            }),
        }
    }

    /// Waits for a message; a refusal is an error.
    pub(super) fn expect(
        &mut self,
        awaited: &'static str,
        descriptors: usize,
    ) -> Result<(Message, Vec<OwnedFd>), ConnectError> {
        match self.socket.receive_until(descriptors, self.deadline) {
            Ok((Message::Refusal(refusal), _)) => Err(refusal.into()),
            Ok((Message::Goodbye(_), _)) | Err(SocketError::HungUp) => {
                Err(ConnectError::HungUp { awaited })
            }
            Ok(other) => Ok(other),
            Err(SocketError::TimedOut) => Err(ConnectError::TimedOut { awaited }),
            Err(source) => Err(ConnectError::Socket { awaited, source }),
        }
    }

    /// Waits for WELCOME.
    pub(super) fn expect_welcome(&mut self) -> Result<Welcome, ConnectError> {
        match self.expect("WELCOME", 0)? {
            (Message::Welcome(welcome), _) => Ok(welcome),
            (other, _) => Err(ConnectError::OutOfPlace {
                expected: "WELCOME",
                found: other.kind(),
            }),
        }
    }
}

/// Blocks in the kernel until the host has room for the connection, but not beyond the deadline.
fn connect_by(
    fd: &OwnedFd,
    address: &rustix::net::SocketAddrUnix,
    deadline: Instant,
) -> rustix::io::Result<()> {
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(Errno::AGAIN);
        }
        // Zero would mean for ever, and below a microsecond is zero.
        let left = left.max(Duration::from_millis(1));
        set_socket_timeout(fd, Timeout::Send, Some(left))?;
        match connect_socket(fd, address) {
            Err(Errno::INTR) => {}
            other => return other,
        }
    }
}
