//! What is said to a client: QEMU's protocol, in one direction.
//!
//! A message is a number of 8 bytes, with a descriptor or without. The kernel takes it whole or not at all.

use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use rustix::io::Errno;
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};

use super::Departure;
use crate::local::socket::retry;

/// The version of QEMU's protocol.
const PROTOCOL: i64 = 0;
/// The number that the memory comes with.
const MEMORY: i64 = -1;

type Message = (i64, Option<Arc<OwnedFd>>);

/// The messages that a client has not been sent yet. However long it does not read, there are few: what is no longer so is
/// not told, so that they tell of the peers that there are, and of the leaving of those that the client was told of before.
#[derive(Debug, Default)]
pub(super) struct Outgoing {
    waiting: VecDeque<Message>,
}

impl Outgoing {
    /// The first messages to client `id`.
    pub(super) fn greeting(id: u16, memory: Arc<OwnedFd>) -> Self {
        let waiting = [(PROTOCOL, None), (id.into(), None), (MEMORY, Some(memory))];
        Self {
            waiting: waiting.into(),
        }
    }

    /// Tells of a peer that is there, by the eventfds that ring it; of the client itself, by those that ring the client.
    pub(super) fn announce(&mut self, peer: u16, eventfds: &[Arc<OwnedFd>]) {
        let message = |fd: &Arc<OwnedFd>| (i64::from(peer), Some(Arc::clone(fd)));
        self.waiting.extend(eventfds.iter().map(message));
    }

    /// Tells of a peer that has left. If nothing of it was sent yet, nothing will be; otherwise the rest is not.
    pub(super) fn withdraw(&mut self, peer: u16, eventfds: usize) {
        let before = self.waiting.len();
        self.waiting
            .retain(|(about, fd)| *about != i64::from(peer) || fd.is_none());
        if before - self.waiting.len() < eventfds {
            self.waiting.push_back((peer.into(), None));
        }
    }

    /// Whether the client has been sent everything.
    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Sends what the client's socket has room for.
    pub(super) fn flush(&mut self, socket: &OwnedFd) -> Result<(), Departure> {
        while let Some((number, descriptor)) = self.waiting.front() {
            match send(socket, *number, descriptor.as_deref()) {
                Ok(true) => {
                    self.waiting.pop_front();
                }
                Ok(false) => return Ok(()),
                Err(Errno::PIPE | Errno::CONNRESET) => return Err(Departure::HungUp),
                Err(errno) => return Err(Departure::Failed(io::Error::from(errno))),
            }
        }
        Ok(())
    }
}

/// Sends one message without waiting; false if there is no room.
fn send(socket: &OwnedFd, number: i64, descriptor: Option<&OwnedFd>) -> Result<bool, Errno> {
    let bytes = number.to_le_bytes();
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    let descriptors = descriptor.map(|fd| [fd.as_fd()]);
    if let Some(descriptors) = &descriptors
        && !control.push(SendAncillaryMessage::ScmRights(descriptors))
    {
        return Err(Errno::NOMEM);
    }
    let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
    match retry(|| sendmsg(socket, &[IoSlice::new(&bytes)], &mut control, flags)) {
        // So few bytes are not taken in part.
        Ok(sent) if sent == bytes.len() => Ok(true),
        Ok(_) => Err(Errno::MSGSIZE),
        Err(Errno::AGAIN) => Ok(false),
        Err(errno) => Err(errno),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbers(outgoing: &Outgoing) -> Vec<(i64, bool)> {
        let waiting = outgoing.waiting.iter();
        waiting
            .map(|(number, fd)| (*number, fd.is_some()))
            .collect()
    }

    #[test]
    fn a_peer_that_left_before_it_was_told_of_is_not_told_of() {
        let fd = Arc::new(OwnedFd::from(std::io::pipe().unwrap().0));
        let mut outgoing = Outgoing::greeting(7, Arc::clone(&fd));
        assert_eq!(numbers(&outgoing), [(0, false), (7, false), (-1, true)]);
        let eventfds = [Arc::clone(&fd), Arc::clone(&fd)];
        outgoing.announce(3, &eventfds);
        outgoing.announce(4, &eventfds);
        outgoing.withdraw(3, 2);
        let told = [(0, false), (7, false), (-1, true), (4, true), (4, true)];
        assert_eq!(numbers(&outgoing), told);
        // The first of its eventfds is out.
        for _ in 0..4 {
            outgoing.waiting.pop_front();
        }
        outgoing.withdraw(4, 2);
        assert_eq!(numbers(&outgoing), [(4, false)]);
        drop((outgoing, eventfds));
        assert_eq!(Arc::strong_count(&fd), 1);
    }
}
