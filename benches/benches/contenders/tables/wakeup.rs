//! Waking a process that sleeps, by half of a round trip.
//!
//! Ours: a channel is raised, and the eventfd written if the receiver has armed, which it does each time; it waits in a
//! [`SignalSet`] that does not spin, and takes the event out. The peer's eventfd is written and read, and blocks.

use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use rustix::event::{EventfdFlags, eventfd};
use shmbus_benches::{Companion, Comparison, Contender, Session, SetUpError};
use shmbus_shm::{Access, Mapped, SharedMemory, Window, Writers};
use shmbus_signal::Priority;
use shmbus_signal::os::{Event, Notifier, SignalSet, Waiter};
use shmbus_signal::suppress::{DoorbellLayout, Receiver, Sender};

use super::{HONEST, OURS};

const BENCH: &str = "wakeup";
const EVENTFD: &str = "eventfd";
const CHANNELS: u32 = 64;

pub(super) fn comparison() -> Comparison {
    Comparison::new(
        BENCH,
        "a process wakes another, by half a round trip",
        || Ok(vec![ours()?, bare()?]),
    )
    .with_companions(companion)
}

fn ours() -> Result<Contender, SetUpError> {
    let (own, other) = (section(Writers::Creator)?, section(Writers::Everybody)?);
    let (kick, call) = (descriptor()?, descriptor()?);
    let descriptors = [own.as_fd(), other.as_fd(), kick.as_fd(), call.as_fd()];
    let mut companion = Companion::spawn(BENCH, OURS, "", &descriptors)?;
    let mut side = Side::new(&own, &other, kick, call)?;
    Ok(Contender::new(OURS, move |operations| {
        companion.beside(operations, || {
            for _ in 0..operations.div_ceil(2) {
                side.ring();
                side.wait();
            }
        })
    }))
}

fn bare() -> Result<Contender, SetUpError> {
    let (kick, call) = (descriptor()?, descriptor()?);
    let descriptors = [kick.as_fd(), call.as_fd()];
    let mut companion = Companion::spawn(BENCH, EVENTFD, "", &descriptors)?;
    Ok(Contender::new(EVENTFD, move |operations| {
        companion.beside(operations, || {
            for _ in 0..operations.div_ceil(2) {
                write(&kick);
                read(&call);
            }
        })
    }))
}

fn companion(session: Session) -> Result<(), SetUpError> {
    if session.contender == EVENTFD {
        let (kick, call) = (session.descriptor(0)?, session.descriptor(1)?);
        return session.serve(|operations| {
            for _ in 0..operations.div_ceil(2) {
                read(&kick);
                write(&call);
            }
        });
    }
    let peers = |index, access| -> Result<SharedMemory, SetUpError> {
        let descriptor = session.descriptor(index)?;
        Ok(SharedMemory::from_peer(
            descriptor,
            bytes()? as u64,
            access,
        )?)
    };
    let (other, own) = (peers(0, Access::Read)?, peers(1, Access::ReadWrite)?);
    let (kick, call) = (session.descriptor(2)?, session.descriptor(3)?);
    let mut side = Side::new(&own, &other, call, kick)?;
    session.serve(move |operations| {
        for _ in 0..operations.div_ceil(2) {
            side.wait();
            side.ring();
        }
    })
}

/// One side of two doorbells.
struct Side {
    sender: Sender<Mapped, Mapped>,
    notifier: Notifier,
    set: SignalSet,
}

/// In each side's section: the word by which it arms, then its doorbell's tree.
const TREE_AT: usize = DoorbellLayout::ARMED_BYTES;

fn bytes() -> Result<usize, SetUpError> {
    Ok(TREE_AT + DoorbellLayout::new(CHANNELS)?.tree_bytes())
}

fn section(writers: Writers) -> Result<SharedMemory, SetUpError> {
    Ok(SharedMemory::create("bench", bytes()? as u64, writers)?)
}

impl Side {
    fn new(
        own: &SharedMemory,
        other: &SharedMemory,
        ring: OwnedFd,
        wait: OwnedFd,
    ) -> Result<Self, SetUpError> {
        let layout = DoorbellLayout::new(CHANNELS)?;
        let tree = |memory: &SharedMemory| memory.window().narrow(TREE_AT, layout.tree_bytes());
        let seen = vec![0; CHANNELS as usize];
        let receiver = Receiver::new(&tree(other)?, own.window(), layout, seen)?;
        let mut set = SignalSet::new()?;
        set.set_spin(Duration::ZERO);
        set.add_doorbell(receiver, Waiter::try_from(wait)?, Priority::HIGHEST)?;
        Ok(Self {
            sender: Sender::new(&tree(own)?, other.window(), layout)?,
            notifier: Notifier::try_from(ring)?,
            set,
        })
    }

    fn ring(&mut self) {
        if self.sender.raise(5).expect(HONEST).is_needed() {
            self.notifier.notify().expect(HONEST);
        }
    }

    fn wait(&mut self) {
        loop {
            if let Some(Event::Raised { .. }) = self.set.next_event() {
                return;
            }
            self.set.wait(None).expect(HONEST);
        }
    }
}

fn descriptor() -> Result<OwnedFd, SetUpError> {
    Ok(eventfd(0, EventfdFlags::CLOEXEC)?)
}

fn write(descriptor: &OwnedFd) {
    rustix::io::write(descriptor, &1_u64.to_ne_bytes()).expect("an eventfd takes a one");
}

fn read(descriptor: &OwnedFd) {
    rustix::io::read(descriptor, &mut [0; 8]).expect("an eventfd is read by eight bytes");
}
