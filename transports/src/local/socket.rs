//! A UNIX socket that carries frames and file descriptors.
//!
//! It is a stream and not `SOCK_SEQPACKET`: any program can then connect, so that a peer which is no shmbus program is
//! told apart and logged here, where the operator looks, and a proxy can carry the protocol. What a packet socket would
//! give is cheap to have: a frame is read exactly and never beyond its end, so the kernel hands over each frame's
//! descriptors with that frame, and what is kept of an unfinished frame is bounded by the largest one.
//!
//! No call blocks but those named `*_until`, whatever the flags of the descriptor: every call says `MSG_DONTWAIT`.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};

use super::codec::{Header, MessageError};
use super::message::{HEADER_BYTES, Kind, MAX_DESCRIPTORS, Message};

/// Why nothing more comes or goes through a socket.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SocketError {
    /// The peer sent something that is no message.
    #[error(transparent)]
    Message(#[from] MessageError),
    /// The peer closed its end in the middle of a message.
    #[error("the peer hung up after {found} bytes of a message")]
    Cut {
        /// How many bytes came.
        found: usize,
    },
    /// The peer sent descriptors where none, or fewer, may come.
    #[error("expected at most {expected} file descriptors, the peer sent more")]
    StrayDescriptors {
        /// How many may come.
        expected: usize,
    },
    /// Fewer descriptors arrived than the message announces.
    #[error("a {kind} message announced {expected} file descriptors, {found} arrived")]
    MissingDescriptors {
        /// The kind of message.
        kind: Kind,
        /// How many were announced.
        expected: usize,
        /// How many arrived.
        found: usize,
    },
    /// Descriptors arrived but this process could not take them all.
    #[error(
        "file descriptors got lost on arrival: this process has none left, or the peer sent too many"
    )]
    LostDescriptors,
    /// The peer does not read what it is sent.
    #[error("the peer does not read: its socket buffer is full")]
    Full,
    /// The peer is not there any more.
    #[error("the peer has hung up")]
    HungUp,
    /// Nothing came in time.
    #[error("no answer within the time given")]
    TimedOut,
    /// The system call failed.
    #[error("socket: {0}")]
    Io(#[from] io::Error),
}

impl From<Errno> for SocketError {
    fn from(errno: Errno) -> Self {
        match errno {
            Errno::PIPE | Errno::CONNRESET => Self::HungUp,
            Errno::AGAIN => Self::Full,
            other => Self::Io(other.into()),
        }
    }
}

/// What [`Socket::receive`] found.
#[derive(Debug)]
pub(crate) enum Received {
    /// A whole message, with as many descriptors as it announces.
    Message(Message, Vec<OwnedFd>),
    /// Nothing, or only a part of a message.
    Nothing,
    /// The peer has hung up between two messages.
    HungUp,
}

/// One end of a connection.
#[derive(Debug)]
pub(crate) struct Socket {
    fd: OwnedFd,
    /// What has arrived of the next frame, never more than that frame.
    frame: Vec<u8>,
    descriptors: Vec<OwnedFd>,
}

impl Socket {
    pub(crate) fn new(fd: OwnedFd) -> Self {
        Self {
            fd,
            frame: Vec::new(),
            descriptors: Vec::new(),
        }
    }

