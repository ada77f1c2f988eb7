//! The listening socket, inside an epoll set.

use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::event::epoll;
use rustix::io::Errno;
use rustix::net::{SocketFlags, accept_with};

use super::path::{BindError, SocketPath};

/// How long no connection is taken after the process ran out of descriptors.
const PAUSE: Duration = Duration::from_millis(100);

/// Where connections come in.
#[derive(Debug)]
pub(crate) struct Door {
    path: SocketPath,
    socket: OwnedFd,
    /// What it is called in the epoll set.
    token: u64,
    /// Set while no connection is taken.
    paused_until: Option<Instant>,
}

impl Door {
    /// Listens at `path`, and has `epoll` watch for connections, as `token`.
    pub(crate) fn open(
        path: &Path,
        mode: u32,
        epoll: &OwnedFd,
        token: u64,
    ) -> Result<Self, BindError> {
        let (socket, path) = SocketPath::listen(path, mode)?;
        let door = Self {
            path,
            socket,
            token,
            paused_until: None,
        };
        let token = epoll::EventData::new_u64(token);
        epoll::add(epoll, &door.socket, token, epoll::EventFlags::IN).map_err(|errno| {
            BindError::Io {
                step: "wait for connections at",
                path: door.as_path().to_owned(),
                source: errno.into(),
            }
        })?;
        Ok(door)
    }

    pub(crate) fn as_path(&self) -> &Path {
        self.path.as_path()
    }

    /// The next connection that waits. After an error [`pause`](Self::pause).
    pub(crate) fn accept(&self) -> io::Result<Option<OwnedFd>> {
        loop {
            match accept_with(&self.socket, SocketFlags::CLOEXEC) {
                Ok(fd) => return Ok(Some(fd)),
                Err(Errno::AGAIN) => return Ok(None),
                // The peer gave up while it waited.
                Err(Errno::CONNABORTED | Errno::INTR) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
    }

    /// Takes no connection for a while, and says until when. Without descriptors the waiting connection stays, and the
    /// socket readable: looking again at once would be spinning.
    pub(crate) fn pause(&mut self, epoll: &OwnedFd, now: Instant) -> Instant {
        let until = now + PAUSE;
        self.paused_until = Some(until);
        self.watch(epoll, epoll::EventFlags::empty());
        until
    }

    /// Ends a pause that is over.
    pub(crate) fn resume(&mut self, epoll: &OwnedFd, now: Instant) {
        if self.paused_until.is_some_and(|until| until <= now) {
            self.paused_until = None;
            self.watch(epoll, epoll::EventFlags::IN);
        }
    }

    /// When a pause is over.
    pub(crate) fn paused_until(&self) -> Option<Instant> {
        self.paused_until
    }

    fn watch(&self, epoll: &OwnedFd, flags: epoll::EventFlags) {
        let token = epoll::EventData::new_u64(self.token);
        if let Err(errno) = epoll::modify(epoll, &self.socket, token, flags) {
            tracing::error!(%errno, "epoll");
        }
    }
}
