//! One side's half of a session's doorbells: the channels that it raises, and those that it hears.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::OwnedFd;

use shmbus_shm::{Mapped, Notify, Region, RegionKind, Section, Window};
use shmbus_signal::os::{DoorbellError, Notifier, Waiter, Wake};
use shmbus_signal::suppress::{DoorbellLayout, Receiver, Sender, SenderCounts, SignalError};
use shmbus_signal::{CLASSES, ChannelId};

use crate::control::role;
use crate::region_set::{RegionSet, RegionSetError, Subject};

/// A session's doorbells cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum BellsError {
    /// A region of theirs is missing.
    #[error(transparent)]
    Regions(#[from] RegionSetError),
    /// A region of theirs is not what it must be.
    #[error("the doorbells of class {class}: {source}")]
    Doorbell {
        /// The priority class.
        class: usize,
        /// What is wrong.
        source: SignalError,
    },
    /// The directory claims more channels than their tree has room for.
    #[error(
        "the doorbells of class {class}: a tree of {bytes} bytes has no room for {channels} channels"
    )]
    Room {
        /// The priority class.
        class: usize,
        /// The tree's region, in bytes.
        bytes: usize,
        /// How many channels there are to be.
        channels: u64,
    },
    /// A descriptor is no doorbell.
    #[error(transparent)]
    Descriptor(#[from] DoorbellError),
    /// There are not as many doorbells as priority classes.
    #[error("{found} doorbells each way were expected to be {CLASSES}")]
    Count {
        /// How many there are.
        found: usize,
    },
}

/// Which side this process is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Side {
    Host,
    Guest,
}

/// The names of what a side marks, hears and arms.
struct Roles {
    marks: u16,
    hears: u16,
    arms: u16,
    peer_arms: u16,
}

impl Side {
    fn roles(self) -> Roles {
        match self {
            Side::Host => Roles {
                marks: role::HOST_TREE,
                hears: role::GUEST_TREE,
                arms: role::HOST_ARMED,
                peer_arms: role::GUEST_ARMED,
            },
            Side::Guest => Roles {
                marks: role::GUEST_TREE,
                hears: role::HOST_TREE,
                arms: role::GUEST_ARMED,
                peer_arms: role::HOST_ARMED,
            },
        }
    }

    /// The section that the other side writes.
    fn peers_section(self) -> Section {
        match self {
            Side::Host => Section::Guest,
            Side::Guest => Section::Host,
        }
    }
}

/// The channels that this side raises.
#[derive(Debug)]
pub(crate) struct Bells {
    classes: Vec<(Sender<Mapped, Mapped>, Box<dyn Wake>)>,
}

impl Bells {
    /// Formats this side's trees and looks at the other's armed words. `wakers` wake the other side, by class.
    pub(crate) fn new(
        regions: &RegionSet,
        side: Side,
        wakers: Vec<Box<dyn Wake>>,
    ) -> Result<Self, BellsError> {
        expect_all(wakers.len())?;
        let roles = side.roles();
        let armed = &regions.own(roles.peer_arms)?.1;
        let mut classes = Vec::with_capacity(CLASSES);
        for (class, waker) in wakers.into_iter().enumerate() {
            let (region, tree) = regions.own(roles.marks + class as u16)?;
            let failed = |source| BellsError::Doorbell { class, source };
            let layout = layout(class, region, tree)?;
            let armed = armed_word(armed, class).map_err(failed)?;
            let sender = Sender::new(tree, &armed, layout).map_err(failed)?;
            classes.push((sender, waker));
        }
        Ok(Self { classes })
    }

    /// Raises a channel, and rings if the other side is waiting for it.
    ///
    /// # Errors
    ///
    /// If the doorbell cannot be rung: the other side is told when it next looks.
    pub(crate) fn raise(&mut self, channel: ChannelId) -> io::Result<()> {
        let Some((sender, waker)) = self.classes.get_mut(channel.priority().class()) else {
            return Ok(());
        };
        match sender.raise(channel.index()) {
            Ok(Notify::Yes) => waker.wake(),
            Ok(Notify::No) => Ok(()),
            Err(error) => {
                // The channel came from this session's own plan.
                tracing::error!(?channel, %error, "a channel cannot be raised");
                Ok(())
            }
        }
    }

