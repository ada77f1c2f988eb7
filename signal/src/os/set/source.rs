//! What a set waits for.

use std::fmt;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::event::epoll::EventFlags;

use crate::Priority;
use crate::suppress::Receiver;

/// Names a doorbell or descriptor in its set. One that was removed names nothing, also when its place is taken again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Token {
    pub(super) key: u32,
    /// Tells apart those that have one place after the other.
    pub(super) serial: u32,
}

impl Token {
    pub(super) fn to_u64(self) -> u64 {
        u64::from(self.serial) << 32 | u64::from(self.key)
    }

    pub(super) fn from_u64(data: u64) -> Self {
        Self {
            key: data as u32,
            serial: (data >> 32) as u32,
        }
    }
}

/// What is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// A doorbell's channel was raised.
    Raised {
        /// Whose.
        token: Token,
        /// Index of the channel within the doorbell.
        channel: u32,
        /// The channel's generation: it rises, if the peer is honest.
        generation: u64,
    },
    /// A descriptor is ready. It may no longer be when it is used: have it non-blocking.
    Ready {
        /// Whose.
        token: Token,
        /// What for.
        readiness: Readiness,
    },
}

impl Event {
    /// Whose event it is.
    pub fn token(&self) -> Token {
        match self {
            Self::Raised { token, .. } | Self::Ready { token, .. } => *token,
        }
    }
}

/// What a descriptor is ready for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Readiness {
    /// There is something to read, or to accept, or the end.
    pub readable: bool,
    /// There is room to write.
    pub writable: bool,
    /// The other end is gone, or the descriptor failed. Remove it: it stays ready.
    pub hangup: bool,
}

impl Readiness {
    pub(super) fn from_flags(flags: EventFlags) -> Self {
        Self {
            readable: flags.intersects(EventFlags::IN | EventFlags::PRI),
            writable: flags.contains(EventFlags::OUT),
            hangup: flags.intersects(EventFlags::HUP | EventFlags::ERR),
        }
    }

    pub(super) fn or(self, other: Self) -> Self {
        Self {
            readable: self.readable || other.readable,
            writable: self.writable || other.writable,
            hangup: self.hangup || other.hangup,
        }
    }
}

/// What a descriptor is waited on for. Hang-ups are always reported.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Interest {
    /// Something to read, or to accept.
    pub readable: bool,
    /// Room to write.
    pub writable: bool,
}

impl Interest {
    /// Only reading.
    pub const READABLE: Self = Self {
        readable: true,
        writable: false,
    };

    /// Only writing.
    pub const WRITABLE: Self = Self {
        readable: false,
        writable: true,
    };

    /// Reading and writing.
    pub const BOTH: Self = Self {
        readable: true,
        writable: true,
    };

    pub(super) fn to_flags(self) -> EventFlags {
        let mut flags = EventFlags::empty();
        flags.set(EventFlags::IN, self.readable);
        flags.set(EventFlags::OUT, self.writable);
        flags
    }
}

/// A place in a set.
#[derive(Debug)]
pub(super) struct Source<W> {
    pub(super) serial: u32,
    pub(super) priority: Priority,
    /// It is in its class's queue.
    pub(super) is_queued: bool,
    pub(super) kind: Kind<W>,
}

#[derive(Debug)]
pub(super) enum Kind<W> {
    Doorbell(Doorbell<W>),
    Descriptor(Descriptor),
}

#[derive(Debug)]
pub(super) struct Doorbell<W> {
    pub(super) receiver: Receiver<W, W, Vec<u64>>,
    /// What its waiter watches; none if nothing rings here.
    pub(super) rung: Option<OwnedFd>,
    pub(super) state: State,
    /// How often it rang in a row although nothing was raised.
    pub(super) strikes: u32,
}

/// Who watches a doorbell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// It was raised of late: its tree is polled, and the sender does not ring.
    Awake,
    /// It is armed since it was last seen idle: the sender rings.
    Asleep,
    /// It rang without cause too often: its tree is polled, its ringing not listened to until the next tick. One that
    /// cannot ring is always in this state.
    Muted,
}

pub(super) struct Descriptor {
    pub(super) fd: Box<dyn AsFd + Send>,
    pub(super) readiness: Readiness,
}

impl fmt::Debug for Descriptor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Descriptor")
            .field("fd", &self.fd.as_fd())
            .field("readiness", &self.readiness)
            .finish()
    }
}

impl<W> Source<W> {
    pub(super) fn token(&self, key: usize) -> Token {
        Token {
            key: key as u32,
            serial: self.serial,
        }
    }

    pub(super) fn watched(&self) -> Option<BorrowedFd<'_>> {
        match &self.kind {
            Kind::Doorbell(doorbell) => doorbell.rung.as_ref().map(AsFd::as_fd),
            Kind::Descriptor(descriptor) => Some(descriptor.fd.as_fd()),
        }
    }
}
