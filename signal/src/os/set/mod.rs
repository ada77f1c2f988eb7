//! Many doorbells and descriptors, waited for together and served by priority.
//!
//! # How it sleeps
//!
//! Doorbells stay armed until they are raised: a set that sleeps arms only those that moved since, so that a wake-up
//! costs what was raised and not what is in the set. The invariant behind it: a doorbell is `Asleep` only if it was
//! armed and re-checked since its last poll, so that whatever is raised on it comes with a kick; and a kick stays in
//! the epoll instance, which reports edges, until it is collected. What was raised before a kick is visible then: the
//! kernel's locks order it. Everything else is `Awake` and looked at before the set blocks. All of it happens in calls on `&mut SignalSet`: nothing is added or removed between arming and blocking.
//! For a set that is nested in another poll, where the caller blocks, see [`SignalSet::arm`].
//!
//! # What a peer can do
//!
//! Doorbells are never read: an eventfd's counter says nothing that the trees do not, and an edge comes with each ringing,
//! whatever the counter holds. A peer that rings without raising anything is muted after [`STORM_STRIKES`] times and
//! polled instead, for [`STORM_PERIOD`]. A peer that raises without pause is served in its turn.
//!
//! # Where nothing rings
//!
//! A doorbell whose ringing does not reach this process ([`SignalSet::add_polled`]) is one that stays muted: its tree is
//! polled at each wait, and by the set's timer while it sleeps. It is never armed, so its sender does not ring in vain.

mod source;
mod wait;

use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::mem::take;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};
use rustix::time::{TimerfdClockId, TimerfdFlags, timerfd_create};
use shmbus_shm::{Mapped, Scan, Window};
use slab::Slab;

use self::source::{Descriptor, Doorbell, Kind, Source, State};
pub use self::source::{Event, Interest, Readiness, Token};
use super::doorbell::Waiter;
use super::spin::SpinBudget;
use super::turns::Turns;
use crate::channel::{CLASSES, Priority};
use crate::suppress::Receiver;

/// How often in a row a doorbell may ring without cause before it is muted.
pub const STORM_STRIKES: u32 = 64;

/// How long a muted doorbell is not listened to, at most. Its channels are found by polling meanwhile, at the latest at
/// the end of the period.
pub const STORM_PERIOD: Duration = Duration::from_millis(10);

/// How often the doorbells are looked at that nothing rings here, while the set sleeps.
pub const POLL_PERIOD: Duration = Duration::from_millis(1);

/// How many events a set hands out at most before it looks again at which doorbells and descriptors are due beside those
/// that it knows of. A look reports up to 64 of them.
pub const NOTICE_BOUND: u32 = 64;

/// How many events a set hands out at most between two waits. Who takes out events until there are none left comes to an
/// end, although peers raise without pause.
pub const ROUND_BOUND: u32 = 4_096;

/// What epoll reports for the set's own timer. No token is equal to it: there are never so many places.
const TICK: u64 = u64::MAX;

/// A doorbell or descriptor cannot be added, changed or removed.
#[derive(Debug, thiserror::Error)]
pub enum SetError {
    /// The token's doorbell or descriptor was removed before.
    #[error("{0:?} names nothing in this set")]
    Stale(Token),
    /// epoll refused the descriptor.
    #[error("the descriptor cannot be waited for: {0}")]
    Io(#[from] io::Error),
}

/// How a set has waited so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WaitCounts {
    /// Waits that found something by spinning.
    pub spun: u64,
    /// Times that the set blocked.
    pub blocked: u64,
    /// Kicks although nothing was raised: late ones, and a storm's.
    pub spurious: u64,
    /// Times that a doorbell was muted.
    pub muted: u64,
}