    /// How many signals were sent, and how many suppressed.
    pub(crate) fn counts(&self) -> SenderCounts {
        self.classes.iter().map(|(sender, _)| sender.counts()).fold(
            SenderCounts::default(),
            |sum, counts| SenderCounts {
                sent: sum.sent + counts.sent,
                suppressed: sum.suppressed + counts.suppressed,
            },
        )
    }
}

/// The channels of a class that this side hears.
pub(crate) type Hearing = Receiver<Mapped, Mapped, Vec<u64>>;

/// The channels that this side hears: a receiver and what wakes it, by class.
pub(crate) type Ear = (Hearing, Waiter);

/// Attaches to the other side's trees. `waiters` are woken by it, by class.
pub(crate) fn ears(
    regions: &RegionSet,
    side: Side,
    waiters: Vec<Waiter>,
) -> Result<Vec<Ear>, BellsError> {
    expect_all(waiters.len())?;
    Ok(receivers(regions, side)?.into_iter().zip(waiters).collect())
}

/// Attaches to the other side's trees, by class, whatever wakes this side.
pub(crate) fn receivers(regions: &RegionSet, side: Side) -> Result<Vec<Hearing>, BellsError> {
    let roles = side.roles();
    let armed = &regions.own(roles.arms)?.1;
    let mut receivers = Vec::with_capacity(CLASSES);
    for class in 0..CLASSES {
        let (region, tree) = regions.own(roles.hears + class as u16)?;
        let failed = |source| BellsError::Doorbell { class, source };
        // The number of channels is the other side's word; the room that the tree takes is not.
        let layout = layout(class, region, tree)?;
        let armed = armed_word(armed, class).map_err(failed)?;
        let seen = vec![0; layout.channels() as usize];
        receivers.push(Receiver::new(tree, &armed, layout, seen).map_err(failed)?);
    }
    Ok(receivers)
}

/// What the channels speak of that this side hears.
pub(crate) fn heard(regions: &RegionSet, side: Side) -> BTreeMap<ChannelId, Subject> {
    regions.subjects(side.peers_section())
}

/// What wakes the other side over the local transport: the ends that it rings, perhaps from the peer.
pub(crate) fn wakers(ends: Vec<OwnedFd>) -> Result<Vec<Box<dyn Wake>>, BellsError> {
    let waker = |end| Ok(Box::new(Notifier::from_end(end)?) as Box<dyn Wake>);
    ends.into_iter().map(waker).collect()
}

/// What the other side rings over the local transport.
pub(crate) fn waiters(ends: Vec<OwnedFd>) -> Result<Vec<Waiter>, BellsError> {
    let waiter = |end| Ok(Waiter::from_end(end)?);
    ends.into_iter().map(waiter).collect()
}

fn expect_all(doorbells: usize) -> Result<(), BellsError> {
    match doorbells {
        CLASSES => Ok(()),
        found => Err(BellsError::Count { found }),
    }
}

fn layout(class: usize, region: &Region, tree: &Mapped) -> Result<DoorbellLayout, BellsError> {
    let channels = match region.purpose.kind {
        RegionKind::Raw { params } => params[0],
        _ => 0,
    };
    let bytes = tree.len();
    let room = BellsError::Room {
        class,
        bytes,
        channels,
    };
    let Ok(count) = u32::try_from(channels) else {
        return Err(room);
    };
    match DoorbellLayout::new(count) {
        Ok(layout) if layout.tree_bytes() <= bytes => Ok(layout),
        Ok(_) => Err(room),
        Err(source) => Err(BellsError::Doorbell { class, source }),
    }
}

/// Each class's armed word is on a line of its own: its writer and its reader meet on no other.
fn armed_word(armed: &Mapped, class: usize) -> Result<Mapped, SignalError> {
    Ok(armed.narrow(
        class * DoorbellLayout::ARMED_BYTES,
        DoorbellLayout::ARMED_BYTES,
    )?)
}
