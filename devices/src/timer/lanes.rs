//! The two ways between a guest's timers and the host.

use shmbus_ring::RingFeatures;
use shmbus_shm::Mapped;
use shmbus_signal::Priority;

use super::device::{TimerOptions, role};
use super::payload::{Deadline, Expiration};
use crate::device::{RegionRequest, Regions};
use crate::lane::{Carrier, Direction, Lane, LaneError, LaneRoles, Reading, requests};

/// The lanes of one owner's timers.
#[derive(Clone, Debug)]
pub struct TimerLanes<W> {
    /// [`Deadline`]s, to the host.
    pub deadlines: Lane<W>,
    /// [`Expiration`]s, to the guest.
    pub expirations: Lane<W>,
}

const DEADLINES: LaneRoles = LaneRoles {
    values: role::DEADLINES,
    receiver: role::DEADLINES_DEVICE,
    common: role::DEADLINES_COMMON,
    elements: role::DEADLINES_ELEMENTS,
};

const EXPIRATIONS: LaneRoles = LaneRoles {
    values: role::EXPIRATIONS,
    receiver: role::EXPIRATIONS_DRIVER,
    common: role::EXPIRATIONS_COMMON,
    elements: role::EXPIRATIONS_ELEMENTS,
};

impl TimerLanes<Mapped> {
    /// Memory on the heap for `timers` timers, where both sides are in one process.
    ///
    /// # Errors
    ///
    /// [`LaneError`] for a geometry that there is not.
    pub fn on_heap(carrier: Carrier, timers: u32) -> Result<Self, LaneError> {
        Ok(Self {
            deadlines: Lane::on_heap::<Deadline>(carrier, timers)?,
            expirations: Lane::on_heap::<Expiration>(carrier, timers)?,
        })
    }

    /// The lanes of a virtual CPU among a session's regions.
    pub(super) fn find(
        regions: &Regions,
        vcpu: u16,
        reading: Reading,
        features: RingFeatures,
    ) -> Result<Self, LaneError> {
        let find = |direction, roles: LaneRoles| {
            let roles = roles.shifted(vcpu * role::OF_VCPU);
            Lane::find(regions, direction, roles, reading, features)
        };
        Ok(Self {
            deadlines: find(Direction::ToHost, DEADLINES)?,
            expirations: find(Direction::ToGuest, EXPIRATIONS)?,
        })
    }
}

/// What a device asks for, for all virtual CPUs of a guest.
pub(super) fn regions(options: TimerOptions) -> Result<Vec<RegionRequest>, LaneError> {
    let TimerOptions {
        vcpus,
        timers,
        carrier,
    } = options;
    let mut all = Vec::new();
    for vcpu in 0..vcpus {
        let [deadlines, expirations] =
            [DEADLINES, EXPIRATIONS].map(|roles| roles.shifted(vcpu * role::OF_VCPU));
        let urgent = Priority::HIGHEST;
        let to_host = Direction::ToHost;
        let to_guest = Direction::ToGuest;
        all.extend(requests::<Deadline>(
            carrier, to_host, deadlines, timers, urgent,
        )?);
        all.extend(requests::<Expiration>(
            carrier,
            to_guest,
            expirations,
            timers,
            urgent,
        )?);
    }
    Ok(all)
}