/// Doorbells and other descriptors that one thread waits for and serves by priority.
///
/// [`SignalSet::wait`] blocks until something is due; [`SignalSet::next_event`] hands out what is, one by one, so that
/// sources can be added and removed between any two. Among classes the higher goes first. Whatever others raise without
/// pause, a class that becomes due is noticed within [`NOTICE_BOUND`] events, and then waits for at most
/// [`STARVATION_BOUND`](super::STARVATION_BOUND)` + CLASSES - 2` events of other classes. Within a class the sources take
/// turns, and within a doorbell the channels. No wake-up allocates.
///
/// `W` is the kind of window that the doorbells' receivers look through.
pub struct SignalSet<W = Mapped> {
    epoll: OwnedFd,
    /// Ends the muting of doorbells, polls those that cannot ring, and wakes who blocks on a set that changed behind his
    /// back.
    timer: OwnedFd,
    is_ticking: bool,
    /// How many doorbells cannot ring.
    polled: usize,
    sources: Slab<Source<W>>,
    next_serial: u32,
    /// By class: the places of what is due. Each is in there at most once.
    queues: [VecDeque<usize>; CLASSES],
    turns: Turns,
    /// The places of the doorbells that are not `Asleep`.
    awake: Vec<usize>,
    /// Events handed out since the last look at the kernel, and waits that found work without one.
    unlooked: u32,
    /// Events handed out since the last wait or arming.
    handed_out: u32,
    /// [`SignalSet::arm`] has said that the caller may block.
    is_promised: bool,
    spin: SpinBudget,
    counts: WaitCounts,
}

impl<W: Window> SignalSet<W> {
    /// An empty set. It takes two descriptors.
    ///
    /// # Errors
    ///
    /// Of `epoll_create(2)` and `timerfd_create(2)`: no descriptors left.
    pub fn new() -> io::Result<Self> {
        let epoll = epoll::create(CreateFlags::CLOEXEC)?;
        let timer = timerfd_create(
            TimerfdClockId::Monotonic,
            TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC,
        )?;
        epoll::add(&epoll, &timer, EventData::new_u64(TICK), DOORBELL)?;
        // Spinning on the only processor would keep the sender from raising anything.
        let is_alone = std::thread::available_parallelism().is_ok_and(|count| count.get() == 1);
        Ok(Self {
            epoll,
            timer,
            is_ticking: false,
            polled: 0,
            sources: Slab::new(),
            next_serial: 0,
            queues: Default::default(),
            turns: Turns::default(),
            awake: Vec::new(),
            unlooked: 0,
            handed_out: 0,
            is_promised: false,
            spin: SpinBudget::new(if is_alone {
                Duration::ZERO
            } else {
                SpinBudget::DEFAULT
            }),
            counts: WaitCounts::default(),
        })
    }

    /// Sets how long a wait may look for news before it blocks: 16 microseconds at first, none where there is one
    /// processor. The set spins less, down to nothing, while that finds nothing.
    pub fn set_spin(&mut self, most: Duration) {
        self.spin = SpinBudget::new(most);
    }

    /// Adds a doorbell: what its channels' receiver reads, and the descriptor that its sender rings.
    ///
    /// # Errors
    ///
    /// [`SetError::Io`]: of `epoll_ctl(2)`.
    pub fn add_doorbell(
        &mut self,
        receiver: Receiver<W, W, Vec<u64>>,
        waiter: Waiter,
        priority: Priority,
    ) -> Result<Token, SetError> {
        let kind = Kind::Doorbell(Doorbell {
            receiver,
            rung: Some(waiter.into_watched()),
            state: State::Awake,
            strikes: 0,
        });
        let token = self.add(kind, priority, DOORBELL)?;
        self.awake.push(token.key as usize);
        Ok(token)
    }

    /// Adds a doorbell whose ringing cannot be heard here, for want of interrupts say. What is raised on it is found
    /// while the set waits, at the latest after [`POLL_PERIOD`]: a set that sleeps wakes up so often. As often it listens
    /// again to doorbells that are muted.
    ///
    /// # Errors
    ///
    /// None is expected.
    pub fn add_polled(
        &mut self,
        receiver: Receiver<W, W, Vec<u64>>,
        priority: Priority,
    ) -> Result<Token, SetError> {
        // Whoever received here before may have left it armed.
        receiver.disarm();
        let kind = Kind::Doorbell(Doorbell {
            receiver,
            rung: None,
            state: State::Muted,
            strikes: 0,
        });
        let token = self.add(kind, priority, DOORBELL)?;
        self.awake.push(token.key as usize);
        self.polled += 1;
        Ok(token)
    }

