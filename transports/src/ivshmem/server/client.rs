//! A QEMU at the other end of a connection.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::event::{EventfdFlags, epoll, eventfd};
use rustix::io::Errno;
use rustix::net::{RecvFlags, recv};
use shmbus_signal::os::Waiter;

use super::area::Area;
use super::outgoing::Outgoing;
use super::{Departure, Domain};
use crate::ivshmem::layout::{HANDSHAKE_VECTOR, HOST_PEER, VECTORS};
use crate::local::bucket::Bucket;
use crate::local::socket::retry;

/// How many bytes a client may send. QEMU sends none.
const MOST_HEARD: usize = 4096;
/// How often a guest may attach: at once, and then each second.
const ATTACHMENTS: Bucket = Bucket::new(8, Duration::from_secs(1));
/// How often a guest's words are looked at because it rings: a storm costs a look each millisecond.
const LOOKS: Bucket = Bucket::new(64, Duration::from_millis(1));

/// Each ringing is an edge: nothing is read, so that nothing of a client's doing is waited for.
const EDGES: epoll::EventFlags = epoll::EventFlags::IN.union(epoll::EventFlags::ET);

/// What of a client is ready.
pub(super) enum Descriptor {
    Socket,
    Doorbell,
}

/// The client that a token is of, and which of its descriptors.
pub(super) fn of_token(token: u64) -> (u64, Descriptor) {
    match token % 2 {
        0 => (token / 2, Descriptor::Socket),
        _ => (token / 2, Descriptor::Doorbell),
    }
}

/// The eventfds between the host and a guest, by vector.
#[derive(Debug)]
pub(super) struct Eventfds {
    /// What rings the guest; other guests of its domain have them too.
    pub(super) rings: Vec<Arc<OwnedFd>>,
    /// What the guest rings. No other guest has these, so it is known who rang.
    pub(super) hears: Vec<Arc<OwnedFd>>,
    /// The one of them that is rung for the handshake.
    handshake: Waiter,
}

impl Eventfds {
    pub(super) fn create() -> io::Result<Self> {
        let flags = EventfdFlags::NONBLOCK | EventfdFlags::CLOEXEC;
        let create = || {
            let eventfds = (0..VECTORS).map(|_| eventfd(0, flags).map(Arc::new));
            eventfds.collect::<Result<Vec<_>, _>>()
        };
        let (rings, hears) = (create()?, create()?);
        let handshake = hears[usize::from(HANDSHAKE_VECTOR)].try_clone()?;
        Ok(Self {
            rings,
            hears,
            handshake: Waiter::try_from(handshake).map_err(io::Error::other)?,
        })
    }
}

/// A connection, with what its guest has been given.
#[derive(Debug)]
pub(super) struct Client {
    number: u64,
    socket: OwnedFd,
    pub(super) peer: u16,
    pub(super) area: Area,
    pub(super) outgoing: Outgoing,
    /// Whether the epoll set watches for room in the socket.
    is_waiting_for_room: bool,
    heard: usize,
    pub(super) eventfds: Eventfds,
    pub(super) attachments: Bucket,
    pub(super) looks: Bucket,
    /// When the guest's words are looked at although it is not listened to: it rang, or began anew, too often.
    pub(super) look_at: Option<Instant>,
}

impl Client {
    /// Whoever is at the other end of `socket` gets an area.
    pub(super) fn new(
        number: u64,
        socket: OwnedFd,
        peer: u16,
        domain: &Domain,
        area: Area,
        eventfds: Eventfds,
    ) -> Self {
        let mut outgoing = Outgoing::greeting(peer, Arc::clone(&domain.descriptor));
        outgoing.announce(HOST_PEER, &eventfds.hears);
        Self {
            number,
            socket,
            peer,
            area,
            outgoing,
            is_waiting_for_room: false,
            heard: 0,
            eventfds,
            attachments: ATTACHMENTS,
            looks: LOOKS,
            look_at: None,
        }
    }

    /// Tells the client of itself, which comes last.
    pub(super) fn introduce_itself(&mut self) {
        self.outgoing.announce(self.peer, &self.eventfds.rings);
    }

    /// Has an epoll set watch the socket, and the doorbell that is rung for the handshake.
    pub(super) fn watch(&mut self, epoll: &OwnedFd) -> io::Result<()> {
        let token = epoll::EventData::new_u64(2 * self.number);
        epoll::add(epoll, &self.socket, token, epoll::EventFlags::IN)?;
        let token = epoll::EventData::new_u64(2 * self.number + 1);
        epoll::add(epoll, &self.eventfds.handshake, token, EDGES)?;
        Ok(())
    }

    /// Listens to no ringing until `due`; whoever rings meanwhile is seen then.
    pub(super) fn turn_deaf(&mut self, epoll: &OwnedFd, due: Instant) {
        self.look_at = Some(due);
        self.modify(epoll, epoll::EventFlags::empty());
    }

    /// Listens again. What was rung before is to be looked at now.
    pub(super) fn listen(&mut self, epoll: &OwnedFd) {
        if self.look_at.take().is_some() {
            // Otherwise it would ring at once, for what was rung before.
            if let Err(error) = self.eventfds.handshake.drain() {
                tracing::error!(%error, "eventfd");
            }
            self.modify(epoll, EDGES);
        }
    }

    fn modify(&self, epoll: &OwnedFd, flags: epoll::EventFlags) {
        let token = epoll::EventData::new_u64(2 * self.number + 1);
        if let Err(errno) = epoll::modify(epoll, &self.eventfds.handshake, token, flags) {
            tracing::error!(%errno, "epoll");
        }
    }

    /// Sends what there is room for, and waits for more room if that is not all.
    pub(super) fn flush(&mut self, epoll: &OwnedFd) -> Result<(), Departure> {
        self.outgoing.flush(&self.socket)?;
        let waits = !self.outgoing.is_empty();
        if waits != self.is_waiting_for_room {
            let flags = match waits {
                true => epoll::EventFlags::IN | epoll::EventFlags::OUT,
                false => epoll::EventFlags::IN,
            };
            let token = epoll::EventData::new_u64(2 * self.number);
            epoll::modify(epoll, &self.socket, token, flags)
                .map_err(|errno| Departure::Failed(errno.into()))?;
            self.is_waiting_for_room = waits;
        }
        Ok(())
    }

    /// Throws away what the client says, a little at a time; descriptors do not even arrive.
    pub(super) fn hear(&mut self) -> Result<(), Departure> {
        let mut bytes = [0; 256];
        match retry(|| recv(&self.socket, &mut bytes, RecvFlags::DONTWAIT)) {
            Ok((0, _)) => Err(Departure::HungUp),
            Ok((count, _)) => {
                self.heard += count;
                match self.heard > MOST_HEARD {
                    true => Err(Departure::Talks),
                    false => Ok(()),
                }
            }
            Err(Errno::AGAIN) => Ok(()),
            Err(Errno::CONNRESET) => Err(Departure::HungUp),
            Err(errno) => Err(Departure::Failed(errno.into())),
        }
    }

    /// Rings the guest after an answer. A counter that is full is as good.
    pub(super) fn ring(&self) {
        let eventfd = &self.eventfds.rings[usize::from(HANDSHAKE_VECTOR)];
        if let Err(errno) = retry(|| rustix::io::write(eventfd, &1_u64.to_ne_bytes()))
            && errno != Errno::AGAIN
        {
            tracing::error!(%errno, "eventfd");
        }
    }
}
