//! What a device on the bus is: the contract between the bus, which owns memory and signals, and a device, which owns
//! neither.

use std::os::fd::BorrowedFd;

use shmbus_ring::RingFeatures;
use shmbus_shm::{Mapped, Notify, RegionKind, RingFormat, Section};
use shmbus_signal::Priority;
use shmbus_virtio::{DeviceId, Features};

/// How many 64-bit words of configuration a device has for its driver.
pub const CONFIG_WORDS: usize = 8;

/// How many counters a device can publish.
pub const COUNTERS: usize = 16;

/// One guest's stay on the bus. Numbers are not reused while the bus runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SessionId(pub u64);

/// A region that a device needs for each session (or once, in [`Section::Shared`]).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RegionRequest {
    /// The device's own name for it: which queue's area, which table.
    pub role: u16,
    /// What runs on it, and its geometry, for whoever finds the region in the directory.
    pub kind: RegionKind,
    /// Which memory it lies in, named by who writes it; in [`Section::Shared`] there is one for all sessions.
    pub section: Section,
    /// Size in bytes.
    pub bytes: usize,
    /// Whether its writer signals the other side, and how urgently.
    pub signal: Option<Priority>,
}

/// A device's regions of one session, mapped on this side.
#[derive(Clone, Debug, Default)]
pub struct Regions {
    regions: Vec<(u16, RegionKind, Mapped)>,
}

/// A session lacks a region that the device asked for, or it is of another kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoRegion {
    /// There is none.
    #[error("the session has no region of role {role:#x}")]
    Missing {
        /// The region's role.
        role: u16,
    },
    /// There is one, of another kind.
    #[error("region {role:#x} is {found:?}, not {expected}")]
    Kind {
        /// The region's role.
        role: u16,
        /// What it should be.
        expected: &'static str,
        /// What it is.
        found: RegionKind,
    },
}

impl Regions {
    /// Adds a region.
    pub fn insert(&mut self, role: u16, kind: RegionKind, window: Mapped) {
        self.regions.push((role, kind, window));
    }

    fn find(&self, role: u16) -> Result<&(u16, RegionKind, Mapped), NoRegion> {
        self.regions
            .iter()
            .find(|(other, ..)| *other == role)
            .ok_or(NoRegion::Missing { role })
    }

    /// The region of a role.
    ///
    /// # Errors
    ///
    /// [`NoRegion::Missing`].
    pub fn get(&self, role: u16) -> Result<&Mapped, NoRegion> {
        self.find(role).map(|(.., window)| window)
    }

    /// The format of the ring of which a region is an area, and its size in entries.
    ///
    /// # Errors
    ///
    /// [`NoRegion`].
    pub fn ring(&self, role: u16) -> Result<(RingFormat, u16), NoRegion> {
        match self.find(role)?.1 {
            RegionKind::Ring { format, size } => Ok((format, size)),
            found => Err(NoRegion::Kind {
                role,
                expected: "an area of a ring",
                found,
            }),
        }
    }

    /// How many slots the table has that a region is.
    ///
    /// # Errors
    ///
    /// [`NoRegion`].
    pub fn slots(&self, role: u16) -> Result<u32, NoRegion> {
        match self.find(role)?.1 {
            RegionKind::Table { slots, .. } => Ok(slots),
            found => Err(NoRegion::Kind {
                role,
                expected: "a table",
                found,
            }),
        }
    }
}

/// Signals that a device wants sent. The bus sends them after the call: no device owns a channel.
#[derive(Debug, Default)]
pub struct Outbox {
    raised: Vec<(SessionId, u16)>,
}

impl Outbox {
    /// Signals the other side of a session's region, if the decision says so.
    pub fn send(&mut self, session: SessionId, role: u16, notify: Notify) {
        if notify.is_needed() && self.raised.last() != Some(&(session, role)) {
            self.raised.push((session, role));
        }
    }

    /// Takes what was raised.
    pub fn drain(&mut self) -> impl Iterator<Item = (SessionId, u16)> + '_ {
        self.raised.drain(..)
    }
}

