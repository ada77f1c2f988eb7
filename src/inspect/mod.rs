//! Looking at a running bus from outside, as a third party with read-only mappings.
//!
//! An inspector is given every memory that one side alone writes, sealed against anybody else's writing. It finds
//! everything by the directories and reads tables like any other reader: nobody is stopped, nobody notices. What both
//! sides write, packet buffers above all, it is not given.
//!
//! Where there are no such memories, as of a guest that can write all of its own, or where they cannot be given, as to a virtual
//! machine, the [gallery](crate::gallery) stands for them.

mod lines;
mod memories;
mod place;
mod rings;
mod view;

use std::collections::BTreeSet;
use std::path::Path;

use shmbus_shm::Mapped;
use shmbus_table::{TableError, TypedReadError};
use shmbus_transports::local::{ConnectError, NameError};
use shmbus_virtio::DeviceId;

pub use self::lines::LineView;
pub(crate) use self::memories::Memories;
pub use self::place::{Place, PlaceError};
pub use self::rings::{RingView, SideView};
pub use self::view::{
    BusView, ClockView, DeviceView, GuestDeviceView, GuestView, RegionView, TimerView,
};
use crate::control::role;
use crate::counters::{Counters, Totals};
use crate::gallery::GalleryError;
use crate::region_set::{RegionSet, RegionSetError, attach_table, directory};

/// A bus cannot be looked at.
#[derive(Debug, thiserror::Error)]
pub enum InspectError {
    /// The host cannot be reached, or does not let us look.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// A file, or a function's memory, cannot be looked into.
    #[error(transparent)]
    Place(#[from] PlaceError),
    /// There is no gallery where one should be.
    #[error(transparent)]
    Gallery(#[from] GalleryError),
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
    let memories = Memories::at(Place::Socket(path.as_ref()))?;
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

/// Looks at everything there is on the bus whose host listens at `path`.
///
/// # Errors
///
/// [`InspectError`]. A guest that leaves meanwhile is left out.
pub fn look(path: impl AsRef<Path>) -> Result<BusView, InspectError> {
    look_at(Place::Socket(path.as_ref()))
}

/// Looks at everything there is on the bus that is seen at `place`.
///
/// # Errors
///
/// [`InspectError`]. A guest that leaves meanwhile is left out.
pub fn look_at(place: Place<'_>) -> Result<BusView, InspectError> {
    view_of(Memories::at(place)?, place.is_this_machine())
}

/// Looks at everything there is on the bus whose gallery is in `window`, however that was had. The window may hold anything, and
/// change while it is looked at.
///
/// # Errors
///
/// [`InspectError`].
pub fn look_into(window: Mapped) -> Result<BusView, InspectError> {
    view_of(Memories::in_gallery(window)?, false)
}

/// What these memories show.
pub(crate) fn view_of(
    mut memories: Memories,
    is_this_machine: bool,
) -> Result<BusView, InspectError> {
    let bus = memories.bus()?;
    let (totals, counters) = read_counters(&bus)?;
    let devices = (0..)
        .zip(&counters)
        .map(|(index, counters)| DeviceView::new(index, counters, &bus, is_this_machine));
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
        let directory = directory(host)?;
        let seen = GuestView::new(session.0.into(), &guest.name, &regions, &directory);
        view.guests.push(seen?);
    }
    if let Some(gallery) = &mut memories.gallery {
        let seen: BTreeSet<u64> = view.guests.iter().map(|guest| guest.session).collect();
        for session in gallery.sessions() {
            if seen.contains(&session.number) {
                continue;
            }
            let visited = gallery.session(&session).and_then(|(directory, regions)| {
                GuestView::new(session.number, &session.name, &regions, &directory)
            });
            // What was found where another session is shown by now is of both.
            if gallery.is_there(&session) {
                view.guests.push(visited?);
            }
        }
        view.guests.sort_by_key(|guest| guest.session);
    }
    Ok(view)
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