    /// Sends one frame, whole or not at all as far as the peer can tell: after an error the connection is of no use.
    pub(crate) fn send(
        &self,
        message: &Message,
        descriptors: &[BorrowedFd<'_>],
    ) -> Result<(), SocketError> {
        debug_assert_eq!(descriptors.len(), message.descriptors());
        let frame = message.encode();
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_DESCRIPTORS))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        if !descriptors.is_empty() && !control.push(SendAncillaryMessage::ScmRights(descriptors)) {
            return Err(SocketError::StrayDescriptors {
                expected: MAX_DESCRIPTORS,
            });
        }
        let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
        let sent = retry(|| sendmsg(&self.fd, &[IoSlice::new(&frame)], &mut control, flags))?;
        // Frames are small and few, so that a peer whose buffer has no room for one does not read at all.
        if sent == frame.len() {
            Ok(())
        } else {
            Err(SocketError::Full)
        }
    }

    /// Takes what has arrived, up to the end of one frame. `allowed` is how many descriptors may come with the message
    /// that is expected; a peer that sends more loses its connection at once, so that none pile up.
    pub(crate) fn receive(&mut self, allowed: usize) -> Result<Received, SocketError> {
        loop {
            let (header, end) = match self.frame.first_chunk::<HEADER_BYTES>() {
                None => (None, HEADER_BYTES),
                Some(bytes) => {
                    let header = Header::decode(*bytes)?;
                    (Some(header), HEADER_BYTES + header.body)
                }
            };
            if let Some(header) = header
                && self.frame.len() == end
            {
                return self.take(header);
            }
            match self.receive_up_to(end, allowed)? {
                Progress::Some => {}
                Progress::None => return Ok(Received::Nothing),
                Progress::HungUp if self.frame.is_empty() => return Ok(Received::HungUp),
                Progress::HungUp => {
                    return Err(SocketError::Cut {
                        found: self.frame.len(),
                    });
                }
            }
        }
    }

    /// Waits for a message until `deadline`.
    pub(crate) fn receive_until(
        &mut self,
        allowed: usize,
        deadline: Instant,
    ) -> Result<(Message, Vec<OwnedFd>), SocketError> {
        loop {
            match self.receive(allowed)? {
                Received::Message(message, descriptors) => return Ok((message, descriptors)),
                Received::HungUp => return Err(SocketError::HungUp),
                Received::Nothing => self.wait_until(deadline)?,
            }
        }
    }

    pub(crate) fn wait_until(&self, deadline: Instant) -> Result<(), SocketError> {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(SocketError::TimedOut);
        }
        let mut sockets = [PollFd::new(&self.fd, PollFlags::IN)];
        match poll(&mut sockets, Some(&timespec(left))) {
            Ok(_) | Err(Errno::INTR) => Ok(()),
            Err(errno) => Err(errno.into()),
        }
    }

    fn take(&mut self, header: Header) -> Result<Received, SocketError> {
        let message = Message::decode(header, &self.frame[HEADER_BYTES..])?;
        let descriptors = std::mem::take(&mut self.descriptors);
        self.frame.clear();
        if descriptors.len() != header.descriptors {
            return Err(SocketError::MissingDescriptors {
                kind: header.kind,
                expected: header.descriptors,
                found: descriptors.len(),
            });
        }
        Ok(Received::Message(message, descriptors))
    }

    fn receive_up_to(&mut self, end: usize, allowed: usize) -> Result<Progress, SocketError> {
        let start = self.frame.len();
        self.frame.resize(end, 0);
        // Where no descriptor may come there is no room for one: the kernel drops it and says so.
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_DESCRIPTORS))];
        let room = if allowed == 0 { 0 } else { space.len() };
        let mut control = RecvAncillaryBuffer::new(&mut space[..room]);
        let received = retry(|| {
            recvmsg(
                &self.fd,
                &mut [IoSliceMut::new(&mut self.frame[start..])],
                &mut control,
                RecvFlags::DONTWAIT | RecvFlags::CMSG_CLOEXEC,
            )
        });
        let count = received.as_ref().map_or(0, |received| received.bytes);
        self.frame.truncate(start + count);
        let received = match received {
            Err(Errno::AGAIN) => return Ok(Progress::None),
            other => other?,
        };
        for message in control.drain() {
            if let RecvAncillaryMessage::ScmRights(descriptors) = message {
                self.descriptors.extend(descriptors);
            }
        }
        if self.descriptors.len() > allowed {
            return Err(SocketError::StrayDescriptors { expected: allowed });
        }
        if received.flags.contains(ReturnFlags::CTRUNC) {
            return Err(if allowed == 0 {
                SocketError::StrayDescriptors { expected: 0 }
            } else {
                SocketError::LostDescriptors
            });
        }
        Ok(if count == 0 {
            Progress::HungUp
        } else {
            Progress::Some
        })
    }
}

enum Progress {
    Some,
    None,
    HungUp,
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// Repeats a call that a signal interrupted.
pub(crate) fn retry<T>(mut call: impl FnMut() -> rustix::io::Result<T>) -> rustix::io::Result<T> {
    loop {
        match call() {
            Err(Errno::INTR) => {}
            other => return other,
        }
    }
}

/// A duration as the kernel takes it.
pub(crate) fn timespec(duration: Duration) -> Timespec {
    Timespec {
        tv_sec: duration.as_secs().min(i64::MAX as u64) as i64,
        tv_nsec: i64::from(duration.subsec_nanos()),
    }
}

#[cfg(test)]
mod tests;
