//! Looking at a running bus from outside, as a third party with read-only mappings.
//!
//! An inspector is given every memory that one side alone writes, sealed against anybody else's writing. It finds
//! everything by the directories and reads tables like any other reader: nobody is stopped, nobody notices. What both
//! sides write, packet buffers above all, it is not given.

mod lines;
mod rings;
mod view;

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use shmbus_shm::{Mapped, MemoryId, MemoryMap, Section};
use shmbus_table::{TableError, TypedReadError};
use shmbus_transports::local::{ConnectError, GuestName, Inspector, NameError, SessionId};
use shmbus_virtio::DeviceId;

pub use self::lines::LineView;
pub use self::rings::{RingView, SideView};
pub use self::view::{
    BusView, ClockView, DeviceView, GuestDeviceView, GuestView, RegionView, TimerView,
};
use crate::control::role;
use crate::counters::{Counters, Totals};
use crate::region_set::{RegionSet, RegionSetError, attach_table, directory};

/// How long the host may take to answer.
const PATIENCE: Duration = Duration::from_secs(5);

/// A bus cannot be looked at.
#[derive(Debug, thiserror::Error)]
pub enum InspectError {
    /// The host cannot be reached, or does not let us look.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// The inspector's name; not expected.
    #[error(transparent)]
    Name(#[from] NameError),
    /// The bus has no shared memory; not expected of this program's host.
    #[error("the host shows no memory of the whole bus")]
    NoSharedMemory,
    /// A memory's regions cannot be found.
    #[error(transparent)]
    Regions(#[from] RegionSetError),
    /// A table is not what it must be.
    #[error(transparent)]
    Table(#[from] TableError),
    /// A value cannot be read.
    #[error(transparent)]
    Value(#[from] TypedReadError),
}

/// What the host has counted so far, over all guests.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BusCounters {
    /// Frames that came into the switch.
    pub frames: u64,
    /// Frames that it dropped because their receiver was full.
    pub frames_dropped: u64,
    /// Signals that the host sent.
    pub signals_sent: u64,
    /// Signals that no guest was waiting for.
    pub signals_suppressed: u64,
    /// Deadlines seen, over all timer devices.
    pub timer_set: u64,
    /// Deadlines superseded.
    pub timer_superseded: u64,
    /// Deadlines that fired.
    pub timer_fired: u64,
    /// Lateness in nanoseconds: median, 99th percentile, most; of the device for which each is largest.
    pub timer_late_ns: [u64; 3],
}

/// Reads the counters of the bus at `path`.
///
/// # Errors
///
/// [`InspectError`].
pub fn counters(path: impl AsRef<Path>) -> Result<BusCounters, InspectError> {
    let memories = Memories::of(path)?;
    let (totals, devices) = read_counters(&memories.bus()?)?;
    let mut sum = BusCounters {
        signals_sent: totals.signals_sent,
        signals_suppressed: totals.signals_suppressed,
        ..BusCounters::default()
    };
    for counters in devices {
        let get = |name| counters.get(name).unwrap_or(0);
        match counters.device {
            DeviceId::NET => {
                sum.frames += get("frames");
                sum.frames_dropped += get("dropped_full");
            }
            DeviceId::TIMER => {
                sum.timer_set += get("set");
                sum.timer_superseded += get("superseded");
                sum.timer_fired += get("fired");
                for (late, name) in
                    sum.timer_late_ns
                        .iter_mut()
                        .zip(["late_p50_ns", "late_p99_ns", "late_max_ns"])
                {
                    *late = (*late).max(get(name));
                }
            }
            _ => {}
        }
    }
    Ok(sum)
}

/// Looks at everything there is on the bus at `path`.
///
/// # Errors
///
/// [`InspectError`]. A guest that leaves meanwhile is left out.
pub fn look(path: impl AsRef<Path>) -> Result<BusView, InspectError> {
    let memories = Memories::of(path)?;
    let bus = memories.bus()?;
    let (totals, counters) = read_counters(&bus)?;
    let devices = (0..)
        .zip(&counters)
        .map(|(index, counters)| DeviceView::new(index, counters, &bus));
    let mut view = BusView {
        totals,
        devices: devices.collect(),
        guests: Vec::new(),
    };
    for (session, guest) in &memories.sessions {
        let Some(host) = &guest.host else {
            continue;
        };
        let regions = RegionSet::read(host, &guest.map)?;
        let mut seen = GuestView::new(session.0, &guest.name, &regions)?;
        seen.regions = directory(host)?.iter().map(RegionView::from).collect();
        view.guests.push(seen);
    }
    Ok(view)
}

/// What an inspector is given, by session.
#[derive(Default)]
struct Memories {
    shared: Option<(u64, Mapped)>,
    sessions: BTreeMap<SessionId, GuestMemories>,
}

#[derive(Default)]
struct GuestMemories {
    name: String,
    host: Option<Mapped>,
    map: MemoryMap,
}

impl Memories {
    fn of(path: impl AsRef<Path>) -> Result<Self, InspectError> {
        let name = GuestName::new("inspector")?;
        let mut memories = Self::default();
        for shown in Inspector::connect(path, name, PATIENCE)?.list()? {
            let id = shown.memory.id;
            let (epoch, window) = (shown.memory.epoch, shown.memory.window().clone());
            match shown.session {
                None => memories.shared = Some((epoch, window)),
                Some(session) => {
                    let guest = memories.sessions.entry(session).or_default();
                    guest.name = shown.guest.map(|name| name.to_string()).unwrap_or_default();
                    if id == MemoryId::HOST {
                        guest.host = Some(window.clone());
                    }
                    guest.map.insert(id, epoch, window);
                }
            }
        }
        if let Some((epoch, window)) = &memories.shared {
            for guest in memories.sessions.values_mut() {
                guest.map.insert(MemoryId::SHARED, *epoch, window.clone());
            }
        }
        Ok(memories)
    }

    /// The regions of the whole bus.
    fn bus(&self) -> Result<RegionSet, InspectError> {
        let (epoch, window) = self.shared.as_ref().ok_or(InspectError::NoSharedMemory)?;
        let mut map = MemoryMap::new();
        map.insert(MemoryId::new(Section::Shared, 0), *epoch, window.clone());
        Ok(RegionSet::read(window, &map)?)
    }
}

fn read_counters(bus: &RegionSet) -> Result<(Totals, Vec<Counters>), InspectError> {
    let mut table = attach_table::<Counters>(&bus.own(role::COUNTERS)?.1)?;
    let (totals, _) = table.read(0)?;
    let mut devices = Vec::new();
    for slot in 1..table.table().layout().slots() {
        devices.push(table.read(slot)?.0);
    }
    Ok((totals.into(), devices))
}
