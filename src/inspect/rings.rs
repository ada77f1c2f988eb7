//! A guest's rings, by what their two sides publish of themselves.
//!
//! Of a ring's own memory nothing is read: what both sides write lies in memory that no third party is shown, and a side's
//! positions say the same for every format.

use std::collections::BTreeMap;

use serde::Serialize;
use shmbus_devices::RingState;
use shmbus_devices::net::device::role;
use shmbus_ring::{Lag, Positions, RingKind};
use shmbus_shm::{Mapped, RegionKind};
use shmbus_table::{Generation, TypedReader};

use crate::region_set::{RegionSet, attach_table};

/// How often two tables are read before what they say is taken as it is.
const TRIES: u32 = 16;

/// A ring, as its two sides see it.
#[derive(Clone, Debug, Serialize)]
pub struct RingView {
    /// The device.
    pub device: u32,
    /// The queue.
    pub queue: &'static str,
    /// Its type, as its sides publish it; before they do, what its memory is laid out for.
    #[serde(rename = "format", serialize_with = "name")]
    pub kind: RingKind,
    /// Entries.
    pub size: u16,
    /// What the driver publishes.
    pub driver_positions: Option<SideView>,
    /// What the device publishes.
    pub device_positions: Option<SideView>,
    /// Entries that the driver made available and the device has not taken.
    pub available_lag: Option<u16>,
    /// Entries that the device used and the driver has not taken back.
    pub used_lag: Option<u16>,
}

fn name<S: serde::Serializer>(kind: &RingKind, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(kind.name())
}

/// How far one side has come. In a split ring positions run freely and wrap at 65536; in a packed ring they are the offset
/// in bits 0 to 14 and the wrap counter in bit 15.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct SideView {
    /// Driver: up to where it made chains available. Device: where it takes the next one.
    pub available: u16,
    /// Driver: where it takes back the next used chain. Device: up to where it used chains.
    pub used: u16,
    /// Driver: chains that it added and did not take back. Device: chains that it took and did not complete.
    pub in_flight: u16,
}

impl From<Positions> for SideView {
    fn from(positions: Positions) -> Self {
        Self {
            available: positions.available,
            used: positions.used,
            in_flight: positions.in_flight,
        }
    }
}

/// What runs on each region, whether it is shown or not.
pub(super) type Kinds = BTreeMap<(Option<u32>, u16), RegionKind>;

/// A net device's rings.
pub(super) fn of_net(device: u32, regions: &RegionSet, kinds: &Kinds) -> Vec<RingView> {
    let side = |role| {
        Side(
            regions
                .get(Some(device), role)
                .and_then(|(_, window)| attach_table(window).ok()),
        )
    };
    let mut driver = side(role::DRIVER_POSITIONS);
    let mut host = side(role::DEVICE_POSITIONS);
    [
        ("receiveq1", role::RECEIVEQ1_DRIVER),
        ("transmitq1", role::TRANSMITQ1_DRIVER),
    ]
    .into_iter()
    .zip(0..)
    .filter_map(|((queue, area), slot)| {
        let RegionKind::Ring { format, size } = *kinds.get(&(Some(device), area))? else {
            return None;
        };
        let fits = |state: &RingState| (state.kind.format, state.size) == (format, size);
        let [driver, host] = both(&mut driver, &mut host, slot).map(|state| state.filter(fits));
        let lag = match (&driver, &host) {
            (Some(driver), Some(host)) => RingState::lag(driver, host),
            _ => None,
        };
        let Lag { available, used } = lag.unwrap_or_default();
        let view = |state: RingState| SideView::from(state.positions);
        Some(RingView {
            device,
            queue,
            kind: match host.or(driver) {
                Some(state) => state.kind,
                None => RingKind::plain(format),
            },
            size,
            driver_positions: driver.map(view),
            device_positions: host.map(view),
            available_lag: available,
            used_lag: used,
        })
    })
    .collect()
}

/// One side's table, if there is one.
struct Side(Option<TypedReader<RingState, Mapped, Vec<u64>>>);

impl Side {
    fn read(&mut self, slot: u32) -> Option<(RingState, Generation)> {
        self.0.as_mut()?.read(slot).ok()
    }
}

/// What both sides say of a ring, at one moment: the device says the same before and after the driver is read. Where it
/// never does for so long, what was read last.
fn both(driver: &mut Side, device: &mut Side, slot: u32) -> [Option<RingState>; 2] {
    let mut before = device.read(slot);
    let mut tries = 0;
    loop {
        let driver = driver.read(slot);
        let after = device.read(slot);
        tries += 1;
        if after == before || tries == TRIES {
            return [driver, after].map(|read| read.map(|(state, _)| state));
        }
        before = after;
    }
}