    /// Adds a descriptor, which the set keeps open: a socket, a timer, another set. It is reported for as long as it is
    /// ready.
    ///
    /// # Errors
    ///
    /// [`SetError::Io`]: of `epoll_ctl(2)`; regular files cannot be waited for.
    pub fn add_fd(
        &mut self,
        fd: impl AsFd + Send + 'static,
        interest: Interest,
        priority: Priority,
    ) -> Result<Token, SetError> {
        let kind = Kind::Descriptor(Descriptor {
            fd: Box::new(fd),
            readiness: Readiness::default(),
        });
        self.add(kind, priority, interest.to_flags())
    }

    fn add(
        &mut self,
        kind: Kind<W>,
        priority: Priority,
        flags: EventFlags,
    ) -> Result<Token, SetError> {
        let place = self.sources.vacant_entry();
        let source = Source {
            serial: self.next_serial,
            priority,
            is_queued: false,
            kind,
        };
        let token = source.token(place.key());
        if let Some(fd) = source.watched() {
            let data = EventData::new_u64(token.to_u64());
            epoll::add(&self.epoll, fd, data, flags).map_err(io::Error::from)?;
        }
        place.insert(source);
        self.next_serial = self.next_serial.wrapping_add(1);
        // Room for every source, so that no wake-up allocates.
        let count = self.sources.len();
        for queue in &mut self.queues {
            queue.reserve(count - queue.len());
        }
        self.awake.reserve(count.saturating_sub(self.awake.len()));
        if self.is_promised {
            // It may have been raised already, unarmed, and the caller blocks on what we promised.
            self.tick_after(Duration::from_nanos(1));
        }
        Ok(token)
    }

    /// Changes what a descriptor is waited on for.
    ///
    /// # Errors
    ///
    /// [`SetError::Stale`], also for a doorbell's token; [`SetError::Io`]: of `epoll_ctl(2)`.
    pub fn set_interest(&mut self, token: Token, interest: Interest) -> Result<(), SetError> {
        let source = self.source(token).ok_or(SetError::Stale(token))?;
        let Kind::Descriptor(descriptor) = &source.kind else {
            return Err(SetError::Stale(token));
        };
        epoll::modify(
            &self.epoll,
            &descriptor.fd,
            EventData::new_u64(token.to_u64()),
            interest.to_flags(),
        )
        .map_err(io::Error::from)?;
        Ok(())
    }

    /// Removes a doorbell or descriptor; nothing of it is reported from now on. Its sender is told not to ring.
    ///
    /// # Errors
    ///
    /// [`SetError::Stale`].
    pub fn remove(&mut self, token: Token) -> Result<(), SetError> {
        let source = self.source(token).ok_or(SetError::Stale(token))?;
        if let Kind::Doorbell(doorbell) = &source.kind {
            doorbell.receiver.disarm();
        }
        if let Some(fd) = source.watched() {
            // It fails for a muted doorbell, which is not listened to anyway.
            let _ = epoll::delete(&self.epoll, fd);
        } else {
            self.polled -= 1;
        }
        let key = token.key as usize;
        self.sources.remove(key);
        for queue in &mut self.queues {
            queue.retain(|queued| *queued != key);
        }
        self.awake.retain(|awake| *awake != key);
        Ok(())
    }

    /// How many doorbells and descriptors there are.
    pub fn len(&self) -> usize {
        self.sources.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.sources.is_empty()
    }

    /// How the set has waited.
    pub fn counts(&self) -> WaitCounts {
        self.counts
    }

    fn source(&self, token: Token) -> Option<&Source<W>> {
        self.sources
            .get(token.key as usize)
            .filter(|source| source.serial == token.serial)
    }