/// Whether a device has more to do at once.
#[must_use]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// It waits for a signal, a descriptor or a new session.
    Idle,
    /// It stopped at its bound on work per call: call [`Device::resume`] when others have had their turn.
    More,
}

impl Progress {
    /// More, if either has more.
    pub fn or(self, other: Progress) -> Progress {
        if self == Progress::More { self } else { other }
    }
}

/// A driver that a device cannot serve.
pub type ActivateError = Box<dyn std::error::Error + Send + Sync>;

/// The host part of a device, which serves every session.
///
/// Work per call is bounded; nothing a guest does makes a call fail: a device latches the fault of that session, and
/// says so through [`Device::faulted`].
pub trait Device: Send {
    /// The type.
    fn id(&self) -> DeviceId;

    /// What it offers: virtio's features, and the bus's own.
    fn features(&self) -> RingFeatures {
        Features::VERSION_1.into()
    }

    /// Configuration for the driver of a session that begins.
    fn config(&mut self, session: SessionId) -> [u64; CONFIG_WORDS];

    /// The regions of each session. Called once.
    fn regions(&self) -> Vec<RegionRequest>;

    /// The device's regions in [`Section::Shared`] are there.
    ///
    /// # Errors
    ///
    /// If they do not fit what [`Device::regions`] asked for.
    fn start(&mut self, shared: &Regions) -> Result<(), ActivateError>;

    /// The session's driver is ready.
    ///
    /// # Errors
    ///
    /// If the driver's regions are not what they must be; the session's device then needs a reset.
    fn activate(
        &mut self,
        session: SessionId,
        regions: &Regions,
        features: RingFeatures,
    ) -> Result<(), ActivateError>;

    /// The session's driver reset the device. Harmless for an unknown session.
    fn deactivate(&mut self, session: SessionId);

    /// The session is over. Harmless for an unknown one. What it leaves behind may concern others.
    fn leave(&mut self, session: SessionId, _outbox: &mut Outbox) {
        self.deactivate(session);
    }

    /// The session's driver signalled one of its regions.
    fn signalled(&mut self, session: SessionId, role: u16, outbox: &mut Outbox) -> Progress;

    /// Goes on with work that a bound cut short.
    fn resume(&mut self, _outbox: &mut Outbox) -> Progress {
        Progress::Idle
    }

    /// Descriptors that the device waits for besides signals, with their urgency: a timer, a TAP interface.
    fn descriptors(&self) -> Vec<(BorrowedFd<'_>, Priority)> {
        Vec::new()
    }

    /// Descriptor number `index` of [`Device::descriptors`] is readable.
    fn ready(&mut self, _index: usize, _outbox: &mut Outbox) -> Progress {
        Progress::Idle
    }

    /// Takes the next session whose driver broke the rules, with the reason.
    fn faulted(&mut self) -> Option<(SessionId, String)> {
        None
    }

    /// When [`Device::tick`] wants to be called next, in nanoseconds of `CLOCK_MONOTONIC`.
    fn next_tick(&self) -> Option<u64> {
        None
    }

    /// Work whose time has come, at `now` in nanoseconds of `CLOCK_MONOTONIC`.
    fn tick(&mut self, _now: u64, _outbox: &mut Outbox) -> Progress {
        Progress::Idle
    }

    /// Figures for observers, as the device type names them in [`counter_names`](crate::counter_names).
    fn counters(&self, _values: &mut [u64; COUNTERS]) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_outbox_sends_a_run_of_the_same_signal_once() {
        let mut outbox = Outbox::default();
        for (session, role, notify) in [
            (1, 0, Notify::Yes),
            (1, 0, Notify::Yes),
            (1, 0, Notify::No),
            (2, 0, Notify::Yes),
            (2, 1, Notify::Yes),
        ] {
            outbox.send(SessionId(session), role, notify);
        }
        let sent: Vec<_> = outbox
            .drain()
            .map(|(session, role)| (session.0, role))
            .collect();
        assert_eq!(sent, [(1, 0), (2, 0), (2, 1)]);
        assert_eq!(outbox.drain().count(), 0);
    }
}
