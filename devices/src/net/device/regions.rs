//! The device's regions in a session: what is asked for, and what is made of what came.

use shmbus_ring::RingFeatures;
use shmbus_ring::any::DriverRing;
use shmbus_shm::{Mapped, RegionKind, Section};
use shmbus_table::{Value, layout_of};

use super::{PRIORITY, role};
use crate::device::{ActivateError, NoRegion, RegionRequest, Regions};
use crate::net::config::NetConfig;
use crate::net::driver::NetDriver;
use crate::net::queues::{DeviceRegions, QueueMemory, QueueName, QueueRegions};
use crate::ring_state::RingState;

/// What a device with queues of this geometry asks for.
pub(super) fn requests(memory: QueueMemory) -> Vec<RegionRequest> {
    let ring = memory.ring();
    let area = |role, section, bytes| RegionRequest {
        role,
        kind: RegionKind::Ring {
            format: ring.format(),
            size: ring.size(),
        },
        section,
        bytes,
        // Of what both write nobody says who wrote it last: each side signals its own.
        signal: (section != Section::Common).then_some(PRIORITY),
    };
    let buffers = |role| RegionRequest {
        role,
        kind: RegionKind::Raw {
            params: [memory.buffer_bytes().into(), ring.size().into()],
        },
        section: Section::Common,
        bytes: memory.buffers_bytes(),
        signal: None,
    };
    let slots = QueueName::COUNT;
    let positions = |role, section| RegionRequest {
        role,
        kind: RegionKind::Table {
            slots,
            slot_bytes: 8 * RingState::WORDS as u32,
        },
        section,
        bytes: layout_of::<RingState>(slots).map_or(0, |layout| layout.bytes()),
        signal: None,
    };
    let common = |role| {
        let bytes = ring.common_bytes();
        (bytes > 0).then(|| area(role, Section::Common, bytes))
    };
    let mut requests = vec![
        area(role::RECEIVEQ1_DRIVER, Section::Guest, ring.driver_bytes()),
        area(role::RECEIVEQ1_DEVICE, Section::Host, ring.device_bytes()),
        buffers(role::RECEIVEQ1_BUFFERS),
        area(role::TRANSMITQ1_DRIVER, Section::Guest, ring.driver_bytes()),
        area(role::TRANSMITQ1_DEVICE, Section::Host, ring.device_bytes()),
        buffers(role::TRANSMITQ1_BUFFERS),
        positions(role::DEVICE_POSITIONS, Section::Host),
        positions(role::DRIVER_POSITIONS, Section::Guest),
    ];
    requests.extend(common(role::RECEIVEQ1_COMMON));
    requests.extend(common(role::TRANSMITQ1_COMMON));
    requests
}

/// The queues' regions among those of a session.
pub(super) fn queues(regions: &Regions) -> Result<DeviceRegions<Mapped>, NoRegion> {
    let queue = |driver, device, common, buffers| -> Result<_, NoRegion> {
        Ok(QueueRegions {
            driver: regions.get(driver)?.clone(),
            device: regions.get(device)?.clone(),
            common: regions.get(common).ok().cloned(),
            buffers: regions.get(buffers)?.clone(),
            buffers_address: 0,
        })
    };
    Ok(DeviceRegions {
        receiveq: queue(
            role::RECEIVEQ1_DRIVER,
            role::RECEIVEQ1_DEVICE,
            role::RECEIVEQ1_COMMON,
            role::RECEIVEQ1_BUFFERS,
        )?,
        transmitq: queue(
            role::TRANSMITQ1_DRIVER,
            role::TRANSMITQ1_DEVICE,
            role::TRANSMITQ1_COMMON,
            role::TRANSMITQ1_BUFFERS,
        )?,
    })
}

/// The guest's driver over a session's regions, and the geometry that they have.
///
/// # Errors
///
/// If the regions are not what a net device has.
pub fn attach(
    regions: &Regions,
    config: &NetConfig,
    features: impl Into<RingFeatures>,
) -> Result<(NetDriver<DriverRing<Mapped>, Mapped>, QueueMemory), ActivateError> {
    let (format, size) = regions.ring(role::RECEIVEQ1_DRIVER)?;
    let memory = QueueMemory::in_format(format, size, config.mtu)?;
    let mut driver = NetDriver::over_rings(&queues(regions)?, memory, features)?;
    driver.publish_positions(regions.get(role::DRIVER_POSITIONS)?.clone())?;
    Ok((driver, memory))
}