    /// Whether [`SignalSet::next_event`] has something to look at.
    fn is_pending(&self) -> bool {
        self.queues.iter().any(|queue| !queue.is_empty())
    }

    /// The next event that is due, by priority. `None`: nothing is left, or [`ROUND_BOUND`] events were handed out since
    /// the last wait; wait, which returns at once then. Every [`NOTICE_BOUND`] events it asks the kernel, without
    /// blocking, what else is due, lest the first peer's channels hide the others.
    pub fn next_event(&mut self) -> Option<Event> {
        if self.handed_out >= ROUND_BOUND {
            return None;
        }
        if self.unlooked >= NOTICE_BOUND && self.is_pending() {
            self.poll_awake();
            // What failed here fails in the next wait, which says so.
            let _ = self.collect(Some(Duration::ZERO));
        }
        loop {
            let pending = self.queues.each_ref().map(|queue| !queue.is_empty());
            let class = self.turns.choose(pending)?;
            let key = self.queues[class].pop_front()?;
            let Some(source) = self.sources.get_mut(key) else {
                continue;
            };
            source.is_queued = false;
            let token = source.token(key);
            let event = match &mut source.kind {
                Kind::Descriptor(descriptor) => Some(Event::Ready {
                    token,
                    readiness: take(&mut descriptor.readiness),
                }),
                Kind::Doorbell(doorbell) => {
                    let mut event = None;
                    let scan = doorbell.receiver.poll_some(|channel, generation| {
                        event = Some(Event::Raised {
                            token,
                            channel,
                            generation,
                        });
                        std::ops::ControlFlow::Break(())
                    });
                    if scan == Scan::Paused {
                        // Behind its equals: the sources of a class take turns.
                        source.is_queued = true;
                        self.queues[class].push_back(key);
                    }
                    event
                }
            };
            if event.is_some() {
                self.unlooked += 1;
                self.handed_out += 1;
                self.turns.serve(class, pending);
                return event;
            }
        }
    }

    /// Puts a source in its class's queue. A doorbell in there is awake, or muted, and above suspicion.
    fn queue(&mut self, key: usize) {
        let Some(source) = self.sources.get_mut(key) else {
            return;
        };
        if let Kind::Doorbell(doorbell) = &mut source.kind {
            doorbell.strikes = 0;
            if doorbell.state == State::Asleep {
                doorbell.state = State::Awake;
                self.awake.push(key);
            }
        }
        if !source.is_queued {
            source.is_queued = true;
            self.queues[source.priority.class()].push_back(key);
        }
    }
}

/// Edges: each kick is reported once, and nothing need be read. A socket's end is reported once when it is added, too.
const DOORBELL: EventFlags = EventFlags::IN.union(EventFlags::ET);

/// The doorbell in place `key`, if one is there.
fn doorbell<W>(sources: &mut Slab<Source<W>>, key: usize) -> Option<&mut Doorbell<W>> {
    match sources.get_mut(key).map(|source| &mut source.kind) {
        Some(Kind::Doorbell(doorbell)) => Some(doorbell),
        _ => None,
    }
}

impl<W> fmt::Debug for SignalSet<W> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SignalSet")
            .field("epoll", &self.epoll)
            .field("sources", &self.sources.len())
            .field("queues", &self.queues)
            .field("awake", &self.awake)
            .field("counts", &self.counts)
            .finish_non_exhaustive()
    }
}

impl<W> AsFd for SignalSet<W> {
    /// Readable when something rang or is ready; see [`SignalSet::arm`].
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.epoll.as_fd()
    }
}

#[cfg(all(test, not(miri)))]
impl<W> SignalSet<W> {
    /// Of all that a wake-up could make grow.
    pub(in crate::os) fn capacities(&self) -> [usize; CLASSES + 1] {
        let mut capacities = [self.awake.capacity(); CLASSES + 1];
        for (capacity, queue) in capacities[1..].iter_mut().zip(&self.queues) {
            *capacity = queue.capacity();
        }
        capacities
    }
}
