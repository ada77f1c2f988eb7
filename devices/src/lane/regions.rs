//! A lane's regions in a session: what is asked for, and what is made of what came.

use shmbus_ring::RingFeatures;
use shmbus_ring::any::{Areas, Layout};
use shmbus_shm::{Mapped, RegionKind, Section};
use shmbus_signal::Priority;
use shmbus_table::{Value, layout_of};

use super::memory::{Lane, LaneError, RingLane};
use super::{Carrier, Reading, RingCarrier};
use crate::device::{RegionRequest, Regions};

/// Which way values go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Direction {
    ToHost,
    ToGuest,
}

impl Direction {
    /// The memory that the sender writes, and the one that the receiver writes.
    fn sections(self) -> [Section; 2] {
        match self {
            Self::ToHost => [Section::Guest, Section::Host],
            Self::ToGuest => [Section::Host, Section::Guest],
        }
    }
}

/// The roles of a lane's regions.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LaneRoles {
    /// The table, or what the sender writes of the ring. It carries the sender's channel.
    pub(crate) values: u16,
    /// What the receiver writes of the ring.
    pub(crate) receiver: u16,
    /// What both write of the ring; not of a split one.
    pub(crate) common: u16,
    /// The ring's elements; the sender writes.
    pub(crate) elements: u16,
}

impl LaneRoles {
    /// The same `by` further on.
    pub(crate) fn shifted(self, by: u16) -> Self {
        Self {
            values: self.values + by,
            receiver: self.receiver + by,
            common: self.common + by,
            elements: self.elements + by,
        }
    }
}

/// What a lane of `slots` values of `V` asks for.
pub(crate) fn requests<V: Value>(
    carrier: Carrier,
    direction: Direction,
    roles: LaneRoles,
    slots: u32,
    signal: Priority,
) -> Result<Vec<RegionRequest>, LaneError> {
    let [sender, receiver] = direction.sections();
    let RingCarrier { kind, size, .. } = match carrier {
        Carrier::Ring(ring) => ring,
        Carrier::Table => {
            let layout = layout_of::<V>(slots)?;
            return Ok(vec![RegionRequest {
                role: roles.values,
                kind: RegionKind::Table {
                    slots,
                    slot_bytes: layout.slot_bytes(),
                },
                section: sender,
                bytes: layout.bytes(),
                signal: Some(signal),
            }]);
        }
    };
    let layout = Layout::new(kind.format, size)?;
    let area = |role, section, bytes| RegionRequest {
        role,
        kind: RegionKind::Ring {
            format: kind.format,
            size,
        },
        section,
        bytes,
        signal: None,
    };
    let [sender_bytes, receiver_bytes] = match direction {
        Direction::ToHost => [layout.driver_bytes(), layout.device_bytes()],
        Direction::ToGuest => [layout.device_bytes(), layout.driver_bytes()],
    };
    let bytes = RingLane::<Mapped>::buffers_bytes::<V>(size);
    let mut requests = vec![
        // One channel each way is enough: who hears of it looks at both lanes.
        RegionRequest {
            signal: Some(signal),
            ..area(roles.values, sender, sender_bytes)
        },
        area(roles.receiver, receiver, receiver_bytes),
        RegionRequest {
            role: roles.elements,
            kind: RegionKind::Raw {
                params: [(bytes / usize::from(size)) as u64, size.into()],
            },
            section: sender,
            bytes,
            signal: None,
        },
    ];
    if layout.common_bytes() > 0 {
        requests.push(area(roles.common, Section::Common, layout.common_bytes()));
    }
    Ok(requests)
}

impl Lane<Mapped> {
    /// The lane among a session's regions. Whether it is a table or a ring is their kind's to say; `reading` is what the
    /// receiver does with the elements of a ring.
    pub(crate) fn find(
        regions: &Regions,
        direction: Direction,
        roles: LaneRoles,
        reading: Reading,
        features: RingFeatures,
    ) -> Result<Self, LaneError> {
        let values = regions.get(roles.values)?;
        let Ok((format, size)) = regions.ring(roles.values) else {
            return Ok(Self::Table(values.clone()));
        };
        let layout = Layout::new(format, size)?;
        let receiver = regions.get(roles.receiver)?;
        let [driver, device] = match direction {
            Direction::ToHost => [values, receiver],
            Direction::ToGuest => [receiver, values],
        };
        let common = regions.get(roles.common).ok();
        Ok(Self::Ring(RingLane {
            areas: Areas::in_memories(layout, driver, device, common)?,
            buffers: regions.get(roles.elements)?.clone(),
            features,
            reading,
        }))
    }
}
