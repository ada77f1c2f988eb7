//! The three ways between a guest's lines and the host.

use shmbus_ring::RingFeatures;
use shmbus_shm::Mapped;
use shmbus_signal::Priority;

use super::device::{IntcOptions, MOST_LINES, role};
use super::payload::{Control, Wire};
use crate::device::{ActivateError, CONFIG_WORDS, RegionRequest, Regions};
use crate::lane::{Carrier, Direction, Lane, LaneError, LaneRoles, Reading, requests};

/// The lanes of a guest's interrupt controller.
#[derive(Clone, Debug)]
pub struct IntcLanes<W> {
    /// What is on each line: [`Wire`]s, to the guest.
    pub wires: Lane<W>,
    /// How the guest wants each line, and how far it has come with it: [`Control`]s, to the host.
    pub controls: Lane<W>,
    /// What the guest drives onto each line: [`Wire`]s, to the host.
    pub requests: Lane<W>,
}

const WIRES: LaneRoles = LaneRoles {
    values: role::WIRES,
    receiver: role::WIRES_DRIVER,
    common: role::WIRES_COMMON,
    elements: role::WIRES_ELEMENTS,
};

const CONTROLS: LaneRoles = LaneRoles {
    values: role::CONTROLS,
    receiver: role::CONTROLS_DEVICE,
    common: role::CONTROLS_COMMON,
    elements: role::CONTROLS_ELEMENTS,
};

const REQUESTS: LaneRoles = LaneRoles {
    values: role::REQUESTS,
    receiver: role::REQUESTS_DEVICE,
    common: role::REQUESTS_COMMON,
    elements: role::REQUESTS_ELEMENTS,
};

impl IntcLanes<Mapped> {
    /// Memory on the heap for `lines` lines, where both sides are in one process.
    ///
    /// # Errors
    ///
    /// [`LaneError`] for a geometry that there is not.
    pub fn on_heap(carrier: Carrier, lines: u32) -> Result<Self, LaneError> {
        Ok(Self {
            wires: Lane::on_heap::<Wire>(carrier, lines)?,
            controls: Lane::on_heap::<Control>(carrier, lines)?,
            requests: Lane::on_heap::<Wire>(carrier, lines)?,
        })
    }

    /// The lanes among a session's regions.
    pub(super) fn find(
        regions: &Regions,
        reading: Reading,
        features: RingFeatures,
    ) -> Result<Self, LaneError> {
        let find = |direction, roles| Lane::find(regions, direction, roles, reading, features);
        Ok(Self {
            wires: find(Direction::ToGuest, WIRES)?,
            controls: find(Direction::ToHost, CONTROLS)?,
            requests: find(Direction::ToHost, REQUESTS)?,
        })
    }
}

/// What a device asks for.
pub(super) fn regions(options: IntcOptions) -> Result<Vec<RegionRequest>, LaneError> {
    let IntcOptions { lines, carrier } = options;
    let urgent = Priority::HIGHEST;
    let [to_guest, to_host] = [Direction::ToGuest, Direction::ToHost];
    let wires = requests::<Wire>(carrier, to_guest, WIRES, lines, urgent)?;
    let controls = requests::<Control>(carrier, to_host, CONTROLS, lines, urgent)?;
    let requests = requests::<Wire>(carrier, to_host, REQUESTS, lines, urgent)?;
    Ok([wires, controls, requests].concat())
}

/// The lanes of a device of which the configuration tells, and the number of its lines.
pub(super) fn at_guest(
    regions: &Regions,
    config: &[u64; CONFIG_WORDS],
    features: RingFeatures,
) -> Result<(IntcLanes<Mapped>, u32), ActivateError> {
    let found = config[0];
    let lines = u32::try_from(found).unwrap_or(0);
    if !(1..=MOST_LINES).contains(&lines) {
        return Err(format!("the host claims to have {found} lines").into());
    }
    let reading = Reading::from_number(config[1]).unwrap_or(Reading::Last);
    Ok((IntcLanes::find(regions, reading, features)?, lines))
}
